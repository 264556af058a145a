//! What a trace is like: expert popularity, imbalance, locality between tokens.

mod gates;
pub(crate) mod groups;
pub(crate) mod independent;
mod labels;
mod part;
mod phases;
mod report;
mod serving;
mod structure;
mod topics;

pub use gates::Gates;
pub use labels::Labels;
pub use part::Part;
pub use phases::Phases;
pub(crate) use phases::{spearman, tops};
pub use report::{Figures, Report, structure};
pub use serving::{BATCHES, DEVICES, EIGHTHS, LAGS, Serving};
pub use structure::{LayerFigures, Structure};
pub use topics::Topics;

use crate::trace::{MISSING, Trace};
use moesim_core::Result;
use serde::Serialize;

/// Sequences that are read at a time where every layer reads them: they stay in the cache.
const SEQUENCES: usize = 64;

/// Calls `each` with the cell (layer x experts + expert) of every selection of some rows.
pub(crate) fn cells(rows: &[u16], (layers, k, experts): (usize, usize, usize), mut each: impl FnMut(usize)) {
    for row in rows.chunks_exact(layers * k) {
        for (l, ids) in row.chunks_exact(k).enumerate() {
            ids.iter().filter(|e| **e != MISSING).for_each(|e| each(l * experts + usize::from(*e)));
        }
    }
}

/// Exact counts over a whole trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    experts: usize,
    /// Selections of each expert, layer by layer: `layers x experts`.
    pub counts: Vec<u64>,
    /// Per layer, selections of a row whose expert the row before it (of the same sequence and phase) selected too.
    pub repeats: Vec<u64>,
    /// Per layer, selections of rows that have a row before them.
    pub successors: Vec<u64>,
}

impl Statistics {
    /// Counts one pass over the trace; every id is checked on the way.
    pub fn of(trace: &Trace) -> Result<Self> {
        let (layers, experts, k, width) = (trace.layers(), trace.experts(), trace.k(), trace.width());
        let mut s =
            Self { experts, counts: vec![0; layers * experts], repeats: vec![0; layers], successors: vec![0; layers] };
        for i in 0..trace.sequences() {
            trace.check_sequence(i)?;
            let sequence = trace.sequence(i);
            for phase in [sequence.prefill, sequence.decode] {
                let mut before: Option<&[u16]> = None;
                for row in phase.chunks_exact(width) {
                    for (l, ids) in row.chunks_exact(k).enumerate() {
                        let present = ids.iter().filter(|id| **id != MISSING);
                        present.clone().for_each(|id| s.counts[l * experts + usize::from(*id)] += 1);
                        if let Some(before) = before {
                            let before = &before[l * k..(l + 1) * k];
                            s.successors[l] += present.clone().count() as u64;
                            s.repeats[l] += present.filter(|id| before.contains(id)).count() as u64;
                        }
                    }
                    before = Some(row);
                }
            }
        }
        Ok(s)
    }
    /// Selections of each expert of layer `l` (an index, not a layer number).
    pub fn layer(&self, l: usize) -> &[u64] {
        &self.counts[l * self.experts..(l + 1) * self.experts]
    }
    /// The most selected expert's selections over the mean; 0 without selections.
    pub fn imbalance(&self, l: usize) -> f64 {
        let (max, sum) = self.layer(l).iter().fold((0, 0), |(m, s), &c| (c.max(m), s + c));
        if sum == 0 { 0.0 } else { max as f64 * self.experts as f64 / sum as f64 }
    }
    /// Share of a token's selections that the token before it had too, over all layers; `None` without successors.
    pub fn next_token_overlap(&self) -> Option<f64> {
        let successors: u64 = self.successors.iter().sum();
        (successors > 0).then(|| self.repeats.iter().sum::<u64>() as f64 / successors as f64)
    }
}

/// A trace in a few figures, for people and reports.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// The model whose router chose.
    pub model: String,
    /// Tokens.
    pub rows: u64,
    /// Sequences.
    pub sequences: u64,
    /// Prompt tokens.
    pub prefill_rows: u64,
    /// Output tokens.
    pub decode_rows: u64,
    /// MoE layers.
    pub layers: usize,
    /// Experts a token and layer.
    pub k: usize,
    /// Routed experts a layer.
    pub experts: usize,
    /// Imbalance (max over mean) of the first, the middle and the last MoE layer.
    pub imbalance: [f64; 3],
    /// See [`Statistics::next_token_overlap`].
    pub next_token_overlap: Option<f64>,
    /// Hash of the rows, verified.
    pub hash: String,
    /// Where the selections come from.
    pub source: String,
    /// The licence of the data.
    pub licence: String,
}

/// Reads the whole trace, verifies its hash and sums it up.
pub fn info(trace: &Trace) -> Result<Info> {
    trace.verify()?;
    let s = Statistics::of(trace)?;
    let rows = |ids: &[u16]| (ids.len() / trace.width()) as u64;
    let prefill_rows = (0..trace.sequences()).map(|i| rows(trace.sequence(i).prefill)).sum();
    let last = trace.layers() - 1;
    Ok(Info {
        model: trace.meta().model.clone(),
        rows: trace.rows(),
        sequences: trace.sequences() as u64,
        prefill_rows,
        decode_rows: trace.rows() - prefill_rows,
        layers: trace.layers(),
        k: trace.k(),
        experts: trace.experts(),
        imbalance: [0, last / 2, last].map(|l| s.imbalance(l)),
        next_token_overlap: s.next_token_overlap(),
        hash: trace.hash().to_string(),
        source: trace.meta().source.clone(),
        licence: trace.meta().licence.clone(),
    })
}

#[cfg(test)]
mod tests;
