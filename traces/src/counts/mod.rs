//! How often each expert of each layer was selected, out of files that hold no trace: one reader a file, behind
//! [`Reader`].

mod coactivation;
mod eplb;
mod grid;
mod imatrix;
mod sglang;
mod tensorrt_llm;
mod trace_rows;

use moesim_core::diag::unknown;
use moesim_core::{Diag, Result, input};
use serde::Serialize;
use std::path::Path;

/// Bounds on what a file can declare, as those of a trace.
const LAYERS: usize = 4096;
const EXPERTS: usize = 65_534;
/// Counts in all: 128 MiB, and as much again while they are added up.
const COUNTS: usize = 1 << 24;

/// How often each expert of each layer was selected.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ExpertCounts {
    /// The format that was read.
    pub format: &'static str,
    /// The model, where the file names it.
    pub model: Option<String>,
    /// Numbers of the layers, ascending; layers without any selection are left out.
    pub layer_numbers: Vec<u32>,
    /// Experts a layer.
    pub experts: u32,
    /// Experts a token, where the file says so.
    pub k: Option<u32>,
    /// Selections, layer by layer: `layers x experts`.
    pub counts: Vec<u64>,
    /// Per layer, pairs that were selected together: (expert, expert, tokens). Empty without such data; a file may leave
    /// rare pairs out.
    pub pairs: Vec<Vec<(u32, u32, u64)>>,
    /// What a user must know of the figures.
    pub notes: Vec<String>,
}

/// Reads one format.
pub trait Reader: Sync {
    /// Its name, for `--source-format`.
    fn name(&self) -> &'static str;
    /// What it reads, in one line.
    fn description(&self) -> &'static str;
    /// Whether `path` looks like this format; reads little.
    fn detect(&self, path: &Path) -> bool;
    /// Reads `path`; memory is at most 256 MiB of counts and what the reader states.
    ///
    /// # Errors
    /// A file that is damaged, lies about itself or holds other data.
    fn read(&self, path: &Path) -> Result<ExpertCounts>;
}

/// All readers; detection asks them in this order.
pub fn readers() -> &'static [&'static dyn Reader] {
    &[
        &trace_rows::TraceRows,
        &imatrix::Imatrix,
        &tensorrt_llm::TensorRtLlm,
        &sglang::Sglang,
        &coactivation::Coactivation,
        &eplb::Eplb,
    ]
}

/// Reads the counts in `path`; `format` is a name of [`readers`], or detected.
///
/// # Errors
/// See [`Reader::read`]; a format that is not known.
pub fn read(path: &Path, format: Option<&str>) -> Result<ExpertCounts> {
    let names: Vec<&str> = readers().iter().map(|r| r.name()).collect();
    if !path.is_dir() {
        input::plain(path)?;
    }
    let reader = match format {
        Some(name) => readers().iter().find(|r| r.name() == name).ok_or_else(|| unknown("count format", name, &names)),
        None => readers().iter().find(|r| r.detect(path)).ok_or_else(|| {
            let cure = format!("name its format with --source-format ({})", names.join(", "));
            Diag::input("has no counts in a known format").file(path).cure(cure)
        }),
    }?;
    let counts = reader.read(path).map_err(|d| d.file(path))?;
    let sum = |layer: &[u64]| layer.iter().try_fold(0u64, |s, c| s.checked_add(*c));
    if let Some(l) = counts.counts.chunks(counts.experts.max(1) as usize).position(|layer| sum(layer).is_none()) {
        let d =
            Diag::input("has more than 2^64 selections").file(path).place(format!("layer {}", counts.layer_numbers[l]));
        return Err(d.cure("record for a shorter time"));
    }
    Ok(ExpertCounts { format: reader.name(), ..counts })
}

impl ExpertCounts {
    /// Selections of each expert of layer `l` (an index, not a layer number).
    pub fn layer(&self, l: usize) -> &[u64] {
        let experts = self.experts as usize;
        &self.counts[l * experts..(l + 1) * experts]
    }
    /// Selections of layer `l`.
    pub fn total(&self, l: usize) -> u64 {
        self.layer(l).iter().sum()
    }
    /// The most selected expert's selections over the mean; 0 without selections.
    pub fn imbalance(&self, l: usize) -> f64 {
        let max = self.layer(l).iter().max().copied().unwrap_or(0);
        max as f64 * f64::from(self.experts) / self.total(l).max(1) as f64
    }
    /// Entropy of the shares over that of equal shares: 1 is balanced, 0 one expert for all. A layer of one expert has 1.
    pub fn entropy(&self, l: usize) -> f64 {
        if self.experts == 1 {
            return 1.0;
        }
        let total = self.total(l).max(1) as f64;
        let part = |c: &u64| {
            let p = *c as f64 / total;
            if *c == 0 { 0.0 } else { -p * libm::log(p) }
        };
        self.layer(l).iter().map(part).sum::<f64>() / libm::log(f64::from(self.experts))
    }
    /// The `n` most selected experts of layer `l`: (expert, selections), of equals the lower number first.
    pub fn top(&self, l: usize, n: usize) -> Vec<(u32, u64)> {
        let mut all: Vec<(u32, u64)> = (0..).zip(self.layer(l).iter().copied()).collect();
        all.sort_by_key(|(e, c)| (std::cmp::Reverse(*c), *e));
        all.truncate(n);
        all
    }
}

#[cfg(test)]
mod tests;
