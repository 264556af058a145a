//! Longest first, then swaps: replicas for the experts that cost most, dealt out by cost to the group that is done first,
//! then improved step by step as long as the busiest group gets faster.

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
    let mut state = Layer::empty(p, l);
    if !state.deal(&most_loaded_first(p, l)) {
        return None;
    }
    state.improve(p.effort.steps);
    Some(state.homes)
}
