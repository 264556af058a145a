//! Experts dealt out one by one.

use super::fill;
use crate::{Placement, Problem, Solution};
use moesim_core::Result;

/// Expert e goes to group e mod G; redundant experts, from the first on again, to the group behind.
#[derive(Clone, Copy, Debug)]
pub struct Cyclic;

impl Placement for Cyclic {
    fn place(&self, p: &Problem) -> Result<Solution> {
        Ok(fill(p, (0..p.replicas()).map(|s| (s % p.experts, (s + s / p.experts) % p.groups))))
    }
}
