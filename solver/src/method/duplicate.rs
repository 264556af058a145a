//! Prefill-guided duplication (arXiv 2510.05497 v4, algorithm 2): from the contiguous layout on, as often as there are redundant
//! slots, the copy of an expert on a device that lowers the load of the busiest device most. Tokens of an expert are shared evenly.

use super::contiguous::Contiguous;
use crate::{Needs, Placement, Problem, Solution};
use moesim_core::Result;

/// See the module's documentation. The first of equal copies is taken, also where none lowers the largest load.
#[derive(Clone, Copy, Debug)]
pub struct Duplicate;

impl Placement for Duplicate {
    fn place(&self, p: &Problem) -> Result<Solution> {
        let base = Problem { redundant: 0, ..p.clone() };
        let mut homes = Contiguous.place(&base)?.homes;
        for (l, layer) in homes.iter_mut().enumerate() {
            (0..p.redundant).try_for_each(|_| copy(p, l, layer))?;
            layer.iter_mut().for_each(|on| on.sort_unstable());
        }
        Ok(homes.into())
    }
    fn needs(&self) -> Needs {
        Needs::Loads
    }
}

fn copy(p: &Problem, l: usize, homes: &mut [Vec<u32>]) -> Result<()> {
    let times = p.times(l, homes);
    let mut used = vec![0u32; p.groups];
    homes.iter().flatten().for_each(|&g| used[g as usize] += 1);
    let mut order: Vec<usize> = (0..p.groups).collect();
    order.sort_by(|&a, &b| times[b].total_cmp(&times[a]));
    let mut best: Option<(f64, usize, usize)> = None;
    for (e, on) in homes.iter().enumerate() {
        // Only copies of what is on the busiest group can lower the largest load.
        if !on.contains(&(order[0] as u32)) && best.is_some() {
            continue;
        }
        let (was, now) = (p.cost(l, e, on.len()), p.cost(l, e, on.len() + 1));
        let time = |g: usize| times[g] + if on.contains(&(g as u32)) { (now - was) / p.speed[g] } else { 0.0 };
        // The longest of the others, but for one: the groups in the order of their times are late enough after a few.
        let rest = |h: usize| {
            let mut worst = 0.0f64;
            for &g in order.iter().filter(|g| **g != h) {
                if times[g] <= worst {
                    break;
                }
                worst = worst.max(time(g));
            }
            worst
        };
        for h in (0..p.groups).filter(|&h| used[h] < p.slots[l][h] && !on.contains(&(h as u32))) {
            let value = rest(h).max(times[h] + now / p.speed[h]);
            if best.is_none_or(|b| value < b.0) {
                best = Some((value, e, h));
            }
        }
    }
    let Some((_, e, h)) = best else { return Err(p.refuse("duplicate", "found no free slot")) };
    homes[e].push(h as u32);
    Ok(())
}
