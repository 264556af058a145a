//! How selections hang together: with the next layer's, with the next token's, with each other.

use crate::trace::MISSING;
use rayon::prelude::*;
use serde::Serialize;
use std::ops::Range;

/// Entries of one kind of table over all layers (layers x experts x experts); larger ones are not kept.
const TABLES: usize = 1 << 26;

/// Rows that are counted at a time: each layer's ids of them stay in the cache.
const ROWS: usize = 1 << 13;

/// Exact counts of pairs, layer by layer. A cell counts a row at most once, so that 2^32 - 1 rows fit.
pub struct Structure {
    k: usize,
    experts: usize,
    layers: Vec<Layer>,
}

/// Tables of a row an expert, and in it a column an expert and one for what is missing, which nobody reads.
#[derive(Clone)]
struct Layer {
    counts: Vec<u32>,
    /// Row: selected here; column: selected by the same token in the next MoE layer.
    next_layer: Vec<u32>,
    /// Row: selected here; column: selected by the next token here.
    next_token: Vec<u32>,
    /// Selected by one token: above the diagonal, and below it the same again.
    pairs: Vec<u32>,
    /// Selections that had a token before.
    successors: u64,
}

/// A layer's ids of some rows one after the other, and the rows of each expert.
#[derive(Default)]
struct Column {
    here: Vec<u16>,
    /// In the next layer.
    next: Vec<u16>,
    /// Selections that have a row before them.
    successors: u64,
    /// The rows that selected each expert, and where in the list each expert's end.
    rows: Vec<u32>,
    ends: Vec<u32>,
}

/// Rows one after the other, and the row behind them, if it is of the same run.
type Piece<'a> = (&'a [u16], &'a [u16]);

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
        let table = || vec![0; experts * (experts + 1)];
        let layer =
            Layer { counts: vec![0; experts], next_layer: table(), next_token: table(), pairs: table(), successors: 0 };
        Some(Self { k, experts, layers: vec![layer; layers] })
    }

    /// Counts runs of consecutive rows of one sequence each, whose experts differ in a layer of a row.
    pub fn count(&mut self, runs: &[&[u16]]) {
        let width = self.layers.len() * self.k;
        let (mut pieces, mut left): (Vec<Piece>, usize) = (Vec::new(), ROWS);
        for run in runs {
            let mut rest = *run;
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rest.len().min(left * width));
                pieces.push((piece, &behind[..behind.len().min(width)]));
                left -= piece.len() / width;
                rest = behind;
                if left == 0 {
                    self.count_pieces(&pieces);
                    pieces.clear();
                    left = ROWS;
                }
            }
        }
        self.count_pieces(&pieces);
    }

    fn count_pieces(&mut self, pieces: &[Piece]) {
        let (k, experts, layers) = (self.k, self.experts, self.layers.len());
        self.layers.par_iter_mut().enumerate().for_each_init(Column::default, |column, (l, layer)| {
            column.read(pieces, l, layers, k, experts);
            layer.count(column, k, experts);
        });
    }

    /// Experts a layer.
    pub fn experts(&self) -> usize {
        self.experts
    }
    /// Tokens that selected both experts `i < j` of layer `l`.
    pub fn pair(&self, l: usize, i: usize, j: usize) -> u32 {
        self.layers[l].pairs[i * (self.experts + 1) + j]
    }
    /// The same over all pairs.
    pub fn together(&self, l: usize) -> u64 {
        self.layers[l].pairs(self.experts).map(|c| u64::from(*c)).sum()
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
            for row in table.chunks_exact(experts + 1).map(|row| &row[..experts]) {
                top += largest(row, fifth);
                all += row.iter().map(|c| u64::from(*c)).sum::<u64>();
            }
            (all > 0).then(|| top as f64 / all as f64)
        };
        let cells: Vec<u32> = l.pairs(experts).copied().collect();
        // A token that repeats an expert is counted where the table of successors has it follow itself.
        let repeats: u64 = l.next_token.iter().step_by(experts + 2).map(|c| u64::from(*c)).sum();
        let co: u64 = cells.iter().map(|c| u64::from(*c)).sum();
        // Independent experts of one token: N p_i p_j (1 - 1/k) with p = k x share, in proportion to the pairs there are.
        let shares: f64 = l.counts.iter().map(|c| f64::from(*c) * f64::from(*c)).sum();
        let squares = (total as f64 * total as f64 - shares) / 2.0;
        let mut lift: Option<f64> = None;
        for i in 0..experts {
            for j in i + 1..experts {
                let expected = f64::from(l.counts[i]) * f64::from(l.counts[j]) / squares.max(1.0) * co as f64;
                if expected >= 20.0 {
                    let x = f64::from(l.pairs[i * (experts + 1) + j]) / expected;
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
            next_token_overlap: (l.successors > 0).then(|| repeats as f64 / l.successors as f64),
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
                .chunks_exact(experts + 1)
                .flat_map(|row| {
                    let row = &row[..experts];
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

impl Column {
    /// Reads layer `l` of `pieces`. Missing experts become `experts`; every piece ends with one more row, that behind it or
    /// one without experts, whose experts are not counted themselves.
    fn read(&mut self, pieces: &[Piece], l: usize, layers: usize, k: usize, experts: usize) {
        let fill = |ids: &mut Vec<u16>, l: usize| {
            ids.clear();
            for (piece, behind) in pieces {
                for row in piece.chunks_exact(layers * k).chain(behind.chunks_exact(layers * k)) {
                    ids.extend(row[l * k..(l + 1) * k].iter().map(|e| (*e).min(experts as u16)));
                }
                if behind.is_empty() {
                    ids.resize(ids.len() + k, experts as u16);
                }
            }
        };
        fill(&mut self.here, l);
        if l + 1 < layers {
            fill(&mut self.next, l + 1);
        } else {
            self.next.clear();
            self.next.resize(self.here.len(), experts as u16);
        }
        // Where each piece has its own rows.
        let mut first = 0;
        let own: Vec<Range<usize>> = pieces
            .iter()
            .map(|(piece, _)| {
                let rows = first..first + piece.len() / (layers * k);
                first = rows.end + 1;
                rows
            })
            .collect();
        let present =
            |rows: Range<usize>| self.here[rows.start * k..rows.end * k].iter().filter(|e| **e < experts as u16);
        self.successors = own.iter().map(|r| present(r.start + 1..r.end + 1).count() as u64).sum();
        // Rows sorted by expert, by counting: an expert's start becomes its end as its rows are put down.
        self.ends.clear();
        self.ends.resize(experts + 1, 0);
        own.iter().flat_map(|r| present(r.clone())).for_each(|e| self.ends[usize::from(*e) + 1] += 1);
        (0..experts).for_each(|e| self.ends[e + 1] += self.ends[e]);
        self.rows.resize(self.here.len(), 0);
        for row in own.into_iter().flatten() {
            for e in self.here[row * k..(row + 1) * k].iter().map(|e| usize::from(*e)).filter(|e| *e < experts) {
                self.rows[self.ends[e] as usize] = row as u32;
                self.ends[e] += 1;
            }
        }
    }
}

impl Layer {
    /// One expert after the other, so that what is counted up stays in the first cache.
    fn count(&mut self, column: &Column, k: usize, experts: usize) {
        let width = experts + 1;
        let mut start = 0;
        self.successors += column.successors;
        for e in 0..experts {
            let end = column.ends[e] as usize;
            let row = e * width..(e + 1) * width;
            let (pairs, next_token) = (&mut self.pairs[row.clone()], &mut self.next_token[row.clone()]);
            let next_layer = &mut self.next_layer[row];
            for &row in &column.rows[start..end] {
                let at = row as usize * k;
                let (here, after) = column.here[at..at + 2 * k].split_at(k);
                here.iter().for_each(|f| pairs[usize::from(*f)] += 1);
                after.iter().for_each(|f| next_token[usize::from(*f)] += 1);
                column.next[at..at + k].iter().for_each(|f| next_layer[usize::from(*f)] += 1);
            }
            self.counts[e] += (end - start) as u32;
            start = end;
        }
    }

    /// How often each pair of experts was selected by one token.
    fn pairs(&self, experts: usize) -> impl Iterator<Item = &u32> {
        self.pairs.chunks_exact(experts + 1).enumerate().flat_map(move |(i, row)| &row[i + 1..experts])
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
