//! The home dies of the wafer-scale study (arXiv 2510.05497, released simulator).

use crate::{Homes, Placement, Problem, everywhere};
use moesim_core::Result;

/// With q = floor(E / D) experts a die, expert e lives on die floor(e / q); those left over on e mod D.
#[derive(Clone, Copy, Debug)]
pub struct HomeDie;

impl Placement for HomeDie {
    fn place(&self, p: &Problem) -> Result<Homes> {
        let each = p.experts / p.groups;
        Ok(everywhere(p, |e| if e < each * p.groups { e / each } else { e % p.groups }))
    }
}
