//! Independent draws: every token and layer on its own, each expert exactly as popular as in a recorded trace. What is found in a
//! trace and not in these is structure.
//!
//! A token's k experts come from systematic sampling (Madow 1949), which gives each expert exactly its inclusion
//! probability, over an order shuffled every [`ORDER`] tokens, so that no pair is favoured.

use super::{Part, cells};
use crate::trace::{OwnedSequence, Trace};
use moesim_core::Result;
use moesim_core::rng::{Stream, below, shuffle, stream};
use rand::Rng;
use rayon::prelude::*;

/// A probability of 1 in fixed point.
const ONE: u64 = 1 << 32;
/// Tokens drawn over one order.
const ORDER: usize = 64;

/// Independent draws of as many rows as the sequences of `part` have, of `limit` selections at most: then of some of
/// the sequences, picked at random. Their places in `part` come with them.
pub(crate) fn independent(part: &Part, limit: u64, seed: u64) -> Result<(Trace, Vec<usize>)> {
    part.check()?;
    let trace = part.trace();
    let shape = (trace.layers(), trace.k(), trace.experts());
    let mut counts = vec![0u64; shape.0 * shape.2];
    part.all_rows().for_each(|rows| cells(rows, shape, |cell| counts[cell] += 1));
    let popularity: Vec<Vec<u64>> = counts.chunks_exact(shape.2).map(<[u64]>::to_vec).collect();
    of(part, &popularity, limit, seed)
}

/// The same with the popularity given: how often each expert of each layer was selected.
pub(crate) fn of(part: &Part, popularity: &[Vec<u64>], limit: u64, seed: u64) -> Result<(Trace, Vec<usize>)> {
    let trace = part.trace();
    let (k, experts, width) = (trace.k(), trace.experts(), trace.width());
    let popularity: Vec<Vec<u64>> = popularity.iter().map(|c| inclusion(c, k)).collect();
    let shapes: Vec<(usize, usize)> =
        part.sequences().map(|s| (s.prefill.len() / width, s.decode.len() / width)).collect();
    let mut kept: Vec<usize> = (0..shapes.len()).collect();
    shuffle(&mut kept, &mut stream(seed, "independent-order", 0));
    let mut left = limit;
    kept.retain(|i| {
        let take = left > 0;
        left = left.saturating_sub(((shapes[*i].0 + shapes[*i].1) * width) as u64);
        take
    });
    kept.sort_unstable();
    let sequence = |(id, i): (usize, &usize)| {
        let (prompt, output) = shapes[*i];
        let mut ids = vec![0; (prompt + output) * width];
        let mut r = stream(seed, "independent", id as u64);
        for (l, inclusion) in popularity.iter().enumerate() {
            let mut draws = Draws { inclusion, order: (0..experts as u16).collect(), sums: vec![0; experts] };
            for (t, row) in ids.chunks_exact_mut(width).enumerate() {
                if t % ORDER == 0 {
                    draws.reorder(&mut r);
                }
                draws.next(&mut row[l * k..(l + 1) * k], &mut r);
            }
        }
        let decode = ids.split_off(prompt * width);
        OwnedSequence {
            id: id as u32,
            prefill: ids,
            decode,
            decode_first_position: prompt as u32,
            ..Default::default()
        }
    };
    let sequences: Vec<OwnedSequence> = kept.par_iter().enumerate().map(sequence).collect();
    Ok((Trace::from_sequences(trace.meta().clone(), sequences)?, kept))
}

/// One layer.
struct Draws<'a> {
    inclusion: &'a [u64],
    /// Experts, and the sums of their inclusion probabilities so far.
    order: Vec<u16>,
    sums: Vec<u64>,
}

impl Draws<'_> {
    fn reorder(&mut self, r: &mut Stream) {
        shuffle(&mut self.order, r);
        let mut sum = 0;
        for (s, e) in self.sums.iter_mut().zip(&self.order) {
            sum += self.inclusion[usize::from(*e)];
            *s = sum;
        }
    }
    /// k points one apart: an expert of probability p <= 1 covers at most one of them, with probability p.
    fn next(&self, out: &mut [u16], r: &mut Stream) {
        let start = below(r.next_u64(), ONE);
        for (j, e) in out.iter_mut().enumerate() {
            let point = start + j as u64 * ONE;
            *e = self.order[self.sums.partition_point(|s| *s <= point).min(self.order.len() - 1)];
        }
        shuffle(out, r);
    }
}

/// Inclusion probabilities proportional to `counts` that sum to `k`, in fixed point; what would exceed 1 is 1 and the
/// rest is scaled up. Where too few experts were ever selected, the others share what is left.
fn inclusion(counts: &[u64], k: usize) -> Vec<u64> {
    let loads: Vec<f64> = counts.iter().map(|c| *c as f64 + 1e-9).collect();
    let mut certain = vec![false; loads.len()];
    let share = loop {
        let left = k - certain.iter().filter(|c| **c).count();
        let sum: f64 = loads.iter().zip(&certain).filter(|(_, c)| !**c).map(|(l, _)| l).sum();
        let scale = left as f64 / sum.max(1e-300);
        let mut changed = false;
        for (l, c) in loads.iter().zip(&mut certain).filter(|(_, c)| !**c) {
            *c = l * scale >= 1.0;
            changed |= *c;
        }
        if !changed || certain.iter().filter(|c| **c).count() >= k {
            break scale;
        }
    };
    let exact = loads.iter().zip(&certain).map(|(l, c)| if *c { 1.0 } else { (l * share).min(1.0) });
    let mut fixed: Vec<u64> = exact.map(|p| ((p * ONE as f64) as u64).min(ONE)).collect();
    // Rounded so that the sum is k exactly.
    let target = k as u64 * ONE;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Meta;

    #[test]
    fn probabilities_sum_to_k() {
        for counts in [vec![0, 0, 0, 5], vec![1, 1, 1, 1], vec![0; 4], vec![1000, 1, 1, 1], vec![1000, 1000, 1000, 1]] {
            for k in 1..=4 {
                let p = inclusion(&counts, k);
                assert_eq!(p.iter().sum::<u64>(), k as u64 * ONE, "{counts:?} {k}");
                assert!(p.iter().all(|p| *p <= ONE));
            }
        }
    }

    /// Experts as popular as recorded, within five standard errors, and successive tokens alike only by chance.
    #[test]
    fn popularity_stays_and_order_goes() {
        let layer_numbers = vec![0];
        let meta = Meta { model: "m".into(), layer_numbers, experts: 8, k: 2, source: "s".into(), licence: "l".into() };
        // Every sequence always selects the same pair.
        let pairs = [[0, 1], [0, 2], [0, 3], [4, 5]];
        let sequence =
            |id: u32| OwnedSequence { id, decode: pairs[id as usize % 4].repeat(1000), ..Default::default() };
        let trace = Trace::from_sequences(meta, (0..4).map(sequence).collect()).unwrap();
        let (twin, kept) = independent(&Part::whole(&trace), u64::MAX, 1).unwrap();
        assert_eq!((twin.rows(), kept), (4000, vec![0, 1, 2, 3]));
        let s = crate::stats::Statistics::of(&twin).unwrap();
        for (e, expected) in [3000.0, 1000.0, 1000.0, 1000.0, 1000.0, 1000.0, 0.0, 0.0].into_iter().enumerate() {
            assert!(
                (s.counts[e] as f64 - expected).abs() < 5.0 * (expected * 0.75 + 1.0f64).sqrt(),
                "{e} {}",
                s.counts[e]
            );
        }
        // Sum of p^2 over k: (0.75^2 + 5 x 0.25^2) / 2.
        assert!((s.next_token_overlap().unwrap() - 0.4375).abs() < 0.03, "{:?}", s.next_token_overlap());
        let some = independent(&Part::whole(&trace), 1, 1).unwrap();
        assert_eq!((some.0.sequences(), some.1.len()), (1, 1));
    }
}
