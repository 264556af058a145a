//! How selections hang together: with the next layer's, with the next token's, with each other.

use crate::trace::MISSING;
use rayon::prelude::*;
use serde::Serialize;

/// Entries of one kind of table over all layers (layers x experts x experts); larger ones are not kept.
const TABLES: usize = 1 << 26;

/// Exact counts of pairs, layer by layer. A cell counts a row at most once, so that 2^32 - 1 rows fit.
pub struct Structure {
    k: usize,
    experts: usize,
    layers: Vec<Layer>,
}

/// Tables of `experts x experts`, row by row.
#[derive(Clone)]
struct Layer {
    counts: Vec<u32>,
    /// Row: selected here; column: selected by the same token in the next MoE layer.
    next_layer: Vec<u32>,
    /// Row: selected here; column: selected by the next token here.
    next_token: Vec<u32>,
    /// Row below column: selected by one token.
    pairs: Vec<u32>,
    /// Selections whose expert the token before selected too, and those that had a token before.
    repeats: (u64, u64),
}

/// Figures of one layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerFigures {
    /// Most selected expert over the mean.
    pub imbalance: f64,
    /// Share of the selections that the most popular fifth of the experts takes.
    pub top_fifth_share: f64,
    /// Of the selections that follow an expert in the next MoE layer, the share of that expert's most likely fifth of
    /// successors, averaged over selections. `None` in the last layer.
    pub next_layer_mass: Option<f64>,
    /// The same for the next token in this layer.
    pub next_token_mass: Option<f64>,
    /// Share of a token's experts that the token before had too.
    pub next_token_overlap: Option<f64>,
    /// The most frequent pair of experts of one token over the mean of all pairs. `None` with one expert a token.
    pub hottest_pair: Option<f64>,
    /// Largest frequency of a pair over that of independent experts, among pairs expected at least 20 times.
    pub highest_lift: Option<f64>,
    /// Share of all co-activations that the most frequent tenth of the pairs makes.
    pub top_tenth_pairs_share: Option<f64>,
}

impl Structure {
    /// No counts yet; `None` if the tables would be too large.
    pub fn new(layers: usize, experts: usize, k: usize) -> Option<Self> {
        if layers.checked_mul(experts)?.checked_mul(experts)? > TABLES {
            return None;
        }
        let table = || vec![0; experts * experts];
        let layer = Layer {
            counts: vec![0; experts],
            next_layer: table(),
            next_token: table(),
            pairs: table(),
            repeats: (0, 0),
        };
        Some(Self { k, experts, layers: vec![layer; layers] })
    }

    /// Counts runs of consecutive rows of one sequence each. Best called with some megabytes at a time: each layer reads
    /// them once.
    pub fn count(&mut self, runs: &[&[u16]]) {
        let (k, experts, width) = (self.k, self.experts, self.layers.len() * self.k);
        let last = self.layers.len() - 1;
        let present = |ids: &'_ [u16], to: &mut Vec<usize>| {
            to.clear();
            to.extend(ids.iter().filter(|e| **e != MISSING).map(|e| usize::from(*e)));
        };
        self.layers.par_iter_mut().enumerate().for_each(|(l, layer)| {
            let (mut before, mut now, mut next) = (Vec::<usize>::new(), Vec::new(), Vec::new());
            for run in runs {
                before.clear();
                for (t, row) in run.chunks_exact(width).enumerate() {
                    present(&row[l * k..(l + 1) * k], &mut now);
                    for (i, &e) in now.iter().enumerate() {
                        layer.counts[e] += 1;
                        for &f in &now[i + 1..] {
                            layer.pairs[e.min(f) * experts + e.max(f)] += 1;
                        }
                    }
                    if l < last {
                        present(&row[(l + 1) * k..(l + 2) * k], &mut next);
                        for &e in &now {
                            let cells = &mut layer.next_layer[e * experts..(e + 1) * experts];
                            next.iter().for_each(|f| cells[*f] += 1);
                        }
                    }
                    if t > 0 {
                        for &e in &before {
                            let cells = &mut layer.next_token[e * experts..(e + 1) * experts];
                            now.iter().for_each(|f| cells[*f] += 1);
                        }
                        layer.repeats.0 += now.iter().filter(|e| before.contains(e)).count() as u64;
                        layer.repeats.1 += now.len() as u64;
                    }
                    std::mem::swap(&mut before, &mut now);
                }
            }
        });
    }

    /// Experts a layer.
    pub fn experts(&self) -> usize {
        self.experts
    }
    /// Tokens that selected both experts `i < j` of layer `l`.
    pub fn pair(&self, l: usize, i: usize, j: usize) -> u32 {
        self.layers[l].pairs[i * self.experts + j]
    }
    /// The same over all pairs.
    pub fn together(&self, l: usize) -> u64 {
        self.layers[l].pairs.iter().map(|c| u64::from(*c)).sum()
    }
    /// The figures of each layer.
    pub fn figures(&self) -> Vec<LayerFigures> {
        self.layers.par_iter().map(|l| self.layer(l)).collect()
    }

    fn layer(&self, l: &Layer) -> LayerFigures {
        let (experts, fifth) = (self.experts, self.experts.div_ceil(5));
        let total: u64 = l.counts.iter().map(|c| u64::from(*c)).sum();
        let max = l.counts.iter().copied().max().unwrap_or(0);
        let mass = |table: &[u32]| {
            let (mut top, mut all) = (0u64, 0u64);
            for row in table.chunks_exact(experts) {
                top += largest(row, fifth);
                all += row.iter().map(|c| u64::from(*c)).sum::<u64>();
            }
            (all > 0).then(|| top as f64 / all as f64)
        };
        let cells: Vec<u32> =
            (0..experts).flat_map(|i| l.pairs[i * experts + i + 1..(i + 1) * experts].iter().copied()).collect();
        let co: u64 = cells.iter().map(|c| u64::from(*c)).sum();
        // Independent experts of one token: N p_i p_j (1 - 1/k) with p = k x share, in proportion to the pairs there are.
        let shares: f64 = l.counts.iter().map(|c| f64::from(*c) * f64::from(*c)).sum();
        let squares = (total as f64 * total as f64 - shares) / 2.0;
        let mut lift: Option<f64> = None;
        for i in 0..experts {
            for j in i + 1..experts {
                let expected = f64::from(l.counts[i]) * f64::from(l.counts[j]) / squares.max(1.0) * co as f64;
                if expected >= 20.0 {
                    let x = f64::from(l.pairs[i * experts + j]) / expected;
                    lift = Some(lift.map_or(x, |y| y.max(x)));
                }
            }
        }
        let some = |x: f64| (co > 0).then_some(x);
        LayerFigures {
            imbalance: f64::from(max) * experts as f64 / total.max(1) as f64,
            top_fifth_share: largest(&l.counts, fifth) as f64 / total.max(1) as f64,
            next_layer_mass: mass(&l.next_layer),
            next_token_mass: mass(&l.next_token),
            next_token_overlap: (l.repeats.1 > 0).then(|| l.repeats.0 as f64 / l.repeats.1 as f64),
            hottest_pair: some(
                f64::from(cells.iter().copied().max().unwrap_or(0)) * cells.len() as f64 / co.max(1) as f64,
            ),
            highest_lift: lift,
            top_tenth_pairs_share: some(largest(&cells, cells.len().div_ceil(10)) as f64 / co.max(1) as f64),
        }
    }

    /// Share of `runs`' selections that are among the `k` likeliest successors of the token's selections in the layer
    /// before, by these counts: the sum over them of each expert's share of successors. `None` with one layer.
    pub fn next_layer_overlap(&self, runs: &[&[u16]]) -> Option<f64> {
        let (k, experts, width) = (self.k, self.experts, self.layers.len() * self.k);
        let layer = |l: usize| {
            let table = &self.layers[l].next_layer;
            let share: Vec<f32> = table
                .chunks_exact(experts)
                .flat_map(|row| {
                    let sum = row.iter().map(|c| u64::from(*c)).sum::<u64>().max(1) as f32;
                    row.iter().map(move |c| *c as f32 / sum)
                })
                .collect();
            let (mut scores, mut order): (Vec<f32>, Vec<u16>) = (vec![0.0; experts], Vec::new());
            let (mut hits, mut all) = (0u64, 0u64);
            for row in runs.iter().flat_map(|run| run.chunks_exact(width)) {
                scores.fill(0.0);
                for e in row[l * k..(l + 1) * k].iter().filter(|e| **e != MISSING) {
                    let from = &share[usize::from(*e) * experts..][..experts];
                    scores.iter_mut().zip(from).for_each(|(s, f)| *s += f);
                }
                order.clear();
                order.extend(0..experts as u16);
                let by = |a: &u16, b: &u16| scores[usize::from(*b)].total_cmp(&scores[usize::from(*a)]).then(a.cmp(b));
                if k < experts {
                    order.select_nth_unstable_by(k - 1, by);
                }
                for e in row[(l + 1) * k..(l + 2) * k].iter().filter(|e| **e != MISSING) {
                    all += 1;
                    hits += u64::from(order[..k].contains(e));
                }
            }
            (hits, all)
        };
        let sums: Vec<(u64, u64)> = (0..self.layers.len() - 1).into_par_iter().map(layer).collect();
        let (hits, all) = sums.iter().fold((0, 0), |s, x| (s.0 + x.0, s.1 + x.1));
        (all > 0).then(|| hits as f64 / all as f64)
    }
}

/// Sum of the `n` largest.
fn largest(values: &[u32], n: usize) -> u64 {
    let mut all = values.to_vec();
    if n == 0 || all.is_empty() {
        return 0;
    }
    let n = n.min(all.len());
    all.select_nth_unstable_by(n - 1, |a, b| b.cmp(a));
    all[..n].iter().map(|c| u64::from(*c)).sum()
}
