//! How prompts differ from outputs: a factor an expert, by layer.
//!
//! Where a trace has prompt rows, the factors are settled until prompts select each expert as much more or less often than
//! outputs do as recorded. Where it has none, they are log-normal, of the spread at which the most popular experts of
//! prompts and outputs have in common what was published for other models ([`PUBLISHED`]); prompts are then drawn after
//! the output, through the memory of it, so that the output is what was fitted, whatever the prompt. Where prompts were
//! counted, it is the output that has the factors.

use super::Router;
use super::settle::{Target, part};
use super::transfer::normal;
use crate::stats::tops;
use crate::trace::MISSING;
use moesim_core::rng::stream;
use rayon::prelude::*;

/// Share of the 5, 10 and 20 most selected experts of the prompts that are among as many of the outputs: four models, more
/// than 24,000 requests each, about ("Patterns behind Chaos", arXiv:2510.05497v4, III, insight 1).
pub const PUBLISHED: [f64; 3] = [0.60, 0.75, 0.90];
/// The largest spread: about what 32 experts take, the fewest for which the published numbers of experts say something.
const MOST: f32 = 0.5;
/// Halvings of the interval in which the spread lies.
const HALVINGS: usize = 24;

/// By layer: share of each expert in the prompt rows over that in the output rows. A sequence is its rows and how many of
/// them, the first, are the prompt's.
pub(super) fn ratios(sequences: &[(&[u16], usize)], (layers, k, experts): (usize, usize, usize)) -> Vec<Vec<f64>> {
    let width = layers * k;
    let layer = |l: usize| {
        // Half a selection more: every expert can be drawn.
        let mut counts = [vec![0.5f64; experts], vec![0.5f64; experts]];
        for (rows, prompt) in sequences {
            for (t, row) in rows.chunks_exact(width).enumerate() {
                let counts = &mut counts[usize::from(t >= *prompt)];
                row[l * k..(l + 1) * k].iter().filter(|e| **e != MISSING).for_each(|e| counts[usize::from(*e)] += 1.0);
            }
        }
        let [prompt, output] = counts.map(|c| {
            let sum: f64 = c.iter().sum();
            c.into_iter().map(move |c| c / sum)
        });
        prompt.zip(output).map(|(p, o)| p / o).collect()
    };
    (0..layers).into_par_iter().map(layer).collect()
}

impl Router {
    /// A step of the factors towards recorded ratios.
    pub(super) fn step_prompts(&mut self, want: &[Vec<f64>], got: &[Vec<f64>], gain: f64) {
        for ((layer, want), got) in self.layers.iter_mut().zip(want).zip(got) {
            layer.prompt.resize(want.len(), 1.0);
            for ((f, w), g) in layer.prompt.iter_mut().zip(want).zip(got) {
                *f = (*f * part(w / g, gain)).clamp(1e-4, 1e4);
            }
        }
    }

    /// Draws the factors where no prompts were recorded.
    pub(super) fn invent_prompts(&mut self, targets: &[Target], seed: u64) {
        let layer = |(l, target): (usize, &Target)| {
            let mut r = stream(seed, "synth-prompt", l as u64);
            let p = target.popularity.clone();
            let z = p.iter().map(|_| normal(&mut r)).collect();
            (p, z)
        };
        let layers: Vec<(Vec<f64>, Vec<f32>)> = targets.iter().enumerate().map(layer).collect();
        let factors = |spread: f32, z: &[f32]| z.iter().map(|z| libm::expf(spread * z)).collect::<Vec<f32>>();
        // Ranks are of whole numbers.
        let whole = |p: Vec<f64>| {
            let most = p.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            p.into_iter().map(|p| (p / most * f64::from(1 << 30)) as u32).collect::<Vec<u32>>()
        };
        let shared = |spread: f32| {
            let of = |(p, z): &(Vec<f64>, Vec<f32>)| {
                let tilted = p.iter().zip(factors(spread, z)).map(|(p, f)| p * f64::from(f));
                let (prompt, output) = (whole(tilted.collect()), whole(p.clone()));
                tops(&prompt, &output).iter().sum::<f64>()
            };
            layers.iter().map(of).sum::<f64>() / layers.len() as f64
        };
        // Of few experts, 10 or 20 are all there are, whatever the spread: the figures say nothing of them.
        let (mut low, mut high) = (0.0f32, MOST);
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            if shared(middle) > PUBLISHED.iter().sum() { low = middle } else { high = middle }
        }
        let all: Vec<Vec<f32>> = layers.iter().map(|(_, z)| factors(low, z)).collect();
        self.layers.iter_mut().zip(all).for_each(|(layer, f)| layer.prompt = f);
    }
}
