//! Settling a model: what was fitted to recorded histories is run on its own, and the shares of its memories and the
//! biases of its experts are moved until its own sequences remember as they should and select each expert as often.
//!
//! Without it the model remembers too well: a slip into some experts is reinforced by the urn, the layer before and the
//! experts of the same token at once. This is the simulated method of moments (McFadden 1989); the moments are, per
//! layer, each expert's popularity and the overlap of tokens [`LAGS`] apart.

use super::Router;
use super::prompts::ratios;
use super::router::{Layer, Mix};
use crate::trace::MISSING;
use rayon::prelude::*;

/// Distances of the tokens compared: what the last token, the short and the long memory explain.
pub(super) const LAGS: [usize; 3] = [1, 4, 32];

/// What a layer's sequences should be like.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Share of the selections of each expert.
    pub(super) popularity: Vec<f64>,
    /// Share of a token's experts that the token [`LAGS`] before had too.
    pub(super) overlap: [f64; 3],
}

impl Target {
    /// What recorded sequences (rows of all layers) are like, layer by layer.
    pub(super) fn of(sequences: &[&[u16]], (layers, k, experts): (usize, usize, usize)) -> Vec<Self> {
        (0..layers).into_par_iter().map(|l| Self::layer(sequences, l, (layers * k, k, experts))).collect()
    }
    fn layer(sequences: &[&[u16]], layer: usize, (width, k, experts): (usize, usize, usize)) -> Self {
        let (mut counts, mut lags) = (vec![0u64; experts], [(0u64, 0u64); 3]);
        let present = |ids: &[u16]| ids.iter().filter(|e| **e != MISSING).count() as u64;
        for rows in sequences {
            let ids = |t: usize| &rows[t * width + layer * k..t * width + (layer + 1) * k];
            for t in 0..rows.len() / width {
                let now = ids(t);
                now.iter().filter(|e| **e != MISSING).for_each(|e| counts[usize::from(*e)] += 1);
                for (lag, (same, all)) in LAGS.iter().zip(&mut lags).filter(|(lag, _)| t >= **lag) {
                    let before = ids(t - lag);
                    *all += present(now);
                    *same += now.iter().filter(|e| **e != MISSING && before.contains(e)).count() as u64;
                }
            }
        }
        // Half a selection more: every expert can be drawn.
        let total = counts.iter().sum::<u64>() as f64 + 0.5 * experts as f64;
        let popularity: Vec<f64> = counts.iter().map(|c| (*c as f64 + 0.5) / total).collect();
        let floor = floor(&popularity, k);
        // Sequences that are too short tell nothing of that distance; the nearer one stands in, or chance.
        let mut last = floor;
        let overlap = lags.map(|(same, all)| {
            last = if all > 0 { same as f64 / all as f64 } else { last };
            last
        });
        Self { popularity, overlap }
    }
    /// What the last token, the short memory, and the long memory and the topic add to the overlap.
    fn parts(&self, k: usize) -> [f64; 3] {
        let o = self.overlap;
        [o[0] - o[1], o[1] - o[2], o[2] - floor(&self.popularity, k)]
    }
}

/// Overlap of tokens that have nothing to do with each other: sum of p^2 over k, p = k x share.
pub(super) fn floor(popularity: &[f64], k: usize) -> f64 {
    k as f64 * popularity.iter().map(|p| p * p).sum::<f64>()
}

/// A sequence to settle with: its topic, prompt rows and output rows.
pub(super) type SequenceShape = (usize, (usize, usize));

/// Rounds of settling, and how many of them, the last, the router becomes the [`Mean`] of; 0: it stays as the last left it.
#[derive(Clone, Copy)]
pub(super) struct Rounds {
    pub(super) all: usize,
    pub(super) mean: usize,
}

/// Settles `router` on `targets` and, where prompts were recorded, on their popularity over the output's, with sequences
/// of the given shapes.
pub(super) fn settle(
    router: &mut Router,
    (targets, prompts): (&[Target], Option<&[Vec<f64>]>),
    shapes: &[SequenceShape],
    rounds: Rounds,
    seed: u64,
) {
    let mut mean = Mean::default();
    let shape = (router.layers.len(), router.k, router.experts);
    for round in 0..rounds.all {
        let drawn = router.draw(shapes, other(seed, round));
        let got = Target::of(&drawn.iter().map(Vec::as_slice).collect::<Vec<_>>(), shape);
        if let Some(want) = prompts {
            let split: Vec<(&[u16], usize)> =
                drawn.iter().map(Vec::as_slice).zip(shapes.iter().map(|s| s.1.0)).collect();
            router.step_prompts(want, &ratios(&split, shape), gain(round));
        }
        for ((layer, want), got) in router.layers.iter_mut().zip(targets).zip(&got) {
            step(layer, want, got, shape.1, gain(round));
        }
        if round + rounds.mean >= rounds.all {
            mean.add(router);
        }
    }
    mean.put(router);
}

/// The mean of a router's biases (of their logarithms) and shares over rounds. A round of few sequences, each with experts of
/// its own, moves popular experts far from where they belong, and memory makes the most of it; their mean is as good as
/// all the rounds' sequences together allow (Polyak and Juditsky 1992, "Acceleration of stochastic approximation by
/// averaging").
#[derive(Default)]
pub(super) struct Mean {
    rounds: f64,
    /// By layer: sums of each expert's log-bias and of the shares.
    sums: Vec<(Vec<f64>, [f64; 5])>,
}

impl Mean {
    pub(super) fn add(&mut self, router: &Router) {
        self.rounds += 1.0;
        self.sums.resize_with(router.layers.len(), || (vec![0.0; router.experts], [0.0; 5]));
        for ((logs, mix), layer) in self.sums.iter_mut().zip(&router.layers) {
            logs.iter_mut().zip(&layer.bias).for_each(|(s, b)| *s += libm::log(f64::from(*b)));
            mix.iter_mut().zip(layer.mix.weights()).for_each(|(s, m)| *s += f64::from(m));
        }
    }
    /// Gives `router` the mean, if there is one.
    pub(super) fn put(self, router: &mut Router) {
        for ((logs, mix), layer) in self.sums.iter().zip(&mut router.layers) {
            layer.bias.iter_mut().zip(logs).for_each(|(b, s)| *b = libm::exp(s / self.rounds) as f32);
            layer.mix = Mix::new(mix.map(|m| (m / self.rounds) as f32));
        }
    }
}

impl Router {
    /// Sequences of these shapes, in the order of drawing.
    pub(super) fn draw(&self, shapes: &[SequenceShape], seed: u64) -> Vec<Vec<u16>> {
        shapes.par_iter().enumerate().map(|(i, s)| self.walk(s.0, seed, i as u64, s.1)).collect()
    }
}

/// The seed of a round: the same sequences in each would be fitted with their accidents.
pub(super) fn other(seed: u64, round: usize) -> u64 {
    seed ^ (round as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// How far a round goes: half of the way at first, then less and less, so that accidents average out (Robbins and Monro
/// 1951).
pub(super) fn gain(round: usize) -> f64 {
    (2.0 / (round as f64 + 1.0)).min(0.5)
}

/// A step towards the target.
pub(super) fn step(layer: &mut Layer, want: &Target, got: &Target, k: usize, gain: f64) {
    let (w, g) = (want.parts(k), got.parts(k));
    let scale = [0, 1, 2].map(|i| part(w[i].max(1e-4) / g[i].max(1e-4), gain));
    let m = layer.mix;
    let parts = [m.urn * scale[2], m.last * scale[0], m.short * scale[1], m.long * scale[2]];
    let all: f32 = parts.iter().sum();
    let [urn, last, short, long] = parts.map(|x| if all > 0.98 { x * 0.98 / all } else { x });
    layer.mix = Mix::new([1.0 - urn - last - short - long, urn, last, short, long]);
    for ((b, w), g) in layer.bias.iter_mut().zip(&want.popularity).zip(&got.popularity) {
        *b = (*b * part(w / g, gain)).clamp(1e-4, 1e4);
    }
}

/// Part of a step on a logarithmic scale, at most a factor of 2.
pub(super) fn part(ratio: f64, gain: f64) -> f32 {
    libm::pow(ratio, gain).clamp(0.5, 2.0) as f32
}
