//! A router of any shape, drawn from what a fitted trace's layers are like.

use super::learn::reach;
use super::router::{Layer, Mix};
use super::settle::{Rounds, SequenceShape, Target, settle};
use super::{Fit, Router, Subjects, SynthSpec};
use moesim_core::rng::{Stream, below, shuffle, stream};
use rand::Rng;

/// Selections drawn in a round of settling: so many, if that is enough for [`SEQUENCES`] sequences.
const DRAWN: usize = 1 << 19;
const ROUNDS: Rounds = Rounds { all: 16, mean: 10 };
/// Rows of a sequence that settles.
const ROWS: usize = 128;
/// Sequences of a round, at least, unless they have more than [`MOST`] selections: a sequence has experts of its own, and few
/// sequences tell of no others.
const SEQUENCES: usize = 32;
const MOST: usize = 1 << 22;
/// Entries of the tables of pairs; a router with more draws experts and layers independently of each other.
pub(super) const TABLES: u64 = 1 << 27;

impl Router {
    /// A router of this shape. Each layer takes after the fitted layer at the same relative depth: its popularity (exactly,
    /// where the shape is the fitted one; else the quantiles of its loads, dealt to experts at random), how far topics, the
    /// layer before and experts of the same token change it (log-normal factors of the fitted spread, for another k such
    /// that k of them together spread as far), and its overlaps between tokens (less what popularity alone gives). **For
    /// any shape but the fitted one all of this is an approximation.**
    pub fn drawn(fit: &Fit, spec: &SynthSpec, seed: u64) -> Self {
        let layers = spec.layer_numbers.len();
        let same = (fit.layer.len(), fit.experts, fit.k) == (layers, spec.experts, spec.k);
        let popularity = |l: usize| {
            let f = fit.layer_at(l, layers);
            if same {
                return f.counts.iter().map(|c| *c as f64 + 0.5).collect();
            }
            let mut loads = f.quantiles(spec.experts as usize);
            shuffle(&mut loads, &mut stream(seed, "synth-popularity", l as u64));
            loads
        };
        let loads: Vec<Vec<f64>> = (0..layers).map(popularity).collect();
        let targets = targets(fit, spec, &loads);
        let mut router = Self::raw(fit, spec, &targets, None, seed);
        let shapes = router.shapes(DRAWN);
        settle(&mut router, (&targets, None), &shapes, ROUNDS, seed);
        if spec.prompt_rows > 0 {
            router.invent_prompts(&targets, seed);
        }
        router.about(spec.subjects, seed);
        router
    }

    /// Leaves one topic, the first sequence's, if the sequences are to be of one subject.
    pub(super) fn about(&mut self, subjects: Subjects, seed: u64) {
        if subjects == Subjects::One {
            let one = self.topic(seed, 0);
            self.shares.iter_mut().enumerate().for_each(|(topic, s)| *s = f64::from(u8::from(topic == one)));
        }
    }

    /// A router of the shape of `spec` before it is settled; `pairs` are tables of what experts of one token say of
    /// each other, drawn if `None`.
    pub(super) fn raw(
        fit: &Fit,
        spec: &SynthSpec,
        targets: &[Target],
        pairs: Option<Vec<Vec<f32>>>,
        seed: u64,
    ) -> Self {
        let (layers, experts, k) = (spec.layer_numbers.len(), spec.experts as usize, spec.k as usize);
        let paired = layers as u64 * u64::from(spec.experts) * u64::from(spec.experts) <= TABLES;
        let topics = fit.topics as usize;
        let narrow = (f64::from(fit.k) / k as f64).sqrt() as f32;
        let mut pairs = pairs.map(Vec::into_iter);
        let mut layer = |l: usize| {
            let (f, p) = (fit.layer_at(l, layers), &targets[l].popularity);
            let mut r = stream(seed, "synth-layer", l as u64);
            let mut factor = |spread: f32| libm::expf((normal(&mut r) * spread).clamp(-reach(k), reach(k)));
            let mut table = |there: bool, spread: f32| -> Vec<f32> {
                (0..if there { experts * experts } else { 0 }).map(|_| factor(spread * narrow)).collect()
            };
            let next = table(paired && l > 0, f.next_spread);
            let mut pair = match pairs.as_mut().and_then(Iterator::next) {
                Some(given) => given,
                None => table(paired && k > 1, f.pair_spread),
            };
            // Who goes with whom does not depend on who was drawn first.
            for g in 0..if pair.is_empty() { 0 } else { experts } {
                (0..g).for_each(|e| pair[g * experts + e] = pair[e * experts + g]);
            }
            let topics = (0..topics).flat_map(|_| {
                let raw: Vec<f32> = p.iter().map(|p| *p as f32 * factor(f.topic_spread)).collect();
                let sum: f32 = raw.iter().sum();
                raw.into_iter().map(move |x| x / sum)
            });
            let topics: Vec<f32> = topics.collect();
            // What the factors multiply an expert's weight with on average is taken back.
            let mut bias = vec![1.0f32; experts];
            let before = if l > 0 { &targets[l - 1].popularity } else { p };
            for (table, rows, times) in [(&next, before, k as f64), (&pair, p, (k as f64 - 1.0) / 2.0)] {
                for (e, b) in bias.iter_mut().enumerate().filter(|_| !table.is_empty()) {
                    let mean: f64 = rows.iter().enumerate().map(|(f, p)| p * f64::from(table[f * experts + e])).sum();
                    *b = (*b * libm::pow(mean, -times) as f32).clamp(1e-4, 1e4);
                }
            }
            Layer { topics, mix: Mix::new(f.mix), alpha: f.alpha, bias, prompt: Vec::new(), next, pair }
        };
        let layers: Vec<Layer> = (0..layers).map(&mut layer).collect();
        Self {
            layers,
            experts,
            k,
            shares: vec![1.0 / topics as f64; topics],
            invented: Some(crate::import::Phase::Prefill),
        }
    }

    /// Outputs of so many selections in all, for settling.
    pub(super) fn shapes(&self, selections: usize) -> Vec<SequenceShape> {
        let each = self.layers.len() * self.k * ROWS;
        let sequences = (selections / each).max(SEQUENCES.min(MOST / each)).clamp(4, 4096);
        (0..sequences).map(|i| (i % self.shares.len(), (0, ROWS))).collect()
    }
}

/// Layers of these loads, with the overlaps of the fitted layers, less what popularity alone gives.
pub(super) fn targets(fit: &Fit, spec: &SynthSpec, loads: &[Vec<f64>]) -> Vec<Target> {
    let target = |(l, loads): (usize, &Vec<f64>)| {
        let sum: f64 = loads.iter().sum();
        let popularity: Vec<f64> = loads.iter().map(|l| l / sum).collect();
        let overlap = fit.overlap_at((l, spec.layer_numbers.len()), &popularity, spec.k);
        Target { popularity, overlap }
    };
    loads.iter().enumerate().map(target).collect()
}

/// A draw from very nearly a normal distribution: twelve uniform ones, less their mean (variance 12/12).
pub(super) fn normal(r: &mut Stream) -> f32 {
    (0..12).map(|_| below(r.next_u64(), 1 << 24) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
}
