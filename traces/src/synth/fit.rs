//! The parameters that ship inside the binary: what a recorded trace's layers are like, in few figures, from which routers
//! of any shape are drawn.

use super::Router;
use super::router::Layer;
use super::settle::{Target, floor};
use crate::stats::Part;
use crate::trace::Trace;
use moesim_core::{Result, config};
use serde::{Deserialize, Serialize};

/// A trace in few figures.
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
    /// Topics that its sequences were grouped in.
    pub topics: u32,
    /// The MoE layers in order.
    pub layer: Vec<LayerFit>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerFit {
    /// Selections of each expert.
    pub counts: Vec<u64>,
    /// Share of a token's experts that the token 1, 4 and 32 before had too.
    pub overlap: [f64; 3],
    /// Shares of topic, urn, last token, short and long memory.
    pub mix: [f32; 5],
    /// Tokens that the topic counts for in the urn.
    pub alpha: f32,
    /// Root mean square, over topics and selections, of the logarithm of an expert's popularity under a topic over all.
    pub topic_spread: f32,
    /// Root mean square of the log-factor by which an expert of the layer before changes an expert's weight.
    pub next_spread: f32,
    /// Root mean square of the log-factor by which another expert of a token changes an expert's weight.
    pub pair_spread: f32,
}

/// Experts a layer from which on a model counts as fine-grained.
pub const FINE_GRAINED: u32 = 64;

/// What ships inside the binary for layers of so many experts: a fit to recorded rows of gpt-oss-20b or, for
/// [`FINE_GRAINED`] experts and more, to counts of models of that kind, whose popularity is twice as skewed.
pub fn fitted(experts: u32) -> Result<Fit> {
    if experts < FINE_GRAINED {
        config::from_toml(include_str!("../../data/gpt-oss-20b.toml"), "gpt-oss-20b.toml")
    } else {
        config::from_toml(include_str!("../../data/fine-grained.toml"), "fine-grained.toml")
    }
}

impl Fit {
    /// Sums up a trace and the router fitted to it.
    ///
    /// # Errors
    /// Bad rows.
    pub fn of(trace: &Trace, seed: u64) -> Result<Self> {
        let part = Part::whole(trace);
        let router = Router::fit(&part, seed)?;
        let rows: Vec<&[u16]> = part.all_rows().collect();
        let targets = Target::of(&rows, (trace.layers(), trace.k(), trace.experts()));
        let statistics = crate::stats::Statistics::of(trace)?;
        let layer = |(l, (layer, target)): (usize, (&Layer, &Target))| {
            let p: Vec<f32> = target.popularity.iter().map(|p| *p as f32).collect();
            let before = if l > 0 { &targets[l - 1].popularity[..] } else { &[] };
            let topics = layer.topics.chunks_exact(p.len()).zip(&router.shares).map(|(topic, share)| {
                let square = |(p, q): (&f32, &f32)| p * libm::logf(q / p) * libm::logf(q / p);
                *share as f32 * p.iter().zip(topic).map(square).sum::<f32>()
            });
            LayerFit {
                counts: statistics.layer(l).to_vec(),
                overlap: target.overlap,
                mix: layer.mix.weights(),
                alpha: layer.alpha,
                topic_spread: topics.sum::<f32>().sqrt(),
                next_spread: spread(&layer.next, before, &target.popularity),
                pair_spread: spread(&layer.pair, &target.popularity, &target.popularity),
            }
        };
        let meta = trace.meta().clone();
        Ok(Self {
            model: meta.model,
            source: meta.source,
            licence: meta.licence,
            hash: trace.hash().to_string(),
            experts: meta.experts,
            k: meta.k,
            topics: router.shares.len() as u32,
            layer: router.layers.iter().zip(&targets).enumerate().map(layer).collect(),
        })
    }
    /// A file that [`fitted`] may read, under a head of comments.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn to_text(&self, head: &str) -> Result<String> {
        Ok(head.to_string() + &config::to_toml(self)?)
    }
    /// The fitted layer at the same relative depth as layer `l` of `layers`.
    pub fn layer_at(&self, l: usize, layers: usize) -> &LayerFit {
        &self.layer[l * self.layer.len() / layers]
    }
    /// Overlaps of layer `l` of `layers`, which has this popularity and `k` experts a token: they are the same part of
    /// what popularity leaves as in the fitted layer at the same relative depth.
    pub fn overlap_at(&self, (l, layers): (usize, usize), popularity: &[f64], k: u32) -> [f64; 3] {
        let floor = floor(popularity, k as usize).min(1.0);
        self.layer_at(l, layers).excess(self.k).map(|x| floor + x * (1.0 - floor))
    }
}

/// Root mean square of the logarithms of a table's factors, weighted by the popularity of row and column.
fn spread(table: &[f32], rows: &[f64], columns: &[f64]) -> f32 {
    let row = |(row, p): (&[f32], &f64)| {
        let square = |(x, q): (&f32, &f64)| q * f64::from(libm::logf(*x) * libm::logf(*x));
        p * row.iter().zip(columns).map(square).sum::<f64>()
    };
    // From 0.0, since the sum of no floats is -0.0, which a first layer would have.
    table.chunks_exact(columns.len()).zip(rows).map(row).fold(0.0, |a, b| a + b).sqrt() as f32
}

impl LayerFit {
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
    /// The overlaps less what popularity alone gives, as shares of what is left to 1.
    fn excess(&self, k: u32) -> [f64; 3] {
        let total = self.counts.iter().sum::<u64>().max(1) as f64;
        let shares: Vec<f64> = self.counts.iter().map(|c| *c as f64 / total).collect();
        let floor = floor(&shares, k as usize);
        self.overlap.map(|o| ((o - floor) / (1.0 - floor).max(1e-9)).clamp(0.0, 1.0))
    }
}
