//! What a serving system feels of a trace's routing: how many experts a batch activates and how uneven its load is, what a
//! cache of experts hits, how far a token's experts lie apart, what one token tells of the next.

use super::{Part, SEQUENCES, cells};
use crate::trace::MISSING;
use moesim_core::rng::{below, shuffle, stream};
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
struct TraceShape {
    layers: usize,
    k: usize,
    experts: usize,
}

impl TraceShape {
    fn width(self) -> usize {
        self.layers * self.k
    }
    /// Calls `each` with the cell (layer x experts + expert) of every expert of a row.
    fn row(self, row: &[u16], each: impl FnMut(usize)) {
        cells(row, (self.layers, self.k, self.experts), each);
    }
}

impl Serving {
    /// Measures the output rows of `part` (prompt rows where there are none), which must be checked. Batches are drawn
    /// with `seed`.
    pub fn of(part: &Part, seed: u64) -> Self {
        let trace = part.trace();
        let s = TraceShape { layers: trace.layers(), k: trace.k(), experts: trace.experts() };
        let sequences: Vec<&[u16]> = part.rows().collect();
        let batches: Vec<(f64, f64)> = BATCHES.par_iter().map(|b| batch(&sequences, s, *b, seed)).collect();
        Self {
            batch_activated: batches.iter().map(|b| b.0).collect(),
            batch_imbalance: batches.iter().map(|b| b.1).collect(),
            run_activated: BATCHES.par_iter().map(|n| run(&sequences, s, *n, seed)).collect(),
            lru_hit_rate: lru(&sequences, s, seed),
            lag_overlap: overlaps(&sequences, s),
            devices_per_token: devices(&sequences, s),
        }
    }
}

/// (Distinct experts, largest over mean load) of batches of `n` random rows, averaged over batches and layers.
fn batch(sequences: &[&[u16]], s: TraceShape, n: usize, seed: u64) -> (f64, f64) {
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
            s.row(ids, |cell| counts[cell] += 1);
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
fn run(sequences: &[&[u16]], s: TraceShape, n: usize, seed: u64) -> Option<f64> {
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
            s.row(row, |cell| seen[cell] = true);
        }
        activated += seen.iter().filter(|x| **x).count() as u64;
    }
    Some(activated as f64 / (SAMPLES * s.layers) as f64)
}

/// Hit rates by the depth at which an expert lies in a list ordered by last use (Mattson et al. 1970): one pass for all sizes.
fn lru(sequences: &[&[u16]], s: TraceShape, seed: u64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    shuffle(&mut order, &mut stream(seed, "stats-lru", 0));
    let mut left = LOOKUPS;
    order.retain(|&i| {
        let take = left > 0;
        left = left.saturating_sub(sequences[i].len());
        take
    });
    let mut layers = vec![(Recency::new(s.experts), vec![0u64; s.experts + 1]); s.layers];
    // Few sequences at a time: every layer reads them while they are in the cache.
    for some in order.chunks(SEQUENCES) {
        layers.par_iter_mut().enumerate().for_each(|(l, (recency, depths))| {
            for row in some.iter().flat_map(|i| sequences[*i].chunks_exact(s.width())) {
                for &e in row[l * s.k..(l + 1) * s.k].iter().filter(|e| **e != MISSING) {
                    depths[recency.next(e).unwrap_or(s.experts)] += 1;
                }
            }
        });
    }
    let depths: Vec<Vec<u64>> = layers.into_iter().map(|l| l.1).collect();
    let all: u64 = depths.iter().flatten().sum();
    let hits = |size: usize| depths.iter().map(|d| d[..size].iter().sum::<u64>()).sum::<u64>();
    EIGHTHS.iter().map(|n| hits((s.experts * n / 8).max(1)) as f64 / all.max(1) as f64).collect()
}

/// The order in which experts were last used: a bit for each of the last uses, 64 a word. A bit is set if its use is the last
/// one of its expert, so that the set bits behind it are the experts used since.
#[derive(Clone)]
struct Recency {
    bits: Vec<u64>,
    /// Set bits of each word.
    ones: Vec<u8>,
    /// The expert of each use, and the last use of each expert, [`NEVER`] before the first.
    expert: Vec<u16>,
    last: Vec<u32>,
    now: usize,
}

const NEVER: u32 = u32::MAX;

impl Recency {
    fn new(experts: usize) -> Self {
        // Room for some uses beside those that are the last.
        let words = (4 * experts).div_ceil(64) + 1;
        let last = vec![NEVER; experts];
        Self { bits: vec![0; words], ones: vec![0; words], expert: vec![0; 64 * words], last, now: 0 }
    }
    /// Uses `expert`; how many others were used since its last use, nothing at its first.
    fn next(&mut self, expert: u16) -> Option<usize> {
        if self.now == self.expert.len() {
            self.compact();
        }
        let last = std::mem::replace(&mut self.last[usize::from(expert)], self.now as u32);
        let depth = (last != NEVER).then(|| {
            let (word, bit) = (last as usize / 64, last % 64);
            self.bits[word] &= !(1 << bit);
            self.ones[word] -= 1;
            let later: usize = self.ones[word + 1..=self.now / 64].iter().map(|n| usize::from(*n)).sum();
            (self.bits[word] >> bit).count_ones() as usize + later
        });
        self.bits[self.now / 64] |= 1 << (self.now % 64);
        self.ones[self.now / 64] += 1;
        self.expert[self.now] = expert;
        self.now += 1;
        depth
    }
    /// Forgets uses that are not the last of their expert.
    fn compact(&mut self) {
        let uses = std::mem::take(&mut self.now);
        let bits = self.bits.clone();
        self.bits.fill(0);
        self.ones.fill(0);
        for old in (0..uses).filter(|i| bits[i / 64] >> (i % 64) & 1 == 1) {
            let expert = self.expert[old];
            self.last[usize::from(expert)] = NEVER;
            self.next(expert);
        }
    }
}

/// For each lag, the share of a row's experts that the row so many before it has too.
fn overlaps(sequences: &[&[u16]], s: TraceShape) -> Vec<Option<f64>> {
    let same = match s.k {
        1 => same::<1>,
        2 => same::<2>,
        4 => same::<4>,
        6 => same::<6>,
        8 => same::<8>,
        _ => same_of_any,
    };
    let of = |rows: &&[u16]| {
        LAGS.map(|lag| {
            let shifted = rows.get(lag * s.width()..).unwrap_or_default();
            same(shifted, rows, s.k)
        })
    };
    let add = |a: [(u64, u64); LAGS.len()], b: [(u64, u64); LAGS.len()]| {
        std::array::from_fn(|i| (a[i].0 + b[i].0, a[i].1 + b[i].1))
    };
    let sums = sequences.par_iter().map(of).reduce(|| [(0, 0); LAGS.len()], add);
    sums.iter().map(|(same, all)| (*all > 0).then(|| *same as f64 / *all as f64)).collect()
}

/// Of the experts of `now`, those that are in the same group of `k` of `before` too, and all.
fn same_of_any(now: &[u16], before: &[u16], k: usize) -> (u64, u64) {
    let (mut same, mut all) = (0u64, 0u64);
    for (now, before) in now.chunks_exact(k).zip(before.chunks_exact(k)) {
        let present = now.iter().filter(|e| **e != MISSING);
        all += present.clone().count() as u64;
        same += present.filter(|e| before.contains(e)).count() as u64;
    }
    (same, all)
}

/// The same where groups have a length that the compiler knows: they become vectors.
fn same<const K: usize>(now: &[u16], before: &[u16], _: usize) -> (u64, u64) {
    let (mut same, mut all) = (0u64, 0u64);
    for (now, before) in now.as_chunks::<K>().0.iter().zip(before.as_chunks::<K>().0) {
        let present = now.map(|e| u16::from(e != MISSING));
        let mut found = [0u16; K];
        for e in before {
            (0..K).for_each(|i| found[i] |= u16::from(now[i] == *e));
        }
        (0..K).for_each(|i| found[i] &= present[i]);
        same += u64::from(found.iter().sum::<u16>());
        all += u64::from(present.iter().sum::<u16>());
    }
    (same, all)
}

/// Distinct devices of a token and layer, for each number of devices.
fn devices(sequences: &[&[u16]], s: TraceShape) -> Vec<Option<f64>> {
    // All numbers of devices in one word: n of them from bit n - 2 on.
    let device = |e: usize, n: usize| 1u64 << (n - 2 + e * n / s.experts);
    let mut bits: Vec<u64> = (0..s.experts).map(|e| DEVICES.iter().fold(0, |bits, n| bits | device(e, *n))).collect();
    bits.resize(usize::from(MISSING) + 1, 0);
    let of = |rows: &&[u16]| {
        let mut distinct = [0u64; DEVICES.len()];
        for ids in rows.chunks_exact(s.k) {
            let set = ids.iter().fold(0, |set, e| set | bits[usize::from(*e)]);
            for (sum, n) in distinct.iter_mut().zip(DEVICES) {
                *sum += u64::from((set >> (n - 2) & ((1 << n) - 1)).count_ones());
            }
        }
        distinct
    };
    let add = |a: [u64; DEVICES.len()], b: [u64; DEVICES.len()]| std::array::from_fn(|i| a[i] + b[i]);
    let distinct = sequences.par_iter().map(of).reduce(|| [0; DEVICES.len()], add);
    let tokens: usize = sequences.iter().map(|rows| rows.len() / s.k).sum();
    let figure = |(sum, n): (u64, usize)| (s.experts >= n && tokens > 0).then(|| sum as f64 / tokens as f64);
    distinct.into_iter().zip(DEVICES).map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// As a list, most recently used first.
        #[test]
        fn depths_are_those_in_a_list(uses in prop::collection::vec(0u16..40, 0..2000)) {
            let (mut recency, mut list) = (Recency::new(40), Vec::new());
            for e in uses {
                let at = list.iter().position(|x| *x == e);
                prop_assert_eq!(recency.next(e), at);
                at.map(|at| list.remove(at));
                list.insert(0, e);
            }
        }

        #[test]
        fn groups_of_a_known_length_are_counted_as_all_are(
            ids in prop::collection::vec(prop_oneof![0u16..12, Just(MISSING)], 48..200), lag in 0usize..3,
        ) {
            let (now, before) = (&ids[48 * lag / 2..], &ids[..]);
            prop_assert_eq!(same::<1>(now, before, 1), same_of_any(now, before, 1));
            prop_assert_eq!(same::<4>(now, before, 4), same_of_any(now, before, 4));
            prop_assert_eq!(same::<6>(now, before, 6), same_of_any(now, before, 6));
            prop_assert_eq!(same::<8>(now, before, 8), same_of_any(now, before, 8));
        }

        #[test]
        fn devices_are_counted_for_all_numbers_at_once(
            ids in prop::collection::vec(prop_oneof![0u16..20, Just(MISSING)], 3..90),
        ) {
            let rows = &ids[..ids.len() / 3 * 3];
            let found = devices(&[rows], TraceShape { layers: 1, k: 3, experts: 20 });
            for (n, found) in DEVICES.into_iter().zip(found) {
                let distinct = rows.chunks_exact(3).map(|ids| {
                    let on = ids.iter().filter(|e| **e != MISSING).map(|e| usize::from(*e) * n / 20);
                    on.collect::<std::collections::BTreeSet<_>>().len()
                });
                let mean = distinct.sum::<usize>() as f64 / (rows.len() / 3) as f64;
                prop_assert_eq!(found, (n <= 20).then_some(mean));
            }
        }
    }
}
