//! Prefill-guided remap (arXiv 2510.05497 v4, algorithm 2): experts by descending cost of the loads that a prefill showed, each
//! to the least loaded device that has room for another. No replicas, and no search after it.

use crate::search::Layer;
use crate::{Needs, Placement, Problem, Solution};
use moesim_core::Result;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Remap;

impl Placement for Remap {
    fn place(&self, p: &Problem) -> Result<Solution> {
        if p.redundant > 0 {
            return Err(p.refuse("remap", "has no rule for redundant experts: duplicate has one"));
        }
        let layer = |l: usize| {
            let mut state = Layer::empty(p, l);
            if state.deal(&vec![1; p.experts]) { Ok(state.homes) } else { Err(p.refuse("remap", "found no slot")) }
        };
        Ok((0..p.layers).map(layer).collect::<Result<Vec<_>>>()?.into())
    }
    fn needs(&self) -> Needs {
        Needs::Loads
    }
}
