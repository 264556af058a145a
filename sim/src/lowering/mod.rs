//! From decisions to operations: what the framework and execution policies append with.
//!
//! * [`Lowering`]: the parts that every operation is appended with.
//! * [`ops`]: operations of one MoE layer after its gate, for execution policies.
//! * [`picked`]: experts that run together.

pub mod ops;
pub mod picked;

pub use ops::Ops;
pub use picked::{Picked, Slots};

use crate::engine::{Graph, OpId, OpKind, Work};
use crate::machine::{Plan, work};
use crate::network::Network;
use moesim_hwmodels::cost::Cost;

/// What the operations of an iteration are appended with.
pub(crate) struct Lowering<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) graph: &'a mut Graph,
    pub(crate) network: &'a mut Network,
}

/// A cost on the clock with the bytes that it draws from device memory.
#[derive(Clone, Copy)]
pub(crate) struct Priced {
    work: Work,
    bytes: u64,
}

impl Priced {
    /// On a device of `plan`, whose memories are all alike.
    pub(crate) fn new(plan: &Plan, cost: Cost) -> Self {
        Self { work: work(cost), bytes: plan.machine.drawn(plan.machine.memory[0], &cost) }
    }
}

impl Lowering<'_> {
    /// Appends an operation on the cores of device `d`.
    pub(crate) fn on_device(&mut self, kind: OpKind, layer: usize, d: usize, cost: Priced, after: OpId) -> OpId {
        let m = &self.plan.machine;
        let op = self.graph.op(kind, layer as u16, d as u32, cost.work).after(&[after]);
        op.hold(m.compute[d]).draw(m.memory[d], cost.bytes).id()
    }
}

#[cfg(test)]
mod tests;
