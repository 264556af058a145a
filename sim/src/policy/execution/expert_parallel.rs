//! Expert parallelism: dispatch, grouped GEMM on the experts' devices, combine.
//!
//! Every device of an expert group runs its experts as one grouped GEMM with the real token count of each; the combine
//! waits for all of them, so that the slowest device decides. Shared experts run on the tokens' own device beside the
//! dispatch. Idle ranks take part in the collectives but have nothing to wait for. The same policy serves nodes, fat
//! trees and wafers: only the links that tokens travel differ.

use crate::lowering::{Ops, Slots};
use crate::policy::{ExecutionPolicy, View};
use crate::routing::LayerRouting;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpertParallel;

impl ExecutionPolicy for ExpertParallel {
    fn lower(&mut self, _: &View, routing: &LayerRouting, ops: &mut Ops) {
        let arrived = ops.dispatch(routing);
        ops.shared_experts();
        for group in 0..routing.groups() {
            let slots = Slots::From(routing.group_slots(group).start);
            for device in ops.plan.ranks.group_devices(group) {
                ops.experts_on_device(device, slots, routing.group_tokens(group), arrived);
            }
        }
        ops.combine(routing);
    }
}
