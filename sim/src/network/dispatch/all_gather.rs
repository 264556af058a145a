//! Every token to every device, and partial sums of every token back from all: an all-gather before the experts and a
//! reduce-scatter behind them, as vLLM exchanges between data-parallel ranks unless told otherwise (its back end
//! `allgather_reducescatter`). Each device computes its experts on all tokens; how many experts a token has makes no difference.

use super::{Dispatch, Legs};
use crate::machine::Plan;
use crate::routing::LayerRouting;
use moesim_hwmodels::calibrate::profile::{FormName, Op};

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllGather;

impl Dispatch for AllGather {
    fn kernels(&self) -> ([Op; 2], &'static [FormName]) {
        ([Op::AllGather, Op::ReduceScatter], &[FormName::Collective])
    }

    fn everywhere(&self) -> bool {
        true
    }

    fn legs(&self, _: &Plan, _: &LayerRouting, tokens: &[u64], legs: &mut Legs) {
        for source in (0..tokens.len()).filter(|&s| tokens[s] > 0) {
            let copies = tokens[source].try_into().unwrap_or(u32::MAX);
            legs.reserve(tokens.len());
            (0..tokens.len()).for_each(|device| legs.out(source, device, copies));
        }
    }
}
