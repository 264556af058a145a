//! Policies that may see routing which no gate has produced yet: bounds to compare real policies with.
//!
//! Only an [`OraclePolicy`] is handed a [`FutureView`], it is registered apart from the others, and the summary of its run
//! says `"oracle": true`.

use super::{CacheReport, ExecutionPolicy, StateView, all_resident};
use crate::lowering::LayerOps;
use crate::machine::Plan;
use crate::routing::{LayerRouting, Replay, SlotMap};
use moesim_core::Result;

/// The routing of the current iteration's MoE layers after the one being lowered. Later iterations are not in it.
#[derive(Clone, Copy, Debug)]
pub struct FutureView<'a> {
    replay: &'a Replay,
    moe_layer: usize,
}

impl<'a> FutureView<'a> {
    /// What lies ahead of `moe_layer`.
    pub(crate) fn new(replay: &'a Replay, moe_layer: usize) -> Self {
        Self { replay, moe_layer }
    }
    /// The MoE layers that lie ahead.
    pub fn layers(&self) -> std::ops::Range<usize> {
        self.moe_layer + 1..self.replay.map().layers()
    }
    /// The routing of `moe_layer`; nothing if it does not lie ahead.
    pub fn routing(&self, moe_layer: usize) -> Option<LayerRouting<'a>> {
        self.layers().contains(&moe_layer).then(|| self.replay.reveal(moe_layer))
    }
}

/// An [`ExecutionPolicy`] that also sees the future; the other methods are as there.
pub trait OraclePolicy: Send {
    /// As [`ExecutionPolicy::check`].
    ///
    /// # Errors
    /// What is missing, and what to choose instead.
    fn check(&self, _plan: &Plan) -> Result<()> {
        Ok(())
    }
    /// As [`ExecutionPolicy::resident_expert_bytes`].
    fn resident_expert_bytes(&self, plan: &Plan, placement: &SlotMap) -> Vec<u64> {
        all_resident(plan, placement)
    }
    /// As [`ExecutionPolicy::lower`], with the routing of the layers that lie ahead.
    fn lower(&mut self, view: &StateView, future: &FutureView, routing: &LayerRouting, ops: &mut LayerOps);
    /// As [`ExecutionPolicy::cache`].
    fn cache(&self) -> Option<CacheReport> {
        None
    }
}

/// The execution policy of a run, of either kind.
pub enum Executing {
    /// It sees what gates have produced.
    Causal(Box<dyn ExecutionPolicy>),
    /// It sees the future too.
    Oracle(Box<dyn OraclePolicy>),
}

impl Executing {
    /// Whether it sees the future.
    pub fn is_oracle(&self) -> bool {
        matches!(self, Self::Oracle(_))
    }
    /// See [`ExecutionPolicy::check`].
    ///
    /// # Errors
    /// What is missing, and what to choose instead.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        match self {
            Self::Causal(p) => p.check(plan),
            Self::Oracle(p) => p.check(plan),
        }
    }
    /// See [`ExecutionPolicy::resident_expert_bytes`].
    pub fn resident_expert_bytes(&self, plan: &Plan, placement: &SlotMap) -> Vec<u64> {
        match self {
            Self::Causal(p) => p.resident_expert_bytes(plan, placement),
            Self::Oracle(p) => p.resident_expert_bytes(plan, placement),
        }
    }
    /// See [`ExecutionPolicy::cache`].
    pub fn cache(&self) -> Option<CacheReport> {
        match self {
            Self::Causal(p) => p.cache(),
            Self::Oracle(p) => p.cache(),
        }
    }
    /// Appends the operations of one layer; `future` goes to oracles only.
    pub(crate) fn lower(&mut self, view: &StateView, future: &FutureView, routing: &LayerRouting, ops: &mut LayerOps) {
        match self {
            Self::Causal(p) => p.lower(view, routing, ops),
            Self::Oracle(p) => p.lower(view, future, routing, ops),
        }
    }
}
