//! Fitting the whole model to a part of a trace.

use super::Router;
use super::learn::{Record, learn};
use super::prompts::ratios;
use super::router::{Layer, Mix};
use super::settle::{Rounds, SequenceShape, Target, settle};
use super::transfer::TABLES;
use crate::stats::{Part, groups};
use crate::trace::MISSING;
use moesim_core::Result;
use moesim_core::rng::{shuffle, stream};
use rand::Rng;
use rayon::prelude::*;

/// Work that a fit takes at most, in multiplications: longer traces are fitted to some of their sequences, picked at random.
const WORK: u64 = 60_000_000_000;
/// Selections drawn in a round of settling, at most, and rounds.
const DRAWN: usize = 1 << 24;
const ROUNDS: Rounds = Rounds { all: 24, mean: 0 };

impl Router {
    /// Fits a model of `part`'s routing; the same on any number of threads.
    ///
    /// # Errors
    /// Bad rows.
    pub fn fit(part: &Part, seed: u64) -> Result<Self> {
        part.check()?;
        let trace = part.trace();
        let (layers, k, experts, width) = (trace.layers(), trace.k(), trace.experts(), trace.width());
        let all: Vec<&[u16]> = part.all_rows().collect();
        let (of, topics) = groups::find(&all, (layers, k, experts), seed);
        let sequences: Vec<(usize, &[u16])> = of.iter().copied().zip(all.iter().copied()).collect();
        let paired = (layers * experts * experts) as u64 <= TABLES;
        // A random order, so that a prefix of it is a fair sample.
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        shuffle(&mut order, &mut stream(seed, "synth-order", 0));
        let row = (width * experts * if paired { 4 * k + 8 } else { 8 }) as u64;
        let mut left = (WORK / row.max(1)).max(1000);
        order.retain(|&s| {
            let rows = (sequences[s].1.len() / width) as u64;
            let take = left > 0 && rows > 0;
            left = left.saturating_sub(rows);
            take
        });
        let layer = |l: usize| {
            let table = |there: bool| if there { vec![1.0f32; experts * experts] } else { Vec::new() };
            let mut layer = Layer {
                topics: popularity(&sequences, topics, (l, k, experts, width)),
                mix: Mix::new([0.2, 0.4, 0.1, 0.15, 0.15]),
                alpha: 16.0,
                bias: vec![1.0; experts],
                prompt: Vec::new(),
                next: table(l > 0 && paired),
                pair: table(paired && k > 1),
            };
            learn(&mut layer, &Record { sequences: &sequences, width, k, layer: l }, &order);
            layer
        };
        let layers: Vec<Layer> = (0..layers).into_par_iter().map(layer).collect();
        let mut shares = vec![0.0; topics];
        of.iter().for_each(|t| shares[*t] += 1.0 / of.len() as f64);
        let invented = part.sequences().all(|s| s.prefill.is_empty()).then_some(crate::import::Phase::Prefill);
        let mut router = Self { layers, experts, k, shares, invented };
        let targets = Target::of(&all, (router.layers.len(), k, experts));
        let mut left = DRAWN;
        order.retain(|s| {
            let take = left > 0;
            left = left.saturating_sub(sequences[*s].1.len());
            take
        });
        let prompts: Vec<usize> = part.sequences().map(|s| s.prefill.len() / width).collect();
        let shape = |s: &usize| {
            let (topic, rows) = sequences[*s];
            (topic, (prompts[*s], rows.len() / width - prompts[*s]))
        };
        let shapes: Vec<SequenceShape> = order.iter().map(shape).collect();
        let recorded: Vec<(&[u16], usize)> = all.iter().copied().zip(prompts.iter().copied()).collect();
        let both = part.sequences().any(|s| !s.prefill.is_empty()) && part.sequences().any(|s| !s.decode.is_empty());
        let recorded = both.then(|| ratios(&recorded, (router.layers.len(), k, experts)));
        settle(&mut router, (&targets, recorded.as_deref()), &shapes, ROUNDS, seed);
        Ok(router)
    }

    /// The topic of a sequence. Topics are dealt evenly, by the multiples of the golden ratio, so that few sequences have
    /// their shares too.
    pub(super) fn topic(&self, seed: u64, sequence: u32) -> usize {
        let start = stream(seed, "synth-topic", 0).next_u64();
        let u = start.wrapping_add(u64::from(sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut left = (u >> 11) as f64 / (1u64 << 53) as f64;
        let at = self.shares.iter().position(|s| {
            left -= s;
            left < 0.0
        });
        at.unwrap_or(self.shares.len() - 1)
    }
}

/// Popularity of a layer's experts under each topic; half a selection is added to each expert, so that each can be drawn.
fn popularity(
    sequences: &[(usize, &[u16])],
    topics: usize,
    (layer, k, experts, width): (usize, usize, usize, usize),
) -> Vec<f32> {
    let mut counts = vec![0.5f64; topics * experts];
    for (topic, rows) in sequences {
        for row in rows.chunks_exact(width) {
            for &e in row[layer * k..(layer + 1) * k].iter().filter(|e| **e != MISSING) {
                counts[topic * experts + usize::from(e)] += 1.0;
            }
        }
    }
    let mut shares = Vec::with_capacity(counts.len());
    for topic in counts.chunks_exact(experts) {
        let sum: f64 = topic.iter().sum();
        shares.extend(topic.iter().map(|c| (c / sum) as f32));
    }
    shares
}
