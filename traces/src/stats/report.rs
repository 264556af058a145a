//! Everything that is said of a trace's routing, and beside it the same of independent draws.

use super::structure::{LayerFigures, Structure};
use super::{Gates, Labels, Part, Phases, Serving, Topics, groups, independent};
use crate::trace::Trace;
use moesim_core::Result;
use serde::Serialize;

/// Selections of the independent draws at most.
const INDEPENDENT: u64 = 1 << 26;

/// Routing in figures.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Rows they are taken of.
    pub rows: u64,
    /// By MoE layer; `None` where the tables of pairs would not fit in memory (2^26 entries).
    pub layers: Option<Vec<LayerFigures>>,
    /// What serving feels.
    pub serving: Serving,
    /// Prompt against output; `None` where no sequence has both.
    pub phases: Option<Phases>,
    /// First against second half of the output.
    pub halves: Option<Phases>,
    /// Topics; `None` where there are fewer than two.
    pub topics: Option<Topics>,
}

/// A trace in figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model whose router chose.
    pub model: String,
    /// Hash of the rows.
    pub hash: String,
    /// Sequences.
    pub sequences: usize,
    /// Numbers of the MoE layers.
    pub layer_numbers: Vec<u32>,
    /// Experts a layer.
    pub experts: u32,
    /// Experts a token.
    pub k: u32,
    /// Gate weights; `None` where the trace has none.
    pub gates: Option<Gates>,
    /// The trace.
    pub trace: Figures,
    /// Independent draws: every token and layer on its own, each expert exactly as popular as in the trace.
    pub independent: Figures,
}

/// Counts how a part's selections hang together; `None` where the tables would not fit.
pub fn structure(part: &Part) -> Option<Structure> {
    let trace = part.trace();
    let mut structure = Structure::new(trace.layers(), trace.experts(), trace.k())?;
    // A prompt's last row is followed by the first row of the output.
    let runs: Vec<&[u16]> = part.sequences().flat_map(|s| [s.prefill, s.decode]).collect();
    structure.count(&runs);
    Some(structure)
}

impl Figures {
    fn of(part: &Part, labels: Option<&Labels>, seed: u64) -> Result<Self> {
        part.check()?;
        let trace = part.trace();
        let topics = match labels {
            Some(l) => Topics::of(part, &l.of, &l.names, "labels", seed),
            None => {
                let (of, n) = groups::of(part, seed);
                let names: Vec<String> = (0..n).map(|t| format!("group {t}")).collect();
                Topics::of(part, &of, &names, "groups found in the routing itself; no labels were given", seed)
            }
        };
        Ok(Self {
            rows: part.all_rows().map(|r| (r.len() / trace.width()) as u64).sum(),
            layers: structure(part).map(|s| s.figures()),
            serving: Serving::of(part, seed),
            phases: Phases::of(part),
            halves: Phases::of_halves(part),
            topics,
        })
    }
}

impl Report {
    /// Measures a trace; random samples are drawn with `seed`.
    ///
    /// # Errors
    /// Bad rows.
    pub fn of(trace: &Trace, labels: Option<&Labels>, seed: u64) -> Result<Self> {
        let whole = Part::whole(trace);
        let figures = Figures::of(&whole, labels, seed)?;
        let (twin, kept) = independent::independent(&whole, INDEPENDENT, seed)?;
        let labels = labels.map(|l| Labels { of: kept.iter().map(|i| l.of[*i]).collect(), names: l.names.clone() });
        let meta = trace.meta();
        Ok(Self {
            model: meta.model.clone(),
            hash: trace.hash().to_string(),
            sequences: trace.sequences(),
            layer_numbers: meta.layer_numbers.clone(),
            experts: meta.experts,
            k: meta.k,
            gates: Gates::of(trace),
            trace: figures,
            independent: Figures::of(&Part::whole(&twin), labels.as_ref(), seed)?,
        })
    }
}
