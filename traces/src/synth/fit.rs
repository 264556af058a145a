//! The parameters of the synthetic source: exact counts of a trace, and what follows from them.

use crate::stats::Statistics;
use crate::trace::Trace;
use moesim_core::{Result, config};
use serde::{Deserialize, Serialize};

/// Counts of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// The model that was traced.
    pub model: String,
    /// Where the trace comes from.
    pub source: String,
    /// Its licence.
    pub licence: String,
    /// Hash of its rows.
    pub hash: String,
    /// Routed experts a layer.
    pub experts: u32,
    /// Experts a token.
    pub k: u32,
    /// The MoE layers in order.
    pub layer: Vec<LayerFit>,
}

/// Counts of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerFit {
    /// Selections of each expert.
    pub counts: Vec<u64>,
    /// Selections whose expert the token before selected too.
    pub repeats: u64,
    /// Selections of tokens that have a token before them.
    pub successors: u64,
}

/// The fit that ships inside the binary.
pub fn fitted() -> Result<Fit> {
    config::from_toml(include_str!("../../data/gpt-oss-20b.toml"), "gpt-oss-20b.toml")
}

impl Fit {
    /// Counts a trace.
    pub fn of(trace: &Trace) -> Result<Self> {
        let s = Statistics::of(trace)?;
        let layer =
            |l: usize| LayerFit { counts: s.layer(l).to_vec(), repeats: s.repeats[l], successors: s.successors[l] };
        let meta = trace.meta().clone();
        Ok(Self {
            model: meta.model,
            source: meta.source,
            licence: meta.licence,
            hash: trace.hash().to_string(),
            experts: meta.experts,
            k: meta.k,
            layer: (0..trace.layers()).map(layer).collect(),
        })
    }
    /// The file that [`fitted`] reads.
    pub fn to_text(&self) -> Result<String> {
        let head = "# Counts of an expert-selection trace, from which the synthetic source draws. Written by the example fit_synth.\n";
        Ok(head.to_string() + &config::to_toml(self)?)
    }
}

impl LayerFit {
    /// Share of a token's experts that the token before had too.
    pub fn overlap(&self) -> f64 {
        self.repeats as f64 / self.successors.max(1) as f64
    }
    /// The same for independent draws of `k` experts with this popularity: sum of p^2 over k, p = k x share.
    pub fn independent_overlap(&self, k: u32) -> f64 {
        let total = self.counts.iter().sum::<u64>().max(1) as f64;
        f64::from(k) * self.counts.iter().map(|c| (*c as f64 / total) * (*c as f64 / total)).sum::<f64>()
    }
    /// The probability r of keeping an expert that a fresh draw lacks: overlap = c + r (1 - c).
    pub fn retention(&self, k: u32) -> f64 {
        let c = self.independent_overlap(k);
        ((self.overlap() - c) / (1.0 - c)).clamp(0.0, 1.0)
    }
    /// Relative loads for another number of experts: the sorted counts at the middles of as many equal parts, between
    /// counts linearly.
    pub(super) fn quantiles(&self, experts: usize) -> Vec<f64> {
        let mut sorted = self.counts.clone();
        sorted.sort_unstable();
        let last = sorted.len() - 1;
        let at = |e: usize| {
            let x = ((e as f64 + 0.5) / experts as f64 * sorted.len() as f64 - 0.5).clamp(0.0, last as f64);
            let (i, part) = (x as usize, x - x.floor());
            // At least one selection: every expert can be drawn.
            (sorted[i] as f64 * (1.0 - part) + sorted[(i + 1).min(last)] as f64 * part).max(1.0)
        };
        (0..experts).map(at).collect()
    }
}
