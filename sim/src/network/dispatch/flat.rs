//! One copy of a token for each device with any of its experts, straight there; one partial sum back. What an all-to-all with
//! de-duplication per device moves.

use super::{Dispatch, Legs, straight};
use crate::machine::Plan;
use crate::routing::LayerRouting;
use moesim_hwmodels::calibrate::profile::{FormName, Op};

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flat;

impl Dispatch for Flat {
    fn kernels(&self) -> ([Op; 2], &'static [FormName]) {
        ([Op::AllToAll; 2], &[FormName::Collective])
    }

    fn follows(&self) -> bool {
        true
    }

    fn legs(&self, plan: &Plan, routing: &LayerRouting, tokens: &[u64], legs: &mut Legs) {
        straight(plan, routing, tokens, |source| routing.copies(source), legs);
    }
}
