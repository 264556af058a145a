//! The load of the busiest group, bounded from below.
//!
//! A time T is refuted if no choice of replicas passes all of these necessary conditions:
//! * every replica costs at most T on the fastest group;
//! * all replicas together number at most E + R, and cost at most T times the sum of speeds;
//! * of replicas that cost more than half of T on the fastest group, each has a group of its own; likewise no group holds more
//!   than j of those that cost more than T / (j + 1);
//! * with two slots a group, who costs more than T - a shares a group with none that costs more than a.
//!
//! The last condition counts slots: a replica of the class (T / (j + 1), T / j] takes 1 / j of a group that holds only such
//! ones, and if all slots have to be filled, a group of s slots has s.

use crate::Problem;
use rayon::prelude::*;

/// No placement's load is less, summed over layers.
pub fn load(p: &Problem) -> f64 {
    (0..p.layers).into_par_iter().map(|l| layer_load(p, l)).collect::<Vec<f64>>().into_iter().sum()
}

/// No placement's busiest group of layer `l` takes less.
pub fn layer_load(p: &Problem, l: usize) -> f64 {
    let most = (0..p.experts).map(|e| p.cost(l, e, 1)).sum::<f64>();
    let slowest = p.speed.iter().copied().fold(f64::INFINITY, f64::min);
    let (mut refuted, mut open) = (0.0, most / slowest);
    if open == 0.0 {
        return 0.0;
    }
    // Bisection: what is refuted at T is refuted below.
    for _ in 0..50 {
        let middle = 0.5 * (refuted + open);
        if refutes(p, l, middle) {
            refuted = middle
        } else {
            open = middle
        }
        if open - refuted <= 1e-9 * open {
            break;
        }
    }
    refuted
}

/// Whether no placement of layer `l` takes at most `t`.
fn refutes(p: &Problem, l: usize, t: f64) -> bool {
    let fastest = p.speed.iter().copied().fold(0.0, f64::max);
    let cap = t * fastest;
    // Fewest replicas that fit, and what all replicas of an expert cost at least: by as many as that, or by more where the
    // curve is such that sharing is cheaper in sum, which no curve of a kernel is.
    let (mut replicas, mut cost) = (0usize, 0.0);
    let mut fewest = Vec::with_capacity(p.experts);
    for e in 0..p.experts {
        let Some(n) = fewest_replicas(p, l, e, cap) else { return true };
        replicas += n;
        cost += cheapest(p, l, e, n);
        fewest.push(n);
        if replicas > p.replicas() {
            return true;
        }
    }
    let speeds: f64 = p.speed.iter().sum();
    if cost > t * speeds * (1.0 + 1e-12) {
        return true;
    }
    // As equal as groups are, classes by size; with different speeds the fastest stands for all, which refutes less.
    crowded(p, l, cap, &fewest) || unpaired(p, l, cap, &fewest)
}

/// Thresholds at which pairs are looked at, up to half of the time.
const THRESHOLDS: usize = 64;

/// Whether groups of two slots cannot be filled with pairs that keep `cap`.
///
/// For any a up to half of it: a replica of more than `cap` - a shares its group with none of more than a. Counting it as two, and
/// those between as one, all groups hold two each. An expert may take more replicas, so that each is smaller, as long as there are
/// spare ones: where they lower the count most, fractions allowed.
fn unpaired(p: &Problem, l: usize, cap: f64, fewest: &[usize]) -> bool {
    if p.slots[l].iter().any(|s| *s > 2) {
        return false;
    }
    let spare = p.replicas() - fewest.iter().sum::<usize>();
    (0..=THRESHOLDS).any(|i| {
        let a = 0.5 * cap * i as f64 / THRESHOLDS as f64;
        let weight = |e: usize, n: usize| {
            let cost = p.cost(l, e, n);
            // Rounding never adds to a count.
            let each = usize::from(cost > a * (1.0 + 1e-12)) + usize::from(cost > (cap - a) * (1.0 + 1e-12));
            (n * each) as f64
        };
        let mut all = 0.0;
        let mut lower: Vec<(f64, f64)> = Vec::new();
        for (e, &n) in fewest.iter().enumerate() {
            let now = weight(e, n);
            all += now;
            // The most that one spare replica lowers the count by, and the most that any number of them does.
            let (mut rate, mut total) = (0.0f64, 0.0f64);
            for more in 1..=spare.min(p.groups - n) {
                let gain = now - weight(e, n + more);
                (rate, total) = (rate.max(gain / more as f64), total.max(gain));
            }
            if total > 0.0 {
                lower.push((rate, total));
            }
        }
        lower.sort_by(|x, y| y.0.total_cmp(&x.0));
        let mut left = spare as f64;
        for (rate, total) in lower {
            let used = (total / rate).min(left);
            all -= rate * used;
            left -= used;
        }
        all > 2.0 * p.groups as f64 + 1e-9
    })
}

/// Fewest replicas of which each costs at most `cap`.
fn fewest_replicas(p: &Problem, l: usize, e: usize, cap: f64) -> Option<usize> {
    if p.cost(l, e, 1) <= cap {
        return Some(1);
    }
    let most = p.groups;
    if p.cost(l, e, most) > cap {
        return None;
    }
    let (mut too_few, mut enough) = (1, most);
    while enough - too_few > 1 {
        let n = (too_few + enough) / 2;
        if p.cost(l, e, n) <= cap { enough = n } else { too_few = n }
    }
    Some(enough)
}

/// What `n` replicas or more cost in sum, at least.
fn cheapest(p: &Problem, l: usize, e: usize, n: usize) -> f64 {
    // No more than all redundant ones go to one expert.
    (n..=p.groups.min(p.redundant + 1).max(n)).map(|n| n as f64 * p.cost(l, e, n)).fold(f64::INFINITY, f64::min)
}

/// Whether large replicas find no groups of their own, however many replicas each expert gets.
///
/// A group that holds a replica of more than T / 2 holds no second one; its other slots hold what is left of T. With s slots a
/// group and all of them filled, it needs s - 1 small ones, which have to exist. Sorted by size, j-th largest replicas meet
/// this: the k largest of all replicas, k > G (j - 1), put j of them into one group, so that j times the k-th largest is at
/// most T. Replicas are chosen so that this is as easy as can be: an expert whose share is too large takes another replica.
fn crowded(p: &Problem, l: usize, cap: f64, fewest: &[usize]) -> bool {
    let slots = p.slots[l].iter().copied().max().unwrap_or(0) as usize;
    for j in 2..=slots {
        // At most G (j - 1) replicas may cost more than T / j, give or take rounding.
        let small = cap / j as f64;
        let (mut large, mut spare) = (0usize, p.replicas() - fewest.iter().sum::<usize>());
        let mut mended: Vec<(usize, usize)> = Vec::new();
        for (e, &n) in fewest.iter().enumerate() {
            if p.cost(l, e, n) > small * (1.0 + 1e-12) {
                large += n;
                // How many more replicas make all of them small, for n fewer large ones.
                let more = fewest_replicas(p, l, e, small).map_or(usize::MAX, |m| m - n);
                mended.push((more, n));
            }
        }
        let allowed = p.groups * (j - 1);
        if large <= allowed {
            continue;
        }
        // Spare replicas make as many large ones small as they can: by their number for each, fractions allowed.
        mended.retain(|m| m.0 != usize::MAX);
        mended.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)));
        let mut excess = (large - allowed) as f64;
        for (more, n) in mended {
            if more <= spare {
                spare -= more;
                excess -= n as f64;
            } else {
                excess -= n as f64 * spare as f64 / more as f64;
                break;
            }
        }
        if excess > 1e-9 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(loads: &[f64], groups: usize, more: usize) -> Problem {
        let mut p = Problem::even(1, loads.len(), groups).with_redundant(more);
        p.tokens = loads.to_vec();
        p
    }

    #[test]
    fn bounds_by_hand() {
        // The mean.
        assert!((load(&layer(&[1.0, 1.0, 1.0, 1.0], 2, 0)) - 2.0).abs() < 1e-6);
        // The hottest expert, whole or halved.
        assert!((load(&layer(&[10.0, 1.0], 2, 0)) - 10.0).abs() < 1e-6);
        // It shares its group, as all slots are needed: 11, found up to the thresholds.
        let shared = load(&layer(&[10.0, 1.0, 1.0, 1.0], 2, 0));
        assert!(shared > 10.9 && shared <= 11.0 + 1e-6, "{shared}");
        assert!((load(&layer(&[10.0, 1.0], 3, 1)) - 5.0).abs() < 1e-6);
        // Five of 3 on four groups: two share one.
        assert!((load(&layer(&[3.0, 3.0, 3.0, 3.0, 3.0], 4, 0)) - 6.0).abs() < 1e-6);
        assert_eq!(load(&layer(&[0.0, 0.0], 2, 0)), 0.0);
    }

    /// Two slots a group: the largest two are alone, the others are paired, the third with the smallest.
    #[test]
    fn pairs_are_folded() {
        // 8 + 5 or 7 + 6: 13.
        let bound = load(&layer(&[10.0, 9.0, 8.0, 7.0, 6.0, 5.0], 4, 0));
        assert!(bound > 12.6 && bound <= 13.0 + 1e-6, "{bound}");
    }

    #[test]
    fn faster_groups_count_for_more() {
        let mut p = layer(&[2.0, 2.0, 2.0, 2.0], 2, 0);
        (p.speed, p.slots) = (vec![3.0, 1.0], vec![vec![3, 1]]);
        assert!((load(&p) - 2.0).abs() < 1e-6);
    }
}
