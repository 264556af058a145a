//! Co-activation clustering: experts that tokens select together share a group, so that fewer copies of a token are sent.
//!
//! A group starts with the expert that most tokens of the sample selected and takes the one that was selected most often
//! together with those it has, until its slots are full. Loads do not count.

use crate::search::{Layer, most_loaded_first};
use crate::{Needs, Placement, Problem, Solution};
use moesim_core::Result;
use rayon::prelude::*;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Cluster;

impl Placement for Cluster {
    fn place(&self, p: &Problem) -> Result<Solution> {
        if p.redundant > 0 || !p.pins.is_empty() || p.expert_groups > 0 {
            return Err(p.refuse("cluster", "has no rule for redundant, pinned or grouped experts"));
        }
        let Some(traffic) = &p.traffic else { return Err(p.refuse("cluster", "needs rows: give it a trace")) };
        let layer = |l: usize| {
            let pairs = traffic.rows.pairs(l);
            let sizes: Vec<usize> = p.slots[l].iter().map(|s| *s as usize).collect();
            let group_of = clusters(&pairs, p.experts, &sizes);
            group_of.into_iter().map(|g| vec![g as u32]).collect()
        };
        Ok((0..p.layers).into_par_iter().map(layer).collect::<Vec<Vec<Vec<u32>>>>().into())
    }
    fn needs(&self) -> Needs {
        Needs::Rows
    }
}

/// The cluster of each of `n` experts, `sizes[c]` at most in each.
pub(crate) fn clusters(pairs: &[f64], n: usize, sizes: &[usize]) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let mut of = vec![NONE; n];
    let mut left = n;
    for (c, &size) in sizes.iter().enumerate() {
        // As even as the sizes allow.
        let share = left.div_ceil(sizes.len() - c).min(size);
        let mut pull: Vec<f64> = (0..n).map(|e| pairs[e * n + e]).collect();
        for i in 0..share {
            let free = (0..n).filter(|&e| of[e] == NONE);
            let Some(e) = free.reduce(|a, b| if pull[b] > pull[a] { b } else { a }) else { break };
            of[e] = c;
            left -= 1;
            if i == 0 {
                pull.fill(0.0);
            }
            (0..n).for_each(|f| pull[f] += pairs[e * n + f]);
        }
    }
    // Where sizes forbade evenness, the rest goes to whoever has room.
    for e in 0..n {
        if of[e] == NONE {
            let room = |c: &usize| of.iter().filter(|x| *x == c).count() < sizes[*c];
            of[e] = (0..sizes.len()).find(room).unwrap_or(0);
        }
    }
    of
}

/// Experts clustered by node, then dealt out inside each by load.
pub(crate) fn by_node(p: &Problem, l: usize, pairs: &[f64]) -> Option<Vec<Vec<u32>>> {
    let nodes = p.nodes();
    let room = |n: usize| (0..p.groups).filter(|&g| p.node_of[g] as usize == n).map(|g| p.slots[l][g] as usize).sum();
    let sizes: Vec<usize> = (0..nodes).map(room).collect();
    let node_of = clusters(pairs, p.experts, &sizes);
    let mut state = Layer::empty(p, l);
    state.node = Some(node_of.into_iter().map(|n| n as u32).collect());
    let dealt = state.deal(&most_loaded_first(p, l, p.redundant));
    if dealt {
        state.improve(p.effort.steps);
    }
    dealt.then_some(state.homes)
}
