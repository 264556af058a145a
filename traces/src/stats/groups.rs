//! Groups of sequences that select alike, found by k-means over what share of its selections a sequence gives to
//! each expert of each layer (square roots, so that distances are Hellinger's), started as k-means++ does (Arthur and
//! Vassilvitskii 2007).

use super::{Part, cells};
use moesim_core::rng::{below, shuffle, stream};
use rand::Rng;
use rayon::prelude::*;

/// A topic has this many sequences on average, at least.
const SEQUENCES: usize = 24;
/// The most topics.
const MOST: usize = 16;
/// Shares held in memory: the centres are found among so many sequences as they are of, picked at random.
const SHARES: usize = 1 << 25;
/// Rounds of k-means.
const ROUNDS: usize = 20;

/// The topics of a checked part's sequences, and how many there are.
pub(super) fn of(part: &Part, seed: u64) -> (Vec<usize>, usize) {
    let trace = part.trace();
    let rows: Vec<&[u16]> = part.all_rows().collect();
    find(&rows, (trace.layers(), trace.k(), trace.experts()), seed)
}

/// The topic of each sequence, and how many topics there are. `rows` has one entry a sequence.
pub(crate) fn find(rows: &[&[u16]], (layers, k, experts): (usize, usize, usize), seed: u64) -> (Vec<usize>, usize) {
    let topics = (rows.len() / SEQUENCES).clamp(1, MOST);
    if topics == 1 {
        return (vec![0; rows.len()], 1);
    }
    let mut sample: Vec<usize> = (0..rows.len()).collect();
    shuffle(&mut sample, &mut stream(seed, "synth-topics-sample", 0));
    sample.truncate((SHARES / (layers * experts)).max(topics));
    sample.sort_unstable();
    let profiles: Vec<Vec<f32>> = sample.par_iter().map(|i| profile(rows[*i], (layers, k, experts))).collect();
    let mut r = stream(seed, "synth-topics", 0);
    let mut centres = vec![profiles[below(r.next_u64(), profiles.len() as u64) as usize].clone()];
    let mut nearest: Vec<f32> = profiles.par_iter().map(|p| distance(p, &centres[0])).collect();
    while centres.len() < topics {
        let total: f32 = nearest.iter().sum();
        let mut left = below(r.next_u64(), 1 << 24) as f32 / (1 << 24) as f32 * total;
        let chosen = nearest.iter().position(|d| {
            left -= d;
            left < 0.0
        });
        let Some(chosen) = chosen else { break };
        let centre = profiles[chosen].clone();
        nearest.par_iter_mut().zip(&profiles).for_each(|(n, p)| *n = n.min(distance(p, &centre)));
        centres.push(centre);
    }
    let mut of = vec![0; profiles.len()];
    for _ in 0..ROUNDS {
        let abreast = abreast(&centres);
        let now: Vec<usize> = profiles.par_iter().map(|p| closest(p, &abreast, centres.len())).collect();
        if now == of {
            break;
        }
        of = now;
        centres.par_iter_mut().enumerate().for_each(|(c, centre)| {
            let members = of.iter().filter(|t| **t == c).count();
            if members > 0 {
                centre.fill(0.0);
                for (p, _) in profiles.iter().zip(&of).filter(|(_, t)| **t == c) {
                    centre.iter_mut().zip(p).for_each(|(x, p)| *x += p / members as f32);
                }
            }
        });
    }
    let abreast = abreast(&centres);
    let shape = (layers, k, experts);
    (rows.par_iter().map(|r| closest(&profile(r, shape), &abreast, centres.len())).collect(), centres.len())
}

/// The shares of all centres side by side.
fn abreast(centres: &[Vec<f32>]) -> Vec<[f32; MOST]> {
    let share = |i: usize| std::array::from_fn(|c| centres.get(c).map_or(0.0, |centre| centre[i]));
    (0..centres[0].len()).map(share).collect()
}

/// The nearest of the first `n` centres. All distances are summed at once, each in the order of [`distance`]: one sum after the
/// other would wait for its last addition at every step.
fn closest(profile: &[f32], centres: &[[f32; MOST]], n: usize) -> usize {
    let mut sums = [0.0f32; MOST];
    for (p, shares) in profile.iter().zip(centres) {
        for (sum, share) in sums.iter_mut().zip(shares) {
            *sum += (p - share) * (p - share);
        }
    }
    let distances = sums[..n].iter().enumerate();
    distances.min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |d| d.0)
}

fn profile(rows: &[u16], shape: (usize, usize, usize)) -> Vec<f32> {
    let (layers, k, experts) = shape;
    let mut counts = vec![0u32; layers * experts];
    cells(rows, shape, |cell| counts[cell] += 1);
    let tokens = (rows.len() / (layers * k)).max(1) as f32 * k as f32;
    counts.iter().map(|c| (*c as f32 / tokens).sqrt()).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
