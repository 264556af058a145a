//! Every token to every device, and partial sums of every token back from all: an all-gather before the experts and a
//! reduce-scatter behind them, as vLLM exchanges between data-parallel ranks unless told otherwise (its back end
//! `allgather_reducescatter`). Each device computes its experts on all tokens; how many experts a token has makes no difference.
//!
//! Between nodes, all tokens of a node travel over all network cards of that node in equal parts, whichever devices they are on: one part
//! to each device of the other node, which deals it out inside. Partial sums come back the same way, summed inside their node before
//! they cross. So every node receives each token once and sends each sum once, as NCCL's rings over all network cards of a node do.

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
        let (devices, nodes) = (tokens.len(), topology.nodes());
        let per_node = devices / nodes;
        let of = |node: usize| node * per_node..(node + 1) * per_node;
        // The part of a node's tokens that its card `place` sends: as even as whole tokens allow.
        let part = |node: usize, place: usize| {
            let all: u64 = tokens[of(node)].iter().sum();
            let more = u64::from((place as u64) < all % per_node as u64);
            copies(all / per_node as u64 + more)
        };
        legs.reserve(devices * per_node + nodes * devices + devices * per_node);
        for source in (0..devices).filter(|&s| tokens[s] > 0) {
            let own = of(topology.node_of(source));
            own.for_each(|device| legs.out(source, device, copies(tokens[source])));
        }
        for (node, place) in (0..nodes).flat_map(|node| (0..per_node).map(move |place| (node, place))) {
            let entry = node * per_node + place;
            let mut entered = 0;
            for other in (0..nodes).filter(|&other| other != node) {
                let copies = part(other, place);
                legs.out(other * per_node + place, entry, copies);
                entered += copies;
            }
            of(node).filter(|&device| device != entry).for_each(|device| legs.out(entry, device, entered));
        }
    }
}

fn copies(tokens: u64) -> u32 {
    tokens.try_into().unwrap_or(u32::MAX)
}
