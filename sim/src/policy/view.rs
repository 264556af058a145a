//! What a policy may know when it decides: nothing that lies ahead of the simulated time, unless it is an oracle.

use crate::routing::{LayerRouting, Replay, Revealed, SlotMap};
use moesim_core::Picos;

/// What a policy may know when it decides.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Simulated time: the end of the layer's last gate.
    pub now: Picos,
    /// Iterations completed before this one.
    pub iterations: u64,
    /// (token, expert) assignments of completed iterations by (MoE layer, slot), layer-major; of a replica that came during the run,
    /// since then.
    pub history: &'a [u64],
    /// Where the experts are; with re-placement, in this iteration.
    pub placement: &'a SlotMap,
    /// Requests in line and running, per attention rank, when the iteration began.
    pub queued: &'a [u32],
    /// Bytes of KV cache in use, per attention rank, when the iteration began.
    pub kv_used: &'a [u64],
    /// Tokens of the iteration, their sequences, and what gates of this layer and of those before it selected for them.
    pub rows: Revealed<'a>,
    pub(crate) future: Option<Future<'a>>,
}

impl<'a> View<'a> {
    /// The layers that lie ahead in this iteration: for oracles (see [`ExecutionPolicy::oracle`](super::ExecutionPolicy::oracle)),
    /// nothing for others.
    pub fn future(&self) -> Option<Future<'a>> {
        self.future
    }
}

/// The routing of the current iteration's MoE layers after the one being lowered. Later iterations are not in it.
#[derive(Clone, Copy, Debug)]
pub struct Future<'a> {
    replay: &'a Replay,
    moe_layer: usize,
}

impl<'a> Future<'a> {
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
