//! Does the prompt foretell the output? Ranks of experts in prompt and output rows, compared.

use super::{Part, SEQUENCES};
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
        let (k, experts, width) = (trace.k(), trace.experts(), trace.width());
        let mut figures = vec![Layer::new(experts); trace.layers()];
        // Few sequences at a time: every layer reads them while they are in the cache.
        for some in pairs.chunks(SEQUENCES) {
            figures.par_iter_mut().enumerate().for_each_init(
                || [Ranking::default(), Ranking::default()],
                |rankings, (l, layer)| {
                    let add = |rows: &[u16], to: &mut [u32]| {
                        for row in rows.chunks_exact(width) {
                            row[l * k..(l + 1) * k]
                                .iter()
                                .filter(|e| **e != MISSING)
                                .for_each(|e| to[usize::from(*e)] += 1);
                        }
                    };
                    for (prompt, output) in some {
                        for ((rows, sums), ranking) in
                            [prompt, output].into_iter().zip(&mut layer.counts).zip(&mut *rankings)
                        {
                            ranking.counts.clear();
                            ranking.counts.resize(experts, 0);
                            add(rows, &mut ranking.counts);
                            ranking.rank();
                            sums.iter_mut().zip(&ranking.counts).for_each(|(s, x)| *s += x);
                        }
                        let [a, b] = &*rankings;
                        layer.correlation += a.correlation(b);
                        layer.overlap.iter_mut().zip(TOP).for_each(|(o, n)| *o += a.top(b, n));
                    }
                },
            );
        }
        let layers = figures.len();
        let figures: Vec<_> = figures
            .iter()
            .map(|layer| {
                let [a, b] = [0, 1].map(|i| Ranking::of(&layer.counts[i]));
                (a.correlation(&b), TOP.map(|n| a.top(&b, n)), layer.correlation, layer.overlap)
            })
            .collect();
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

/// What is known of a layer so far.
#[derive(Clone)]
struct Layer {
    /// Of the whole trace.
    counts: [Vec<u32>; 2],
    /// Sums over sequences.
    correlation: f64,
    overlap: [f64; 3],
}

impl Layer {
    fn new(experts: usize) -> Self {
        Self { counts: [vec![0; experts], vec![0; experts]], correlation: 0.0, overlap: [0.0; 3] }
    }
}

/// Spearman's rank correlation: Pearson's of the ranks, ties sharing their mean rank; 0 if either has no spread.
pub(crate) fn spearman(a: &[u32], b: &[u32]) -> f64 {
    Ranking::of(a).correlation(&Ranking::of(b))
}

/// Shares of the 5, 10 and 20 largest of `a` that are among as many of `b`.
pub(crate) fn tops(a: &[u32], b: &[u32]) -> [f64; 3] {
    let (a, b) = (Ranking::of(a), Ranking::of(b));
    TOP.map(|n| a.top(&b, n))
}

/// Counts in order.
#[derive(Default)]
struct Ranking {
    counts: Vec<u32>,
    /// Numbers by falling count; among equals, lower numbers first.
    order: Vec<u32>,
    /// Where each is in the order.
    place: Vec<u32>,
    /// Twice how far the rank of each is from the mean rank, and the sum of its squares.
    rank: Vec<i64>,
    squares: i64,
    /// For sorting: where each count begins in the order.
    starts: Vec<u32>,
}

impl Ranking {
    fn of(counts: &[u32]) -> Self {
        let mut ranking = Self { counts: counts.to_vec(), ..Self::default() };
        ranking.rank();
        ranking
    }

    fn rank(&mut self) {
        let (n, most) = (self.counts.len(), self.counts.iter().copied().max().unwrap_or(0) as usize);
        self.order.clear();
        if most <= 4 * n {
            // By counting.
            self.starts.clear();
            self.starts.resize(most + 2, 0);
            self.counts.iter().for_each(|c| self.starts[most - *c as usize + 1] += 1);
            (0..most).for_each(|i| self.starts[i + 1] += self.starts[i]);
            self.order.resize(n, 0);
            for (i, c) in self.counts.iter().enumerate() {
                let at = &mut self.starts[most - *c as usize];
                self.order[*at as usize] = i as u32;
                *at += 1;
            }
        } else {
            self.order.extend(0..n as u32);
            self.order.sort_by_key(|i| std::cmp::Reverse(self.counts[*i as usize]));
        }
        self.place.resize(n, 0);
        self.rank.resize(n, 0);
        self.squares = 0;
        let mut at = 0;
        for equals in self.order.chunk_by(|i, j| self.counts[*i as usize] == self.counts[*j as usize]) {
            let end = at + equals.len();
            let rank = n as i64 - (at + end) as i64;
            for (i, place) in equals.iter().zip(at..) {
                self.rank[*i as usize] = rank;
                self.place[*i as usize] = place as u32;
            }
            self.squares += rank * rank * equals.len() as i64;
            at = end;
        }
    }

    fn correlation(&self, other: &Self) -> f64 {
        let spread = (self.squares as f64 * other.squares as f64).sqrt();
        let dot: i64 = self.rank.iter().zip(&other.rank).map(|(x, y)| x * y).sum();
        if spread > 0.0 { dot as f64 / spread } else { 0.0 }
    }

    /// Share of the `n` first that are among the `n` first of `other`; what never occurs is first in neither.
    fn top(&self, other: &Self, n: usize) -> f64 {
        let mine = self.order.iter().take(n).filter(|i| self.counts[**i as usize] > 0);
        let both = |i: &&u32| other.counts[**i as usize] > 0 && (other.place[**i as usize] as usize) < n;
        mine.clone().filter(both).count() as f64 / mine.count().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Ranks by definition: smaller ones, and half of the equal others. Large counts are sorted in another way.
        #[test]
        fn ranks_are_mean_ranks(counts in prop::collection::vec(prop_oneof![0u32..5, 0u32..1000], 1..60)) {
            let r = Ranking::of(&counts);
            for (i, c) in counts.iter().enumerate() {
                let twice: i64 = counts.iter().map(|x| 1 + (x < c) as i64 - (x > c) as i64).sum::<i64>() - 1;
                prop_assert_eq!(r.rank[i], twice - counts.len() as i64 + 1);
                let before = counts.iter().enumerate().filter(|(j, x)| *x > c || (*x == c && *j < i)).count();
                prop_assert_eq!((r.place[i] as usize, r.order[before] as usize), (before, i));
            }
            prop_assert_eq!(r.squares, r.rank.iter().map(|x| x * x).sum::<i64>());
        }
    }
}
