//! Experts dealt out one by one.

use crate::{Homes, Placement, Problem, everywhere};
use moesim_core::Result;

/// Expert e goes to group e mod G.
#[derive(Clone, Copy, Debug)]
pub struct RoundRobin;

impl Placement for RoundRobin {
    fn place(&self, p: &Problem) -> Result<Homes> {
        Ok(everywhere(p, |e| e % p.groups))
    }
}
