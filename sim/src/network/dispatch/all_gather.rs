//! Every token to every device, and partial sums of every token back from all: an all-gather before the experts and a
//! reduce-scatter behind them, as vLLM exchanges between data-parallel ranks unless told otherwise (its back end
//! `allgather_reducescatter`). Each device computes its experts on all tokens; how many experts a token has makes no difference.
//!
//! Between nodes a token crosses once, to the device with the sender's place, which deals it out inside; partial sums come back the same
//! way, summed inside their node before they cross. So every node receives each token once and sends each sum once, as NCCL's rings over
//! all network cards of a node do.

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

    fn legs(&self, plan: &Plan, _: &LayerRouting, tokens: &[u64], legs: &mut Legs) {
        let topology = &plan.machine.topology;
        let per_node = tokens.len() / topology.nodes();
        for source in (0..tokens.len()).filter(|&s| tokens[s] > 0) {
            let copies = tokens[source].try_into().unwrap_or(u32::MAX);
            let home = topology.node_of(source);
            legs.reserve(tokens.len() + topology.nodes());
            for node in 0..topology.nodes() {
                // Where the source's tokens enter the node: at home they are there.
                let first = node * per_node;
                let entry = if node == home { source } else { first + source % per_node };
                if node != home {
                    legs.out(source, entry, copies);
                }
                let inside = (first..first + per_node).filter(|&d| node == home || d != entry);
                inside.for_each(|device| legs.out(entry, device, copies));
            }
        }
    }
}
