//! A synthetic source: selections with the popularity and the locality of a measured trace, for any number of rows.
//!
//! Per layer, each expert is selected with a fixed probability, and a token keeps each expert of the token before it with
//! a probability that gives the measured next-token overlap. For the shape of the fitted trace these figures are the
//! measured ones. **For any other shape they are an approximation**: layers are taken from the fitted layers at the same
//! relative depth, popularity from the quantiles of their relative loads (which expert is popular is drawn), and the
//! probability of keeping an expert is theirs. Nothing else is modelled: not the order of gate weights, no dependence
//! between layers, no topics. The fitted trace has output tokens only; prompt rows are drawn like them.
//!
//! The draw: a fresh set F of k experts comes from systematic sampling (Madow 1949), which gives each expert exactly its
//! inclusion probability p, over an order shuffled once a sequence. The experts of the token before that F lacks are
//! paired at random with those of F that it lacked, and each pair is swapped with probability 1 - r. Both sets have the
//! same marginals, so the new one has too, and the expected overlap is c + r (1 - c), where c = sum(p^2) / k is the
//! overlap of independent draws: r follows from the measured overlap in closed form.

mod fit;

pub use fit::{Fit, LayerFit, fitted};

use crate::model::Model;
use crate::trace::{Meta, OwnedSequence, Trace};
use moesim_core::rng::{Stream, below, stream};
use moesim_core::{Diag, Result};
use rand::Rng;

/// What to synthesise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynthSpec {
    /// The model's name, a label.
    pub model: String,
    /// The numbers of its MoE layers.
    pub layer_numbers: Vec<u32>,
    /// Routed experts a layer.
    pub experts: u32,
    /// Experts a token.
    pub k: u32,
    /// Sequences.
    pub sequences: u32,
    /// Prompt rows of each.
    pub prompt_rows: u32,
    /// Output rows of each.
    pub decode_rows: u32,
}

/// Selections of a synthetic trace, which is held in memory: 2 GiB.
const SELECTIONS: u64 = 1 << 30;
/// Layers x experts, of which a sequence holds tables.
const TABLE: u64 = 1 << 24;
/// A probability of 1 in fixed point.
const ONE: u64 = 1 << 32;

impl SynthSpec {
    /// The shape of a model, which must have MoE layers that are alike.
    pub fn for_model(model: &Model, sequences: u32, prompt_rows: u32, decode_rows: u32) -> Result<Self> {
        let layer_numbers: Vec<u32> = model.moe_layers().iter().map(|l| *l as u32).collect();
        let mut moe = model.decoder.iter().filter_map(|l| l.moe());
        let first = moe.next().ok_or_else(|| {
            Diag::input(format!("{} has no MoE layers", model.name)).place("model").cure("name a model with experts")
        })?;
        let (experts, k) = (first.ids(), first.top_k);
        if moe.any(|m| (m.ids(), m.top_k) != (experts, k)) {
            let problem = format!("the MoE layers of {} differ in experts or top_k", model.name);
            return Err(Diag::input(problem).place("model").cure("import a trace of it instead"));
        }
        Ok(Self { model: model.name.clone(), layer_numbers, experts, k, sequences, prompt_rows, decode_rows })
    }
}

/// Draws a trace. The same arguments give the same rows, on every machine.
pub fn synthesize(spec: &SynthSpec, seed: u64) -> Result<Trace> {
    let fit = fitted()?;
    let meta = Meta {
        model: spec.model.clone(),
        layer_numbers: spec.layer_numbers.clone(),
        experts: spec.experts,
        k: spec.k,
        source: format!("synthetic, seed {seed}, fitted to {} ({}, rows {})", fit.model, fit.source, fit.hash),
        licence: format!("generated; the fitted parameters come from data under {}", fit.licence),
    };
    let at = |d: Diag| d.file("synthetic trace");
    meta.check().map_err(at)?;
    let layers = meta.layer_numbers.len();
    let rows = u64::from(spec.prompt_rows) + u64::from(spec.decode_rows);
    let selections = u128::from(rows) * u128::from(spec.sequences) * meta.width() as u128;
    if selections == 0 || selections > SELECTIONS.into() || layers as u64 * u64::from(spec.experts) > TABLE {
        let problem = format!(
            "{} sequences of {rows} rows over {layers} layers and {} experts are out of range",
            spec.sequences, spec.experts
        );
        return Err(at(Diag::input(problem)
            .place("rows")
            .cure("ask for at least one row, at most 2^30 selections in all, and 2^24 experts over all layers")));
    }
    let profiles: Vec<Profile> = (0..layers).map(|l| Profile::new(&fit, l, spec, seed)).collect();
    let sequences = (0..spec.sequences).map(|id| {
        let mut r = stream(seed, "synth", id.into());
        let mut chains: Vec<Chain> = profiles.iter().map(|p| Chain::new(p, spec.k as usize, &mut r)).collect();
        let mut draw = |rows: u32| {
            let mut ids = Vec::with_capacity(rows as usize * meta.width());
            for _ in 0..rows {
                chains.iter_mut().for_each(|c| ids.extend_from_slice(c.next(&mut r)));
            }
            ids
        };
        let (prefill, decode) = (draw(spec.prompt_rows), draw(spec.decode_rows));
        OwnedSequence { id, prefill, decode, decode_first_position: spec.prompt_rows, ..Default::default() }
    });
    Trace::from_sequences(meta.clone(), sequences.collect())
}

/// One layer's parameters in fixed point, so that drawing is integer arithmetic.
struct Profile {
    /// Inclusion probability of each expert; they sum to k.
    inclusion: Vec<u64>,
    /// Probability of swapping a pair.
    swap: u64,
}

impl Profile {
    fn new(fit: &Fit, layer: usize, spec: &SynthSpec, seed: u64) -> Self {
        let (layers, experts) = (spec.layer_numbers.len(), spec.experts as usize);
        let fitted = &fit.layer[layer * fit.layer.len() / layers];
        let same = (fit.layer.len(), fit.experts as usize, fit.k) == (layers, experts, spec.k);
        let loads = if same {
            fitted.counts.iter().map(|c| *c as f64).collect()
        } else {
            let mut loads = fitted.quantiles(experts);
            shuffle(&mut loads, &mut stream(seed, "synth-popularity", layer as u64));
            loads
        };
        let inclusion = fixed_point(&inclusion(&loads, spec.k), spec.k);
        let swap = ((1.0 - fitted.retention(fit.k)) * ONE as f64) as u64;
        Self { inclusion, swap }
    }
}

/// Inclusion probabilities proportional to `loads` that sum to `k`; what would exceed 1 is 1 and the rest is scaled up.
fn inclusion(loads: &[f64], k: u32) -> Vec<f64> {
    let mut certain = vec![false; loads.len()];
    loop {
        let left = f64::from(k) - certain.iter().filter(|c| **c).count() as f64;
        let sum: f64 = loads.iter().zip(&certain).filter(|(_, c)| !**c).map(|(l, _)| l).sum();
        let scale = if sum > 0.0 { left / sum } else { 0.0 };
        let before = left;
        for (l, c) in loads.iter().zip(&mut certain) {
            *c |= l * scale >= 1.0;
        }
        if f64::from(k) - certain.iter().filter(|c| **c).count() as f64 == before {
            return loads.iter().zip(&certain).map(|(l, c)| if *c { 1.0 } else { l * scale }).collect();
        }
    }
}

/// Rounds to fixed point so that the sum is exactly k; no probability exceeds 1.
fn fixed_point(inclusion: &[f64], k: u32) -> Vec<u64> {
    let mut fixed: Vec<u64> = inclusion.iter().map(|p| ((p * ONE as f64) as u64).min(ONE)).collect();
    let target = u64::from(k) * ONE;
    let mut sum: u64 = fixed.iter().sum();
    for p in &mut fixed {
        let change = (ONE - *p).min(target.saturating_sub(sum));
        *p += change;
        sum += change;
        let change = (*p).min(sum.saturating_sub(target));
        *p -= change;
        sum -= change;
    }
    fixed
}

fn shuffle<T>(list: &mut [T], r: &mut Stream) {
    for i in (1..list.len()).rev() {
        list.swap(i, below(r.next_u64(), i as u64 + 1) as usize);
    }
}

/// One layer's selections over a sequence.
struct Chain {
    /// Experts in the order of this sequence, and the sums of their inclusion probabilities.
    order: Vec<u16>,
    sums: Vec<u64>,
    swap: u64,
    now: Vec<u16>,
    fresh: Vec<u16>,
    started: bool,
}

impl Chain {
    fn new(profile: &Profile, k: usize, r: &mut Stream) -> Self {
        let mut order: Vec<u16> = (0..profile.inclusion.len() as u16).collect();
        shuffle(&mut order, r);
        let sums = order.iter().scan(0, |sum, e| {
            *sum += profile.inclusion[usize::from(*e)];
            Some(*sum)
        });
        let sums = sums.collect();
        Self { order, sums, swap: profile.swap, now: Vec::with_capacity(k), fresh: vec![0; k], started: false }
    }
    /// The next token's selections.
    fn next(&mut self, r: &mut Stream) -> &[u16] {
        // k points one apart: an expert of probability p <= 1 covers at most one of them, with probability p.
        let start = below(r.next_u64(), ONE);
        for (j, f) in self.fresh.iter_mut().enumerate() {
            let point = start + j as u64 * ONE;
            *f = self.order[self.sums.partition_point(|s| *s <= point)];
        }
        shuffle(&mut self.fresh, r);
        if !self.started {
            self.started = true;
            self.now.extend_from_slice(&self.fresh);
            return &self.now;
        }
        let mut new =
            (0..self.fresh.len()).filter(|f| !self.now.contains(&self.fresh[*f])).collect::<Vec<_>>().into_iter();
        for slot in 0..self.now.len() {
            if !self.fresh.contains(&self.now[slot])
                && let Some(f) = new.next()
                && below(r.next_u64(), ONE) < self.swap
            {
                self.now[slot] = self.fresh[f];
            }
        }
        &self.now
    }
}

#[cfg(test)]
mod tests;
