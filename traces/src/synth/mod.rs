//! Synthetic routing that behaves like recorded routing: skewed layer by layer, with hot experts of each topic, tokens that
//! take after those before them, layers that take after the layer before, and experts that go together.
//!
//! * [`Router`]: the model (see `router.rs`), [fitted](Router::fit) to a recorded trace, or [drawn](Router::drawn) for any
//!   shape from what ships inside the binary ([`fitted`]), or that with the popularity and co-activation of [counts](Router::popular).
//! * [`synthesize`], [`write`]: traces in memory and on disk, the same bytes for a seed on any number of threads.
//! * [`Like`]: a trace fitted on 70 % of its sequences and compared with the rest.
//! * [`uniform`]: draws without any structure at all.
//!
//! Not modelled: gate weights, rows of fewer than k experts.

mod fit;
mod keep;
mod learn;
mod like;
mod popular;
mod prompts;
mod router;
mod settle;
mod train;
mod transfer;
mod uniform;
mod write;

pub use fit::{FINE_GRAINED, Fit, LayerFit, fitted};
pub use keep::synthesize_with;
pub use like::{ComparedStatistic, Comparison, Like};
pub use popular::{PhaseFit, PopularFit};
pub use prompts::PUBLISHED;
pub use uniform::{GroupLimit, uniform};
pub use write::write;

use crate::import::Phase;
use crate::model::Model;
use crate::trace::{Meta, OwnedSequence, Trace};
use moesim_core::rng::stream;
use moesim_core::{Diag, Result};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Raised whenever the same arguments draw other bytes than before: what was drawn and kept is then drawn anew.
pub const VERSION: u32 = 1;

/// A fitted model of routing.
#[derive(Clone, Debug)]
pub struct Router {
    layers: Vec<router::Layer>,
    experts: usize,
    k: usize,
    /// Share of the sequences of each topic.
    shares: Vec<f64>,
    /// Which rows take after the others (see `prompts.rs`); none where both were recorded.
    invented: Option<Phase>,
}

impl Router {
    /// Draws sequence `id`, its prompt rows first: `(prompt + output) x layers x k` ids.
    pub fn sequence(&self, seed: u64, id: u32, (prompt, output): (usize, usize)) -> Vec<u16> {
        let mut ids = self.walk(self.topic(seed, id), seed, id.into(), (prompt, output));
        if self.invented == Some(Phase::Prefill) {
            // Drawn after the output, so that the output is what was fitted, whatever the prompt.
            ids.rotate_left(output * self.layers.len() * self.k);
        }
        ids
    }
    /// Draws the rows of a sequence under a topic, in the order of drawing. Layer by layer, so that a layer's tables
    /// stay in the cache.
    fn walk(&self, topic: usize, seed: u64, id: u64, (prompt, output): (usize, usize)) -> Vec<u16> {
        let r = stream(seed, "synth", id);
        let rows = prompt + output;
        // Those with factors of their own.
        let prompts = match self.invented {
            Some(Phase::Prefill) => output..rows,
            Some(Phase::Decode) => prompt..rows,
            None => 0..prompt,
        };
        let prompt_r = stream(seed, "synth-prompt-rows", id);
        let weights = vec![0.0; self.experts];
        let mut draw = router::Draw { rows, prompts, k: self.k, weights, sums: Vec::new(), r, prompt_r };
        let width = self.layers.len() * self.k;
        let mut ids = vec![0; rows * width];
        let (mut before, mut now) = (Vec::new(), Vec::new());
        for (l, layer) in self.layers.iter().enumerate() {
            now.clear();
            layer.walk(&mut router::Memory::new(layer.topic(topic)), &mut draw, topic, &before, &mut now);
            for (row, new) in ids.chunks_exact_mut(width).zip(now.chunks_exact(self.k)) {
                row[l * self.k..(l + 1) * self.k].copy_from_slice(new);
            }
            std::mem::swap(&mut before, &mut now);
        }
        ids
    }
    /// Sequences of the given (number, prompt rows, output rows), drawn in parallel.
    fn sequences(&self, seed: u64, shapes: &[(u32, u32, u32)]) -> Vec<OwnedSequence> {
        let width = self.layers.len() * self.k;
        let draw = |&(id, prompt, output): &(u32, u32, u32)| {
            let mut ids = self.sequence(seed, id, (prompt as usize, output as usize));
            let decode = ids.split_off(prompt as usize * width);
            OwnedSequence { id, prefill: ids, decode, decode_first_position: prompt, ..Default::default() }
        };
        shapes.par_iter().map(draw).collect()
    }
}

/// What the sequences of a trace are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Subjects {
    /// Many subjects: topics by their shares.
    #[default]
    Many,
    /// One subject: all sequences are under one topic, which the seed picks.
    One,
}

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
    /// What the sequences are about.
    pub subjects: Subjects,
}

/// Selections of a synthetic trace, which is held in memory: 2 GiB.
const SELECTIONS: u64 = 1 << 30;
/// Layers x experts, of which a sequence holds tables.
const TABLE: u64 = 1 << 24;

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
        let (model, subjects) = (model.name.clone(), Subjects::Many);
        Ok(Self { model, layer_numbers, experts, k, sequences, prompt_rows, decode_rows, subjects })
    }
    /// What describes the trace that is drawn.
    pub fn meta(&self, fit: &Fit, seed: u64) -> Meta {
        let about = if self.subjects == Subjects::One { ", of one subject" } else { "" };
        Meta {
            model: self.model.clone(),
            layer_numbers: self.layer_numbers.clone(),
            experts: self.experts,
            k: self.k,
            source: format!(
                "synthetic, seed {seed}{about}, fitted to {} ({}, rows {})",
                fit.model, fit.source, fit.hash
            ),
            licence: format!("generated; the fitted parameters come from data under {}", fit.licence),
        }
    }
}

impl SynthSpec {
    /// Refuses traces that memory should not hold.
    fn check(&self, meta: &Meta) -> Result<()> {
        let at = |d: Diag| d.file("synthetic trace");
        meta.check().map_err(at)?;
        let layers = meta.layer_numbers.len();
        let rows = u64::from(self.prompt_rows) + u64::from(self.decode_rows);
        let selections = u128::from(rows) * u128::from(self.sequences) * meta.width() as u128;
        if selections == 0 || selections > SELECTIONS.into() || layers as u64 * u64::from(self.experts) > TABLE {
            let problem = format!(
                "{} sequences of {rows} rows over {layers} layers and {} experts are out of range",
                self.sequences, self.experts
            );
            return Err(at(Diag::input(problem)
                .place("rows")
                .cure("ask for at least one row, at most 2^30 selections in all, and 2^24 experts over all layers")));
        }
        Ok(())
    }
}

/// Draws a trace. The same arguments give the same rows, on every machine.
pub fn synthesize(spec: &SynthSpec, seed: u64) -> Result<Trace> {
    let fit = fitted(spec.experts)?;
    spec.check(&spec.meta(&fit, seed))?;
    synthesize_with(&Router::drawn(&fit, spec, seed), &fit, spec, seed)
}

#[cfg(test)]
mod tests;
