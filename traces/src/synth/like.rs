//! Traces like a recorded one, and how like it they are.

use super::Router;
use super::settle::Target;
use crate::stats::independent::independent;
use crate::stats::{BATCHES, DEVICES, EIGHTHS, LAGS, LayerFigures, Part, Phases, Serving, structure};
use crate::trace::{OwnedSequence, Trace};
use moesim_core::rng::{below, stream};
use moesim_core::{Diag, Result};
use rand::Rng;
use serde::Serialize;

/// Share of the sequences that the model is fitted to; the rest judges it.
const FITTED: f64 = 0.7;
/// Selections drawn to be compared, at most; 128 MiB.
const DRAWN: u64 = 1 << 26;

/// Sequences whose drawn prompts are compared with their output.
const PROMPTS: usize = 256;

/// One figure of each of four sets of rows.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedStatistic {
    /// What is measured.
    pub statistic: &'static str,
    /// At which size, in the statistic's own unit; `None` where it has none.
    pub size: Option<usize>,
    /// The sequences held out.
    pub held_out: f64,
    /// Those that were fitted: how far two parts of one trace differ.
    pub fitted: f64,
    /// Drawn from the fitted model, of the lengths held out.
    pub synthetic: f64,
    /// Independent draws with the popularity held out.
    pub independent: f64,
}

/// How like its trace a fitted model's sequences are.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Sequences fitted and held out.
    pub sequences: [usize; 2],
    /// Of those held out, how many are compared, picked at random: as many as have 2^26 selections, at least one.
    pub compared: usize,
    /// The figures.
    pub rows: Vec<ComparedStatistic>,
    /// Prompt against output: held out and synthetic; `None` where the trace has no prompt rows.
    pub phases: Option<[Phases; 2]>,
    /// Prompt against output of synthetic sequences where the trace has no prompt rows but they were asked for: as alike as
    /// [published](super::PUBLISHED) of other models.
    pub drawn_phases: Option<Phases>,
}

/// A model fitted to some sequences, with their lengths.
pub struct Like {
    /// The model.
    pub router: Router,
    /// (Prompt, output) rows of the recorded sequences, from which lengths are drawn.
    pub lengths: Vec<(u32, u32)>,
}

impl Like {
    /// Fits a model to a random 70 % of `trace`'s sequences and compares it with the rest; `prompt` prompt rows will be asked
    /// for.
    ///
    /// # Errors
    /// Bad rows; a trace of one sequence.
    pub fn fit(trace: &Trace, prompt: u32, seed: u64) -> Result<(Self, Comparison)> {
        if trace.sequences() < 2 {
            let d = Diag::input("has one sequence only, which leaves none to compare with").place("sequences");
            return Err(trace.at(d.cure("give a trace of at least two")));
        }
        let (fitted, held) = Part::split(trace, FITTED, seed);
        let mut router = Router::fit(&fitted, seed)?;
        if router.invented.is_some() && prompt > 0 {
            let rows: Vec<&[u16]> = fitted.all_rows().collect();
            router.invent_prompts(&Target::of(&rows, (trace.layers(), trace.k(), trace.experts())), seed);
        }
        let sequences = [fitted.len(), held.len()];
        let held = held.some(DRAWN, seed);
        held.check()?;
        let recorded = lengths(&fitted);
        let shapes: Vec<(u32, u32, u32)> =
            lengths(&held).iter().enumerate().map(|(i, l)| (i as u32, l.0, l.1)).collect();
        // Other draws than those that a user of the same seed is given.
        let drawn: Vec<OwnedSequence> = router.sequences(seed ^ 0x5eed, &shapes);
        let synthetic = Trace::from_sequences(trace.meta().clone(), drawn)?;
        let (independent, _) = independent(&held, DRAWN, seed)?;
        let (synthetic, independent) = (Part::whole(&synthetic), Part::whole(&independent));
        let parts = [&held, &fitted, &synthetic, &independent];
        let phases = Phases::of(&held).zip(Phases::of(&synthetic)).map(|(h, s)| [h, s]);
        let drawn_phases = if phases.is_none() && prompt > 0 {
            // Prompts that are compared are no longer than fits.
            let rows = (DRAWN / (PROMPTS * trace.width()) as u64).max(2) as u32;
            let short = |s: &(u32, u32, u32)| (s.0, prompt.min(rows / 2), s.2.clamp(1, rows / 2));
            let some: Vec<(u32, u32, u32)> = shapes.iter().take(PROMPTS).map(short).collect();
            let drawn = Trace::from_sequences(trace.meta().clone(), router.sequences(seed ^ 0x5eed, &some))?;
            Phases::of(&Part::whole(&drawn))
        } else {
            None
        };
        let compared = held.len();
        let comparison = Comparison { sequences, compared, rows: compare(parts, &fitted, seed), phases, drawn_phases };
        Ok((Self { router, lengths: recorded }, comparison))
    }
    /// (Prompt, output) rows of sequence `id`: those of a recorded sequence, picked at random.
    pub fn length(&self, seed: u64, id: u32) -> (u32, u32) {
        let at = below(stream(seed, "synth-length", id.into()).next_u64(), self.lengths.len() as u64);
        self.lengths[at as usize]
    }
}

fn lengths(part: &Part) -> Vec<(u32, u32)> {
    let width = part.trace().width();
    part.sequences().map(|s| ((s.prefill.len() / width) as u32, (s.decode.len() / width) as u32)).collect()
}

/// The figures of (held out, fitted, synthetic, independent) rows. What a layer says of the next is learnt from `fitted`.
fn compare(parts: [&Part; 4], fitted: &Part, seed: u64) -> Vec<ComparedStatistic> {
    let mut rows = Vec::new();
    let serving = parts.map(|p| Serving::of(p, seed));
    let mut add = |statistic, sizes: &[usize], figure: &dyn Fn(&Serving) -> Vec<Option<f64>>| {
        let [h, f, s, i] = [0, 1, 2, 3].map(|p| figure(&serving[p]));
        for (at, size) in sizes.iter().enumerate() {
            if let (Some(held_out), Some(fitted), Some(synthetic), Some(independent)) = (h[at], f[at], s[at], i[at]) {
                rows.push(ComparedStatistic { statistic, size: Some(*size), held_out, fitted, synthetic, independent });
            }
        }
    };
    let all = |v: &[f64]| v.iter().map(|x| Some(*x)).collect::<Vec<_>>();
    add("activated experts, batch of random tokens", &BATCHES, &|s| all(&s.batch_activated));
    add("max/mean load, batch of random tokens", &BATCHES, &|s| all(&s.batch_imbalance));
    add("activated experts, consecutive tokens", &BATCHES, &|s| s.run_activated.clone());
    add("LRU hit rate, eighths of the experts", &EIGHTHS, &|s| all(&s.lru_hit_rate));
    add("overlap with an earlier token, tokens before", &LAGS, &|s| s.lag_overlap.clone());
    add("distinct devices per token, devices", &DEVICES, &|s| s.devices_per_token.clone());
    let tables = parts.map(structure);
    if let (Some(learnt), [Some(h), Some(f), Some(s), Some(i)]) = (structure(fitted), &tables) {
        let overlap = |p: &Part| learnt.next_layer_overlap(&p.all_rows().collect::<Vec<_>>());
        let [a, b, c, d] = parts.map(overlap);
        if let (Some(held_out), Some(fitted), Some(synthetic), Some(independent)) = (a, b, c, d) {
            let statistic = "next layer's experts foretold by this layer's";
            rows.push(ComparedStatistic { statistic, size: None, held_out, fitted, synthetic, independent });
        }
        let figures = [h, f, s, i].map(|t| t.figures());
        let mut add = |statistic, figure: &dyn Fn(&LayerFigures) -> Option<f64>| {
            let mean = |layers: &[LayerFigures]| {
                let there: Vec<f64> = layers.iter().filter_map(figure).collect();
                (!there.is_empty()).then(|| there.iter().sum::<f64>() / there.len() as f64)
            };
            let [a, b, c, d] = [0, 1, 2, 3].map(|p| mean(&figures[p]));
            if let (Some(held_out), Some(fitted), Some(synthetic), Some(independent)) = (a, b, c, d) {
                rows.push(ComparedStatistic { statistic, size: None, held_out, fitted, synthetic, independent });
            }
        };
        add("likeliest fifth of next layer's experts", &|l| l.next_layer_mass);
        add("likeliest fifth of next token's experts", &|l| l.next_token_mass);
        add("most frequent tenth of pairs", &|l| l.top_tenth_pairs_share);
        add("max/mean load, all tokens", &|l| Some(l.imbalance));
    }
    rows
}
