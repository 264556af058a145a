//! Longest first, then swaps: replicas for the experts that cost most, dealt out by cost to the group that is done first,
//! then improved step by step as long as the busiest group gets faster.
//!
//! Where weights cost more than tokens, a replica costs more than it spares: a layer takes all redundant ones, half, a quarter or
//! none, whichever is fastest.

use crate::search::{Layer, most_loaded_first, moved};
use crate::{Needs, Placement, Problem, Solution};
use moesim_core::Result;
use rayon::prelude::*;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct LongestFirst;

impl Placement for LongestFirst {
    fn place(&self, p: &Problem) -> Result<Solution> {
        if let Some((from, moves)) = &p.from {
            let homes = moved::improve(p, from, *moves);
            return Ok(Solution { cut: p.effort.over(), ..homes.into() });
        }
        // Layers are independent of each other.
        let layers: Vec<Option<Vec<Vec<u32>>>> = (0..p.layers).into_par_iter().map(|l| layer(p, l)).collect();
        let homes: Option<Vec<_>> = layers.into_iter().collect();
        match homes {
            Some(homes) => Ok(homes.into()),
            None => Err(p.refuse("longest-first", "found no slot for an expert")),
        }
    }
    fn needs(&self) -> Needs {
        Needs::Loads
    }
}

fn layer(p: &Problem, l: usize) -> Option<Vec<Vec<u32>>> {
    let mut best: Option<(f64, Vec<Vec<u32>>)> = None;
    let mut counts = vec![p.redundant, p.redundant / 2, p.redundant / 4, 0];
    counts.dedup();
    for redundant in counts {
        let mut state = Layer::empty(p, l);
        if !state.deal(&most_loaded_first(p, l, redundant)) {
            continue;
        }
        state.improve(p.effort.steps);
        let time = state.time(state.busiest());
        // Of equals the one with the most replicas.
        if best.as_ref().is_none_or(|b| time < b.0 * (1.0 - 1e-12)) {
            best = Some((time, state.homes));
        }
    }
    best.map(|b| b.1)
}
