//! The home dies of the wafer-scale study (arXiv 2510.05497, released simulator).

use super::fill;
use crate::{Placement, Problem, Solution};
use moesim_core::Result;

/// With q = floor(E / D) experts a die, expert e lives on die floor(e / q); those left over on e mod D.
#[derive(Clone, Copy, Debug)]
pub struct HomeDie;

impl Placement for HomeDie {
    fn place(&self, p: &Problem) -> Result<Solution> {
        if p.redundant > 0 {
            return Err(p.refuse("home-die", "has no rule for redundant experts"));
        }
        let each = p.experts / p.groups;
        let die = |e: usize| if e < each * p.groups { e / each } else { e % p.groups };
        Ok(fill(p, (0..p.experts).map(|e| (e, die(e)))))
    }
}
