//! One copy of a token for each node with any of its experts, to the device there with the sender's place, which deals it out
//! inside: one copy for each device. The combine comes back the same way, summed on the way. What kernels for throughput
//! move (DeepEP's normal kernels: over the network to the same rail, then over NVLink).
//!
//! Both parts start together: they forward piece by piece, so that what binds is the busier of the two.

use super::{Dispatch, Legs};
use crate::machine::Plan;
use crate::routing::{Counting, LayerRouting};
use moesim_core::{Diag, Result};
use moesim_hwmodels::calibrate::profile::{FormName, Op};

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hierarchical;

fn node(plan: &Plan, group: usize) -> usize {
    plan.machine.topology.node_of(plan.ranks.group_devices(group).start)
}

impl Dispatch for Hierarchical {
    fn check(&self, plan: &Plan) -> Result<()> {
        let topology = &plan.machine.topology;
        let whole = |g: usize| plan.ranks.group_devices(g).all(|d| topology.node_of(d) == node(plan, g));
        if (0..plan.ranks.ep).all(whole) {
            return Ok(());
        }
        Err(Diag::input("an expert group lies on several nodes, and a hierarchical dispatch deals out inside nodes")
            .place("deployment.expert_tp")
            .cure("choose a divisor of the devices of a node, or policy.dispatch = \"flat\""))
    }

    fn counting(&self, plan: &Plan) -> Counting {
        Counting::Nodes { of: (0..plan.ranks.ep).map(|g| node(plan, g) as u32).collect() }
    }

    fn kernels(&self) -> ([Op; 2], &'static [FormName]) {
        ([Op::Dispatch, Op::Combine], &[FormName::Normal])
    }

    fn legs(&self, plan: &Plan, routing: &LayerRouting, tokens: &[u64], legs: &mut Legs) {
        let topology = &plan.machine.topology;
        let (nodes, etp) = (topology.nodes(), plan.ranks.etp);
        let per_node = tokens.len() / nodes;
        for source in (0..tokens.len()).filter(|&s| tokens[s] > 0) {
            let home = topology.node_of(source);
            // Where the source's tokens enter a node: at home they are there.
            let entry = |n: usize| if n == home { source } else { n * per_node + source % per_node };
            legs.reserve(nodes + routing.groups() * etp);
            for (n, &copies) in routing.counted(source).iter().enumerate() {
                if n != home {
                    legs.out(source, entry(n), copies);
                    if etp > 1 {
                        legs.back(entry(n), source, copies);
                    }
                }
            }
            for (group, &copies) in routing.copies(source).iter().enumerate() {
                let entry = entry(node(plan, group));
                plan.ranks.group_devices(group).for_each(|dst| legs.out(entry, dst, copies));
                if etp > 1 {
                    legs.back(group * etp + source % etp, entry, copies);
                }
            }
        }
    }
}
