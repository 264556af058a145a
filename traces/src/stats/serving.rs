//! What a serving system feels of a trace's routing: how many experts a batch activates and how uneven its load is, what a
//! cache of experts hits, how far a token's experts lie apart, what one token tells of the next.

use super::Part;
use crate::trace::MISSING;
use moesim_core::rng::{below, stream};
use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;

/// Batch sizes.
pub const BATCHES: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// Distances between tokens of a sequence.
pub const LAGS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// Devices over which the experts are dealt in contiguous parts.
pub const DEVICES: [usize; 5] = [2, 4, 8, 16, 32];
/// Eighths of the experts that a cache holds.
pub const EIGHTHS: [usize; 5] = [1, 2, 3, 4, 6];
/// Batches drawn at random for each size.
const SAMPLES: usize = 400;
/// Selections that the cache figures look at, at most.
const LOOKUPS: usize = 1 << 26;

/// One figure for each size, averaged over layers.
#[derive(Clone, Debug, Serialize)]
pub struct Serving {
    /// Distinct experts a layer that a batch of random rows activates, by batch size: a decode batch.
    pub batch_activated: Vec<f64>,
    /// Its most loaded expert over the mean of all experts.
    pub batch_imbalance: Vec<f64>,
    /// Distinct experts a layer that so many consecutive rows of one sequence activate: a prompt chunk. `None` where no
    /// sequence is as long.
    pub run_activated: Vec<Option<f64>>,
    /// Hit rate of a least-recently-used cache of so many eighths of each layer's experts, one sequence after another.
    pub lru_hit_rate: Vec<f64>,
    /// Share of a token's experts that the token so many rows before had too.
    pub lag_overlap: Vec<Option<f64>>,
    /// Distinct devices a token and layer, with the experts dealt in contiguous parts over so many devices. `None` with
    /// fewer experts than devices.
    pub devices_per_token: Vec<Option<f64>>,
}

/// Shape of a trace.
#[derive(Clone, Copy)]
struct Shape {
    layers: usize,
    k: usize,
    experts: usize,
}

impl Shape {
    fn width(self) -> usize {
        self.layers * self.k
    }
    /// Per layer, the experts of a row that are there.
    fn row(self, row: &[u16]) -> impl Iterator<Item = (usize, usize)> + '_ {
        let k = self.k;
        row.iter().enumerate().filter(|(_, e)| **e != MISSING).map(move |(i, e)| (i / k, usize::from(*e)))
    }
}

impl Serving {
    /// Measures the output rows of `part` (prompt rows where there are none), which must be checked. Batches are drawn
    /// with `seed`.
    pub fn of(part: &Part, seed: u64) -> Self {
        let trace = part.trace();
        let s = Shape { layers: trace.layers(), k: trace.k(), experts: trace.experts() };
        let sequences: Vec<&[u16]> = part.rows().collect();
        let batches: Vec<(f64, f64)> = BATCHES.par_iter().map(|b| batch(&sequences, s, *b, seed)).collect();
        Self {
            batch_activated: batches.iter().map(|b| b.0).collect(),
            batch_imbalance: batches.iter().map(|b| b.1).collect(),
            run_activated: BATCHES.par_iter().map(|n| run(&sequences, s, *n, seed)).collect(),
            lru_hit_rate: lru(&sequences, s, seed),
            lag_overlap: LAGS.par_iter().map(|lag| overlap(&sequences, s, *lag)).collect(),
            devices_per_token: DEVICES.par_iter().map(|d| devices(&sequences, s, *d)).collect(),
        }
    }
}

/// (Distinct experts, largest over mean load) of batches of `n` random rows, averaged over batches and layers.
fn batch(sequences: &[&[u16]], s: Shape, n: usize, seed: u64) -> (f64, f64) {
    let ends: Vec<u64> = sequences
        .iter()
        .scan(0, |sum, rows| {
            *sum += (rows.len() / s.width()) as u64;
            Some(*sum)
        })
        .collect();
    let total = ends.last().copied().unwrap_or(0);
    let mut r = stream(seed, "stats-batch", n as u64);
    let mut counts = vec![0u32; s.layers * s.experts];
    let (mut activated, mut imbalance, mut layers) = (0u64, 0.0, 0u64);
    for _ in 0..SAMPLES {
        counts.fill(0);
        for _ in 0..n {
            let at = below(r.next_u64(), total);
            let sequence = ends.partition_point(|e| *e <= at);
            let row = (at - if sequence == 0 { 0 } else { ends[sequence - 1] }) as usize;
            let ids = &sequences[sequence][row * s.width()..(row + 1) * s.width()];
            s.row(ids).for_each(|(l, e)| counts[l * s.experts + e] += 1);
        }
        for layer in counts.chunks_exact(s.experts) {
            let sum: u32 = layer.iter().sum();
            let most = layer.iter().copied().max().unwrap_or(0);
            activated += layer.iter().filter(|c| **c > 0).count() as u64;
            if sum > 0 {
                imbalance += f64::from(most) * s.experts as f64 / f64::from(sum);
                layers += 1;
            }
        }
    }
    (activated as f64 / (SAMPLES * s.layers) as f64, imbalance / layers.max(1) as f64)
}

/// Distinct experts of `n` consecutive rows of one sequence, averaged over runs and layers.
fn run(sequences: &[&[u16]], s: Shape, n: usize, seed: u64) -> Option<f64> {
    let long: Vec<&&[u16]> = sequences.iter().filter(|rows| rows.len() / s.width() >= n).collect();
    if long.is_empty() {
        return None;
    }
    let mut r = stream(seed, "stats-run", n as u64);
    let mut seen = vec![false; s.layers * s.experts];
    let mut activated = 0u64;
    for _ in 0..SAMPLES {
        let rows = long[below(r.next_u64(), long.len() as u64) as usize];
        let start = below(r.next_u64(), (rows.len() / s.width() - n + 1) as u64) as usize;
        seen.fill(false);
        for row in rows[start * s.width()..(start + n) * s.width()].chunks_exact(s.width()) {
            s.row(row).for_each(|(l, e)| seen[l * s.experts + e] = true);
        }
        activated += seen.iter().filter(|x| **x).count() as u64;
    }
    Some(activated as f64 / (SAMPLES * s.layers) as f64)
}

/// Hit rates by the depth at which an expert lies in a list ordered by last use (Mattson et al. 1970): one pass for all sizes.
fn lru(sequences: &[&[u16]], s: Shape, seed: u64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    crate::synth::shuffle(&mut order, &mut stream(seed, "stats-lru", 0));
    let mut left = LOOKUPS;
    order.retain(|&i| {
        let take = left > 0;
        left = left.saturating_sub(sequences[i].len());
        take
    });
    let layer = |l: usize| {
        let mut list: Vec<u16> = Vec::with_capacity(s.experts);
        let mut depths = vec![0u64; s.experts + 1];
        for &i in &order {
            for row in sequences[i].chunks_exact(s.width()) {
                for &e in row[l * s.k..(l + 1) * s.k].iter().filter(|e| **e != MISSING) {
                    match list.iter().position(|x| *x == e) {
                        Some(at) => {
                            depths[at] += 1;
                            list[..=at].rotate_right(1);
                        }
                        None => {
                            depths[s.experts] += 1;
                            list.insert(0, e);
                        }
                    }
                }
            }
        }
        depths
    };
    let depths: Vec<Vec<u64>> = (0..s.layers).into_par_iter().map(layer).collect();
    let all: u64 = depths.iter().flatten().sum();
    let hits = |size: usize| depths.iter().map(|d| d[..size].iter().sum::<u64>()).sum::<u64>();
    EIGHTHS.iter().map(|n| hits((s.experts * n / 8).max(1)) as f64 / all.max(1) as f64).collect()
}

/// Share of a row's experts that the row `lag` before it has too.
fn overlap(sequences: &[&[u16]], s: Shape, lag: usize) -> Option<f64> {
    let (mut same, mut all) = (0u64, 0u64);
    for rows in sequences {
        let shifted = rows.get(lag * s.width()..).unwrap_or_default();
        for (now, before) in shifted.chunks_exact(s.k).zip(rows.chunks_exact(s.k)) {
            let present = now.iter().filter(|e| **e != MISSING);
            all += present.clone().count() as u64;
            same += present.filter(|e| before.contains(e)).count() as u64;
        }
    }
    (all > 0).then(|| same as f64 / all as f64)
}

/// Distinct devices a token and layer.
fn devices(sequences: &[&[u16]], s: Shape, devices: usize) -> Option<f64> {
    if s.experts < devices {
        return None;
    }
    let (mut distinct, mut tokens) = (0u64, 0u64);
    for rows in sequences {
        for ids in rows.chunks_exact(s.k) {
            let set = ids.iter().filter(|e| **e != MISSING);
            let bits = set.fold(0u64, |bits, e| bits | 1 << (usize::from(*e) * devices / s.experts));
            distinct += u64::from(bits.count_ones());
            tokens += 1;
        }
    }
    (tokens > 0).then(|| distinct as f64 / tokens as f64)
}
