//! Experts on the side that their arithmetic intensity favours: the device's cores or the PIM units under its memory
//! (Duplex, arXiv 2409.01141, section V, without its co-processing search).
//!
//! An expert with few tokens is bound by memory and goes to the PIM units, whose bandwidth is higher; one with many
//! tokens is bound by compute and stays on the cores. The side is the one on which the expert's own roofline term,
//! max(compute, memory), is shorter; ties stay on the cores. Both sides run at the same time, each with its experts in
//! one grouped GEMM. Approximations: attention always runs on the cores (Duplex moves decode attention to PIM), and
//! conflicts between the two sides over a memory region are not modelled.

use crate::lowering::{Ops, Picked, Slots};
use crate::machine::Plan;
use crate::policy::{ExecutionPolicy, View};
use crate::routing::LayerRouting;
use moesim_core::{Diag, Result};

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct PimSplit {
    cores: Picked,
    pim: Picked,
}

impl ExecutionPolicy for PimSplit {
    fn check(&self, plan: &Plan) -> Result<()> {
        if plan.machine.pim.is_some() {
            return Ok(());
        }
        Err(Diag::input(format!("policy pim-split needs PIM units, and {} has none", plan.machine.hardware.name))
            .place("policy.execution")
            .cure("choose hardware with a device.pim table, for example duplex-1"))
    }

    fn lower(&mut self, _: &View, routing: &LayerRouting, ops: &mut Ops) {
        let plan = ops.plan;
        let pim = plan.machine.pim.as_ref().expect("checked before the run");
        let arrived = ops.dispatch(routing);
        ops.shared_experts();
        for group in 0..routing.groups() {
            self.cores.clear();
            self.pim.clear();
            for (slot, &tokens) in routing.group_slots(group).zip(routing.group_tokens(group)) {
                if tokens == 0 {
                    continue;
                }
                let body = |c: moesim_hwmodels::cost::Cost| c.time_s() - c.launch_s;
                let on_cores = body(ops.expert_cost(&plan.machine.gpu, Slots::From(slot), &[tokens]));
                let on_pim = body(ops.expert_cost(pim, Slots::From(slot), &[tokens]));
                let side = if on_pim < on_cores { &mut self.pim } else { &mut self.cores };
                side.push(slot, tokens);
            }
            for device in plan.ranks.group_devices(group) {
                ops.experts_on_device(device, self.cores.slots(), &self.cores.tokens, arrived);
                if !self.pim.tokens.is_empty() {
                    let cost = ops.expert_cost(pim, self.pim.slots(), &self.pim.tokens);
                    let (lane, channel) = (plan.machine.pim_lane[device], plan.machine.pim_memory[device]);
                    ops.experts_on(device, cost, lane, channel, arrived);
                }
            }
        }
        ops.combine(routing);
    }
}
