//! Bounds by columns: a layer is divided into G groups of s experts, so that the sum over groups of a cost of their members is
//! bounded by the linear program over all sets of s.
//!
//! Its dual gives every expert a price, so that no set's prices add up to more than its cost; the prices of all experts then bound
//! the cost of every division. Prices are found by cutting planes: a small program over the sets seen so far, then the sets that it
//! violates most, found by looking at all of them. Any prices bound, once the worst violation is taken off G times, so that the
//! search may stop at any round.
//!
//! Groups have to be alike and full, and sets few enough to look at: 36,000 of 4 out of 32.

use crate::linear::{LinearProgram, Rule};
use crate::traffic::{MISSING, Rows};
use crate::{Effort, Problem};

/// More sets are not looked at.
const SETS: usize = 100_000;
const ROUNDS: usize = 40;
/// Bounds this close to what the sets seen so far allow are not improved further.
const CLOSE: f64 = 1e-3;

/// Experts of a group, where a layer can be bounded so.
pub(super) fn applies(p: &Problem) -> Option<usize> {
    let s = p.experts / p.groups.max(1);
    let full = p.redundant == 0 && s * p.groups == p.experts && p.slots.iter().flatten().all(|n| *n as usize == s);
    (full && s > 0 && p.groups > 1 && binomial(p.experts, s) <= SETS).then_some(s)
}

fn binomial(n: usize, k: usize) -> usize {
    (0..k).fold(1usize, |b, i| b.saturating_mul(n - i) / (i + 1))
}

/// All sets of `s` out of `n`, one after the other.
fn sets(n: usize, s: usize) -> Vec<u16> {
    let mut all = Vec::with_capacity(binomial(n, s) * s);
    let mut now: Vec<u16> = (0..s as u16).collect();
    loop {
        all.extend_from_slice(&now);
        let Some(i) = (0..s).rev().find(|&i| usize::from(now[i]) < n - s + i) else { return all };
        now[i] += 1;
        (i + 1..s).for_each(|j| now[j] = now[j - 1] + 1);
    }
}

/// Fewest groups that all tokens' experts lie on, summed over tokens: every group counts the tokens with any of its experts.
pub(super) fn fewest_groups(p: &Problem, rows: &Rows, layer: usize) -> Option<f64> {
    let s = applies(p)?;
    let all = sets(p.experts, s);
    // Tokens by their set of experts, as bits.
    if p.experts > 64 {
        return None;
    }
    let mut masks: Vec<u64> = (0..rows.tokens())
        .map(|t| {
            let ids = rows.ids(t, layer).iter().filter(|e| **e != MISSING && usize::from(**e) < p.experts);
            ids.fold(0u64, |m, e| m | 1 << e)
        })
        .filter(|m| *m != 0)
        .collect();
    masks.sort_unstable();
    let costs = touched(&masks, &all, s);
    let mut cuts = Cuts::new(p.experts, 0, costs.iter().copied().fold(0.0, f64::max));
    let mut best = 0.0f64;
    for _ in 0..ROUNDS {
        let (prices, allowed) = cuts.prices()?;
        let slack = |set: &[u16], cost: f64| cost - set.iter().map(|e| prices[usize::from(*e)]).sum::<f64>();
        // Of each expert the set that is violated most.
        let mut worst = vec![(0.0f64, usize::MAX); p.experts];
        for (i, set) in all.chunks_exact(s).enumerate() {
            let v = slack(set, costs[i]);
            if v < -1e-9 {
                for &e in set {
                    if v < worst[usize::from(e)].0 {
                        worst[usize::from(e)] = (v, i);
                    }
                }
            }
        }
        let deepest = worst.iter().map(|w| w.0).fold(0.0, f64::min);
        best = best.max(prices.iter().sum::<f64>() + p.groups as f64 * deepest);
        if best >= allowed * (1.0 - CLOSE) {
            break;
        }
        let mut new: Vec<usize> = worst.iter().map(|w| w.1).filter(|i| *i != usize::MAX).collect();
        new.sort_unstable();
        new.dedup();
        new.iter().for_each(|&i| cuts.add(&all[i * s..(i + 1) * s], &[], costs[i]));
    }
    Some(best)
}

/// Tokens with any expert of each set.
fn touched(masks: &[u64], all: &[u16], s: usize) -> Vec<f64> {
    // Equal ones once, with their number.
    let mut unique: Vec<(u64, u32)> = Vec::new();
    for &m in masks {
        match unique.last_mut() {
            Some((last, n)) if *last == m => *n += 1,
            _ => unique.push((m, 1)),
        }
    }
    // Tokens that miss a set have all their experts outside it: counted by walking the sets with the tokens that are left.
    let count = |set: &[u16]| {
        let bits = set.iter().fold(0u64, |m, e| m | 1 << e);
        unique.iter().filter(|(m, _)| m & bits != 0).map(|u| f64::from(u.1)).sum::<f64>()
    };
    use rayon::prelude::*;
    all.par_chunks_exact(s).map(count).collect()
}

/// The most that can stay where it is between two layers: `flow[a * experts + b]` from expert a of the one to expert b of the
/// next, if both are on the same group.
pub(super) fn most_stays(p: &Problem, flow: &[f64]) -> Option<f64> {
    let (s, n) = (applies(p)?, p.experts);
    let all = sets(n, s);
    let mut cuts = Cuts::new(n, n, 0.0);
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (prices, allowed) = cuts.rents()?;
        let (pi, sigma) = prices.split_at(n);
        let mut worst = vec![(0.0f64, usize::MAX); n];
        let mut partner: Vec<Vec<u16>> = vec![Vec::new(); n];
        let mut gain = vec![0.0; n];
        let mut order: Vec<u16> = Vec::with_capacity(n);
        for (i, set) in all.chunks_exact(s).enumerate() {
            gain.iter_mut().zip(sigma).for_each(|(g, s)| *g = -s);
            for &a in set {
                let from = usize::from(a) * n;
                gain.iter_mut().zip(&flow[from..from + n]).for_each(|(g, f)| *g += f);
            }
            // The s best of the next layer.
            order.clear();
            order.extend(0..n as u16);
            order.select_nth_unstable_by(s - 1, |x, y| gain[usize::from(*y)].total_cmp(&gain[usize::from(*x)]));
            let v = order[..s].iter().map(|b| gain[usize::from(*b)]).sum::<f64>()
                - set.iter().map(|a| pi[usize::from(*a)]).sum::<f64>();
            if v > 1e-9 {
                for &a in set {
                    if v > worst[usize::from(a)].0 {
                        worst[usize::from(a)] = (v, i);
                        partner[usize::from(a)] = order[..s].to_vec();
                    }
                }
            }
        }
        let deepest = worst.iter().map(|w| w.0).fold(0.0, f64::max);
        best = best.min(prices.iter().sum::<f64>() + p.groups as f64 * deepest);
        if best <= allowed * (1.0 + CLOSE) || deepest == 0.0 {
            break;
        }
        for (w, b) in worst.iter().zip(&partner).filter(|(w, _)| w.1 != usize::MAX) {
            let a = &all[w.1 * s..(w.1 + 1) * s];
            let stays: f64 =
                a.iter().flat_map(|a| b.iter().map(move |b| flow[usize::from(*a) * n + usize::from(*b)])).sum();
            cuts.add(a, b, stays);
        }
    }
    best.is_finite().then_some(best)
}

/// The sets seen so far.
struct Cuts {
    experts: usize,
    next: usize,
    /// No price is above the cost of the costliest set.
    most: f64,
    rows: Vec<(Vec<usize>, f64)>,
}

impl Cuts {
    fn new(experts: usize, next: usize, most: f64) -> Self {
        Self { experts, next, most, rows: Vec::new() }
    }

    fn add(&mut self, a: &[u16], b: &[u16], cost: f64) {
        let second = b.iter().map(|e| self.experts + usize::from(*e));
        self.rows.push((a.iter().map(|e| usize::from(*e)).chain(second).collect(), cost));
    }

    /// The most that prices can add up to, none of these sets' above its cost.
    fn prices(&self) -> Option<(Vec<f64>, f64)> {
        if self.rows.is_empty() {
            return Some((vec![self.most; self.experts], f64::INFINITY));
        }
        self.solve(-1.0, self.most, 1.0)
    }

    /// The least that prices can add up to, none of these sets' below what stays in it.
    fn rents(&self) -> Option<(Vec<f64>, f64)> {
        let n = self.experts + self.next;
        if self.rows.is_empty() {
            return Some((vec![0.0; n], 0.0));
        }
        self.solve(1.0, f64::INFINITY, -1.0)
    }

    fn solve(&self, cost: f64, most: f64, sign: f64) -> Option<(Vec<f64>, f64)> {
        // In units of the largest set.
        let unit = self.rows.iter().map(|r| r.1).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let mut m = LinearProgram::default();
        let all: Vec<usize> = (0..self.experts + self.next).map(|_| m.amount(cost, most / unit)).collect();
        for (members, of) in &self.rows {
            m.row(members.iter().map(|v| (all[*v], sign)).collect(), Rule::AtMost, sign * of / unit);
        }
        let found = m.solve(&Effort { steps: 1, until: None, gap: 0.0 }).ok()??;
        let prices: Vec<f64> = found.values.iter().map(|v| v.max(0.0) * unit).collect();
        let sum = prices.iter().sum();
        Some((prices, sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six experts on three groups of two; tokens select neighbours (0, 1), (2, 3), (4, 5), and one selects 1 and 2.
    #[test]
    fn the_bound_is_reached_where_pairs_fit() {
        let tokens = [[0u16, 1], [0, 1], [2, 3], [4, 5], [1, 2]];
        let rows = Rows::new(1, 2, 6, tokens.iter().enumerate().map(|(i, t)| (i as u64, t.to_vec())));
        let p = Problem::even(1, 6, 3);
        let bound = fewest_groups(&p, &rows, 0).unwrap();
        assert!((bound - 6.0).abs() < 0.01, "{bound}");
    }

    /// Four experts on two groups: 0 and 1 go to 2 and 3 of the next layer, 2 and 3 to 0 and 1; all can stay.
    #[test]
    fn everything_stays_where_flows_are_blocks() {
        let mut flow = vec![0.0; 16];
        for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3), (2, 0), (2, 1), (3, 0), (3, 1)] {
            flow[a * 4 + b] = 1.0;
        }
        let p = Problem::even(2, 4, 2);
        let all = most_stays(&p, &flow).unwrap();
        assert!((all - 8.0).abs() < 0.05, "{all}");
        // A flow from one to all: two of four stay.
        let mut flow = vec![0.0; 16];
        flow[..4].fill(1.0);
        let half = most_stays(&p, &flow).unwrap();
        assert!((half - 2.0).abs() < 0.05, "{half}");
    }
}
