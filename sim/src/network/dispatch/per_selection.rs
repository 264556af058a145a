//! One message for each (token, expert), straight there, and one result back: what kernels for low latency move, which write
//! into the peers' memory without looking who else gets the token (DeepEP's low-latency kernels; CANN's fused ones,
//! CloudMatrix384, arXiv 2506.12708, section 4.2.1).

use super::{Dispatch, Legs, straight};
use crate::machine::Plan;
use crate::routing::{Counting, LayerRouting};
use moesim_hwmodels::calibrate::profile::{FormName, Op};

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerSelection;

impl Dispatch for PerSelection {
    fn counting(&self, _: &Plan) -> Counting {
        Counting::Selections
    }

    fn kernels(&self) -> ([Op; 2], &'static [FormName]) {
        ([Op::Dispatch, Op::Combine], &[FormName::LowLatency, FormName::FusedExchange])
    }

    fn follows(&self) -> bool {
        true
    }

    fn legs(&self, plan: &Plan, routing: &LayerRouting, tokens: &[u64], legs: &mut Legs) {
        straight(plan, routing, tokens, |source| routing.counted(source), legs);
    }
}
