//! Blocks of consecutive experts, the first groups one larger where they do not divide. Redundant experts follow behind the
//! last expert, from the first on again: what vLLM and SGLang start with.

use super::fill;
use crate::{Placement, Problem, Solution};
use moesim_core::Result;

/// Slot s of S goes to group floor(s G / S) and holds expert s mod E.
#[derive(Clone, Copy, Debug)]
pub struct Contiguous;

impl Placement for Contiguous {
    fn place(&self, p: &Problem) -> Result<Solution> {
        let all = p.replicas();
        Ok(fill(p, (0..all).map(|s| (s % p.experts, s * p.groups / all))))
    }
}
