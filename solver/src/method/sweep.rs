//! Layer by layer, each placed as well as can be between its neighbours, forwards and backwards until nothing changes, from random
//! starts: a decomposition of the traffic of tokens that follow their experts.
//!
//! What a layer's experts cost on each group, given the layers before and after, is linear in where they are, so that the best is
//! an assignment of experts to slots, which the Hungarian method finds. Selections are counted; that a flat dispatch sends one copy
//! for several of them is not, nor are the results that are collected inside a layer: the objective decides between starts.

use super::random::Random;
use crate::traffic::{Mode, Traffic};
use crate::{Homes, Needs, Placement, Problem, Solution};
use moesim_core::Result;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Sweep;

/// Random starts, if the clock does not end them.
const STARTS: u64 = 64;

impl Placement for Sweep {
    fn place(&self, p: &Problem) -> Result<Solution> {
        let Some(t) = p.traffic.as_ref().filter(|t| t.mode == Mode::TokenFollows) else {
            return Err(p.refuse("sweep", "is for tokens that follow, and needs rows: set deployment.tokens"));
        };
        if p.redundant > 0 || !p.equal_slots() || !p.pins.is_empty() || p.from.is_some() || p.expert_groups > 0 {
            return Err(p.refuse("sweep", "needs as many slots everywhere, and knows no other limits"));
        }
        let flows: Vec<Vec<f64>> = (0..p.layers - 1).map(|l| flow(p, t, l)).collect();
        let mut best: Option<(f64, Homes)> = None;
        for start in 0..STARTS {
            if best.is_some() && p.over() {
                break;
            }
            let mut homes = Random.place(&Problem { seed: p.seed.wrapping_add(start), ..p.clone() })?.homes;
            settle(p, t, &flows, &mut homes);
            let value = p.value(&homes);
            if best.as_ref().is_none_or(|b| value < b.0) {
                best = Some((value, homes));
            }
        }
        let homes = best.map(|b| b.1).ok_or_else(|| p.refuse("sweep", "found nothing"))?;
        Ok(Solution { cut: p.effort.over(), ..homes.into() })
    }

    fn needs(&self) -> Needs {
        Needs::Rows
    }
}

fn flow(p: &Problem, t: &Traffic, l: usize) -> Vec<f64> {
    let (all, width) = (t.rows.next(l), t.rows.experts());
    (0..p.experts).flat_map(|a| all[a * width..a * width + p.experts].to_vec()).collect()
}

fn settle(p: &Problem, t: &Traffic, flows: &[Vec<f64>], homes: &mut Homes) {
    let order: Vec<usize> = (0..p.layers).chain((0..p.layers.saturating_sub(1)).rev()).collect();
    for _ in 0..100 {
        let mut changed = false;
        for &l in &order {
            changed |= place_layer(p, t, flows, homes, l);
        }
        if !changed {
            return;
        }
    }
}

/// Places a layer between its neighbours; whether that cost less.
fn place_layer(p: &Problem, t: &Traffic, flows: &[Vec<f64>], homes: &mut Homes, l: usize) -> bool {
    let (n, g) = (p.experts, p.groups);
    let leg = |a: usize, b: usize| match (a == b, p.node_of[a] == p.node_of[b]) {
        (true, _) => 0.0,
        (_, true) => t.inside[0],
        _ => t.across[0],
    };
    // What goes to and from each group in the layers beside.
    let mut there = vec![0.0; n * g];
    for (i, e) in (0..n * n).map(|i| (i / n, i % n)) {
        if l > 0 {
            there[e * g + homes[l - 1][i][0] as usize] += flows[l - 1][i * n + e];
        }
        if l + 1 < p.layers {
            there[e * g + homes[l + 1][i][0] as usize] += flows[l][e * n + i];
        }
    }
    let cost = |e: usize, at: usize| (0..g).map(|h| there[e * g + h] * leg(at, h)).sum::<f64>();
    let costs: Vec<f64> = (0..n * g).map(|i| cost(i / g, i % g)).collect();
    let was: f64 = (0..n).map(|e| costs[e * g + homes[l][e][0] as usize]).sum();
    let slots = n / g;
    let of = assign(n, |e, slot| costs[e * g + slot / slots]);
    let now: f64 = (0..n).map(|e| costs[e * g + of[e] / slots]).sum();
    if now >= was * (1.0 - 1e-12) {
        return false;
    }
    (0..n).for_each(|e| homes[l][e] = vec![(of[e] / slots) as u32]);
    true
}

/// The column of each row in the cheapest assignment of n rows to n columns: the Hungarian method, by shortest augmenting paths.
pub(crate) fn assign(n: usize, cost: impl Fn(usize, usize) -> f64) -> Vec<usize> {
    const FREE: usize = usize::MAX;
    let (mut row_price, mut column_price) = (vec![0.0; n], vec![0.0; n]);
    let mut row_of = vec![FREE; n];
    for row in 0..n {
        let (mut least, mut from) = (vec![f64::INFINITY; n], vec![FREE; n]);
        let mut done = vec![false; n];
        let (mut at, mut column) = (row, FREE);
        let mut base = 0.0;
        loop {
            let mut next = FREE;
            for c in (0..n).filter(|&c| !done[c]) {
                let reduced = base + cost(at, c) - row_price[at] - column_price[c];
                if reduced < least[c] {
                    (least[c], from[c]) = (reduced, column);
                }
                if next == FREE || least[c] < least[next] {
                    next = c;
                }
            }
            done[next] = true;
            (base, column) = (least[next], next);
            match row_of[next] {
                FREE => break,
                r => at = r,
            }
        }
        row_price[row] += base;
        for c in (0..n).filter(|&c| done[c]) {
            column_price[c] += least[c] - base;
            if row_of[c] != FREE {
                row_price[row_of[c]] += base - least[c];
            }
        }
        // Back along the path.
        while column != FREE {
            let before = from[column];
            row_of[column] = if before == FREE { row } else { row_of[before] };
            column = before;
        }
    }
    let mut of = vec![0; n];
    row_of.iter().enumerate().for_each(|(c, r)| of[*r] = c);
    of
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn brute(n: usize, cost: &dyn Fn(usize, usize) -> f64, used: u32, row: usize) -> f64 {
        if row == n {
            return 0.0;
        }
        let open = (0..n).filter(|c| used >> c & 1 == 0);
        open.map(|c| cost(row, c) + brute(n, cost, used | 1 << c, row + 1)).fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #[test]
        fn assignments_are_the_cheapest(n in 1usize..7, costs in proptest::collection::vec(0u32..100, 36)) {
            let cost = |r: usize, c: usize| f64::from(costs[r * 6 + c]);
            let of = assign(n, cost);
            let sum: f64 = of.iter().enumerate().map(|(r, c)| cost(r, *c)).sum();
            prop_assert_eq!(sum, brute(n, &cost, 0, 0));
        }
    }
}
