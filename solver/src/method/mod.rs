//! Ways to place, one file each.
//!
//! Without loads: [`contiguous`], [`cyclic`], [`home_die`], [`random`]. For load: [`longest_first`], [`eplb`], [`remap`],
//! [`duplicate`]. For traffic: [`cluster`], [`affinity`], [`sweep`], and [`anneal`] for any objective.

pub mod affinity;
pub mod anneal;
pub mod cluster;
pub mod contiguous;
pub mod cyclic;
pub mod duplicate;
pub mod eplb;
pub mod home_die;
pub mod longest_first;
pub mod random;
pub mod remap;
pub mod sweep;

use crate::{Problem, Solution};

/// Puts (expert, group) pairs in their order, the same in every layer; where a group is full, the pair goes to the next one that
/// is not. A second replica on a group is left out.
fn fill(p: &Problem, pairs: impl Iterator<Item = (usize, usize)> + Clone) -> Solution {
    let layer = |l: usize| {
        let (mut homes, mut used) = (vec![Vec::new(); p.experts], vec![0u32; p.groups]);
        for (e, first) in pairs.clone() {
            let groups = (0..p.groups).map(|i| (first + i) % p.groups);
            if let Some(g) = groups.into_iter().find(|&g| used[g] < p.slots[l][g])
                && !homes[e].contains(&(g as u32))
            {
                homes[e].push(g as u32);
                used[g] += 1;
            }
        }
        homes.iter_mut().for_each(|on: &mut Vec<u32>| on.sort_unstable());
        homes
    };
    (0..p.layers).map(layer).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests;
