//! Topics: groups of sequences that select alike, found by k-means over what share of its selections a sequence gives to
//! each expert of each layer (square roots, so that distances are Hellinger's), started as k-means++ does (Arthur and
//! Vassilvitskii 2007).

use crate::trace::MISSING;
use moesim_core::rng::{below, stream};
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

/// The topic of each sequence, and how many topics there are. `rows` has one entry a sequence.
pub(super) fn find(rows: &[&[u16]], (layers, k, experts): (usize, usize, usize), seed: u64) -> (Vec<usize>, usize) {
    let topics = (rows.len() / SEQUENCES).clamp(1, MOST);
    if topics == 1 {
        return (vec![0; rows.len()], 1);
    }
    let mut sample: Vec<usize> = (0..rows.len()).collect();
    super::shuffle(&mut sample, &mut stream(seed, "synth-topics-sample", 0));
    sample.truncate((SHARES / (layers * experts)).max(topics));
    sample.sort_unstable();
    let profiles: Vec<Vec<f32>> = sample.par_iter().map(|i| profile(rows[*i], layers, k, experts)).collect();
    let mut r = stream(seed, "synth-topics", 0);
    let mut centres = vec![profiles[below(r.next_u64(), profiles.len() as u64) as usize].clone()];
    let mut nearest: Vec<f32> = profiles.iter().map(|p| distance(p, &centres[0])).collect();
    while centres.len() < topics {
        let total: f32 = nearest.iter().sum();
        let mut left = below(r.next_u64(), 1 << 24) as f32 / (1 << 24) as f32 * total;
        let chosen = nearest.iter().position(|d| {
            left -= d;
            left < 0.0
        });
        let Some(chosen) = chosen else { break };
        let centre = profiles[chosen].clone();
        nearest.iter_mut().zip(&profiles).for_each(|(n, p)| *n = n.min(distance(p, &centre)));
        centres.push(centre);
    }
    let mut of = vec![0; profiles.len()];
    for _ in 0..ROUNDS {
        let now: Vec<usize> = profiles.par_iter().map(|p| closest(p, &centres)).collect();
        if now == of {
            break;
        }
        of = now;
        for (c, centre) in centres.iter_mut().enumerate() {
            let members = of.iter().filter(|t| **t == c).count();
            if members > 0 {
                centre.fill(0.0);
                for (p, _) in profiles.iter().zip(&of).filter(|(_, t)| **t == c) {
                    centre.iter_mut().zip(p).for_each(|(x, p)| *x += p / members as f32);
                }
            }
        }
    }
    (rows.par_iter().map(|r| closest(&profile(r, layers, k, experts), &centres)).collect(), centres.len())
}

fn closest(profile: &[f32], centres: &[Vec<f32>]) -> usize {
    let distances = centres.iter().map(|c| distance(profile, c)).enumerate();
    distances.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |d| d.0)
}

fn profile(rows: &[u16], layers: usize, k: usize, experts: usize) -> Vec<f32> {
    let mut counts = vec![0.0f32; layers * experts];
    for row in rows.chunks_exact(layers * k) {
        for (i, &e) in row.iter().enumerate().filter(|(_, e)| **e != MISSING) {
            counts[i / k * experts + usize::from(e)] += 1.0;
        }
    }
    let tokens = (rows.len() / (layers * k)).max(1) as f32 * k as f32;
    counts.iter().map(|c| (c / tokens).sqrt()).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
