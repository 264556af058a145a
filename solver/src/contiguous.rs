//! Blocks of consecutive experts, the first groups one larger where they do not divide.

use crate::{Homes, Placement, Problem, everywhere};
use moesim_core::Result;

/// Expert e of E goes to group floor(e G / E).
#[derive(Clone, Copy, Debug)]
pub struct Contiguous;

impl Placement for Contiguous {
    fn place(&self, p: &Problem) -> Result<Homes> {
        Ok(everywhere(p, |e| e * p.groups / p.experts))
    }
}
