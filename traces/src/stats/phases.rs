//! Does the prompt foretell the output? Ranks of experts in prompt and output rows, compared.

use super::Part;
use crate::trace::MISSING;
use rayon::prelude::*;
use serde::Serialize;

/// How many of the most popular experts are compared.
pub const TOP: [usize; 3] = [5, 10, 20];

/// How far popularity in the prompt ranks experts as popularity in the output does.
#[derive(Clone, Debug, Serialize)]
pub struct Phases {
    /// Spearman's rank correlation of the experts' counts over the whole trace, by layer.
    pub rank_correlation: Vec<f64>,
    /// Share of the 5, 10, 20 most selected experts of the prompt that are among as many of the output, mean over layers.
    pub top_overlap: [f64; 3],
    /// The correlation within single sequences, mean over sequences and layers.
    pub sequence_rank_correlation: f64,
    /// The overlap within single sequences, mean over sequences and layers.
    pub sequence_top_overlap: [f64; 3],
}

impl Phases {
    /// Compares prompt and output rows of a checked part; `None` where no sequence has both.
    pub fn of(part: &Part) -> Option<Self> {
        let pairs: Vec<(&[u16], &[u16])> = part
            .sequences()
            .filter(|s| !s.prefill.is_empty() && !s.decode.is_empty())
            .map(|s| (s.prefill, s.decode))
            .collect();
        Self::compare(part, &pairs)
    }
    /// Compares the first with the second half of the output rows: what can be said without prompt rows.
    pub fn of_halves(part: &Part) -> Option<Self> {
        let width = part.trace().width();
        let halves: Vec<(&[u16], &[u16])> = part
            .sequences()
            .filter(|s| s.decode.len() >= 2 * width)
            .map(|s| s.decode.split_at(s.decode.len() / width / 2 * width))
            .collect();
        Self::compare(part, &halves)
    }

    fn compare(part: &Part, pairs: &[(&[u16], &[u16])]) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let trace = part.trace();
        let (layers, k, experts, width) = (trace.layers(), trace.k(), trace.experts(), trace.width());
        let layer = |l: usize| {
            let add = |rows: &[u16], to: &mut [u32]| {
                for row in rows.chunks_exact(width) {
                    for e in row[l * k..(l + 1) * k].iter().filter(|e| **e != MISSING) {
                        to[usize::from(*e)] += 1;
                    }
                }
            };
            let (mut a, mut b) = (vec![0u32; experts], vec![0u32; experts]);
            let (mut all_a, mut all_b) = (vec![0u32; experts], vec![0u32; experts]);
            let (mut correlation, mut overlap) = (0.0, [0.0; 3]);
            for (prompt, output) in pairs {
                a.fill(0);
                b.fill(0);
                add(prompt, &mut a);
                add(output, &mut b);
                correlation += spearman(&a, &b);
                overlap.iter_mut().zip(TOP).for_each(|(o, n)| *o += top(&a, &b, n));
                all_a.iter_mut().zip(&a).for_each(|(s, x)| *s += x);
                all_b.iter_mut().zip(&b).for_each(|(s, x)| *s += x);
            }
            (spearman(&all_a, &all_b), TOP.map(|n| top(&all_a, &all_b, n)), correlation, overlap)
        };
        let figures: Vec<_> = (0..layers).into_par_iter().map(layer).collect();
        let mean = |f: &dyn Fn(usize) -> f64| (0..layers).map(f).sum::<f64>() / layers as f64;
        let n = pairs.len() as f64;
        Some(Self {
            rank_correlation: figures.iter().map(|f| f.0).collect(),
            top_overlap: [0, 1, 2].map(|i| mean(&|l| figures[l].1[i])),
            sequence_rank_correlation: mean(&|l| figures[l].2 / n),
            sequence_top_overlap: [0, 1, 2].map(|i| mean(&|l| figures[l].3[i] / n)),
        })
    }
}

/// Spearman's rank correlation: Pearson's of the ranks, ties sharing their mean rank; 0 if either has no spread.
pub(crate) fn spearman(a: &[u32], b: &[u32]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let spread = (dot(&a, &a) * dot(&b, &b)).sqrt();
    if spread > 0.0 { dot(&a, &b) / spread } else { 0.0 }
}

fn ranks(values: &[u32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|i| values[*i]);
    let mut ranks = vec![0.0; values.len()];
    let mut at = 0;
    while at < order.len() {
        let end = (at..order.len()).find(|i| values[order[*i]] != values[order[at]]).unwrap_or(order.len());
        order[at..end].iter().for_each(|i| ranks[*i] = (at + end - 1) as f64 / 2.0);
        at = end;
    }
    ranks
}

/// Share of the `n` largest of `a` that are among the `n` largest of `b`; among equals, lower numbers first.
pub(crate) fn top(a: &[u32], b: &[u32], n: usize) -> f64 {
    let n = n.min(a.len());
    let largest = |v: &[u32]| {
        let mut order: Vec<usize> = (0..v.len()).collect();
        order.sort_by_key(|i| (std::cmp::Reverse(v[*i]), *i));
        order.truncate(n);
        order
    };
    let b = largest(b);
    largest(a).iter().filter(|e| b.contains(e)).count() as f64 / n as f64
}
