//! Do topics have experts of their own?

use super::{Part, cells};
use moesim_core::rng::{shuffle, stream};
use rayon::prelude::*;
use serde::Serialize;

/// The most popular experts of a topic that are compared.
pub const POPULAR: usize = 6;
/// Topics compared at most, those with most sequences: a label per sequence is no topic.
const MOST: usize = 32;
/// Counts kept at most.
const COUNTS: usize = 1 << 26;

/// Groups of sequences, and how far their popular experts agree.
#[derive(Clone, Debug, Serialize)]
pub struct Topics {
    /// Where the topics come from.
    pub origin: String,
    /// Their names and numbers of sequences.
    pub topics: Vec<(String, usize)>,
    /// Of a topic's six most popular experts of a layer, how many another topic shares: mean over layers and pairs of topics.
    pub shared_popular: f64,
    /// The same for groups of the same sizes, dealt at random: what small groups share by chance.
    pub shared_popular_random: f64,
    /// Most selected expert over the mean within a topic, mean over topics and layers.
    pub imbalance_within: f64,
    /// The same over all of their sequences together.
    pub imbalance_together: f64,
}

impl Topics {
    /// Compares the topics `of` of a checked part's sequences; `None` for fewer than two topics, and where their counts would not
    /// fit in memory.
    pub fn of(part: &Part, of: &[usize], names: &[String], origin: &str, seed: u64) -> Option<Self> {
        let trace = part.trace();
        let (layers, experts) = (trace.layers(), trace.experts());
        let mut own = vec![0; names.len()];
        of.iter().for_each(|t| own[*t] += 1);
        let mut sizes: Vec<(usize, usize)> = own.into_iter().enumerate().filter(|t| t.1 > 0).collect();
        sizes.sort_by_key(|(t, n)| (std::cmp::Reverse(*n), *t));
        sizes.truncate(MOST);
        if sizes.len() < 2 || sizes.len() * layers * experts > COUNTS {
            return None;
        }
        let group: Vec<Option<usize>> = of.iter().map(|t| sizes.iter().position(|s| s.0 == *t)).collect();
        let counts = count(part, &group, sizes.len());
        let mut dealt = group.clone();
        shuffle(&mut dealt, &mut stream(seed, "stats-topics", 0));
        let random = count(part, &dealt, sizes.len());
        let cells = layers * experts;
        let imbalance = |c: &[u32]| {
            let (max, sum) = c.iter().fold((0, 0u64), |(m, s), &x| (x.max(m), s + u64::from(x)));
            f64::from(max) * experts as f64 / sum.max(1) as f64
        };
        let together: Vec<u32> = (0..cells).map(|i| (0..sizes.len()).map(|t| counts[t * cells + i]).sum()).collect();
        let mean = |c: &[u32]| c.chunks_exact(experts).map(imbalance).sum::<f64>() / (c.len() / experts) as f64;
        Some(Self {
            origin: origin.to_string(),
            topics: sizes.iter().map(|(t, n)| (names[*t].clone(), *n)).collect(),
            shared_popular: shared(&counts, sizes.len(), experts),
            shared_popular_random: shared(&random, sizes.len(), experts),
            imbalance_within: mean(&counts),
            imbalance_together: mean(&together),
        })
    }
}

/// Selections by group, layer and expert.
fn count(part: &Part, group: &[Option<usize>], groups: usize) -> Vec<u32> {
    let trace = part.trace();
    let shape = (trace.layers(), trace.k(), trace.experts());
    let mut counts = vec![0u32; groups * shape.0 * shape.2];
    let rows: Vec<&[u16]> = part.all_rows().collect();
    counts.par_chunks_exact_mut(shape.0 * shape.2).enumerate().for_each(|(g, counts)| {
        let own = rows.iter().zip(group).filter(|(_, x)| **x == Some(g));
        own.for_each(|(rows, _)| cells(rows, shape, |cell| counts[cell] += 1));
    });
    counts
}

/// Popular experts that two groups share, averaged over pairs of groups and layers.
fn shared(counts: &[u32], groups: usize, experts: usize) -> f64 {
    let cells = counts.len() / groups;
    let popular = |g: usize, l: usize| {
        let c = &counts[g * cells + l * experts..][..experts];
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by_key(|e| (std::cmp::Reverse(c[*e]), *e));
        order.truncate(POPULAR);
        order.retain(|e| c[*e] > 0);
        order
    };
    let (mut same, mut pairs) = (0usize, 0usize);
    for l in 0..cells / experts {
        let lists: Vec<Vec<usize>> = (0..groups).map(|g| popular(g, l)).collect();
        for (i, a) in lists.iter().enumerate() {
            for b in &lists[i + 1..] {
                same += a.iter().filter(|e| b.contains(e)).count();
                pairs += 1;
            }
        }
    }
    same as f64 / pairs.max(1) as f64
}
