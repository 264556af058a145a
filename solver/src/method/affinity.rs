//! Affinity from node to device: experts that tokens select together share a node, because copies between nodes cost most;
//! inside a node, longest first with swaps.

use super::cluster::by_node;
use crate::{Needs, Placement, Problem, Solution};
use moesim_core::Result;
use rayon::prelude::*;

/// See the module's documentation. Redundant replicas stay in their expert's node.
#[derive(Clone, Copy, Debug)]
pub struct Affinity;

impl Placement for Affinity {
    fn place(&self, p: &Problem) -> Result<Solution> {
        if p.expert_groups > 0 || !p.pins.is_empty() {
            return Err(p.refuse("affinity", "has no rule for pinned or grouped experts"));
        }
        let Some(traffic) = &p.traffic else { return Err(p.refuse("affinity", "needs rows: give it a trace")) };
        let layer = |l: usize| by_node(p, l, &traffic.rows.pairs(l));
        let homes: Option<Vec<_>> = (0..p.layers).into_par_iter().map(layer).collect();
        homes.map(Solution::from).ok_or_else(|| p.refuse("affinity", "found no slot for an expert"))
    }
    fn needs(&self) -> Needs {
        Needs::Rows
    }
}
