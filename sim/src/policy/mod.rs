//! Policies: one trait a seam, one implementation a file, registered by name.
//!
//! * [`ExecutionPolicy`] appends a layer's operations once its gate is done: [`execution`].
//! * [`residency`]: what devices keep of experts that live elsewhere.
//! * [`Dispatch`](crate::network::Dispatch) says what of a token is sent where.
//! * [`OraclePolicy`] is an execution policy that sees the layers that lie ahead.
//! * [`Scheduler`](crate::serving::Scheduler) and [`LoadBalancer`](crate::serving::LoadBalancer) form batches and choose
//!   ranks; placement methods are in the crate `moesim-solver`.

pub mod execution;
pub mod residency;
pub mod view;

pub use residency::CacheFraction;
pub use view::{Executing, FutureView, OraclePolicy};

use crate::lowering::LayerOps;
use crate::machine::Plan;
use crate::replacement::Replacement;
use crate::routing::{LayerRouting, SlotMap};
use moesim_core::{Picos, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which policies a run uses, by name, and their settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policies {
    /// How a layer's experts are executed.
    pub execution: String,
    /// How tokens travel to their experts and back.
    pub dispatch: String,
    /// How batches are formed.
    pub scheduler: String,
    /// Which rank a request goes to.
    pub load_balancer: String,
    /// Where experts live: a method by name, or a file with a placement, relative to the experiment's: our own, or what a serving
    /// engine loads.
    pub placement: String,
    /// `on-demand`, `on-demand-belady`: device memory for cached experts, as a fraction of all experts of its groups, or `auto`:
    /// what memory is left.
    pub cache_fraction: CacheFraction,
    /// Experts that move while the run serves; without it they stay where `placement` puts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Replacement>,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            execution: "expert-parallel".into(),
            dispatch: "flat".into(),
            scheduler: "chunked-prefill".into(),
            load_balancer: "least-loaded".into(),
            placement: "contiguous".into(),
            cache_fraction: CacheFraction::Auto,
            replacement: None,
        }
    }
}

/// What a policy may know when it decides: nothing that lies ahead of the simulated time.
#[derive(Clone, Copy, Debug)]
pub struct StateView<'a> {
    /// Simulated time: the end of the layer's last gate.
    pub now: Picos,
    /// Iterations completed before this one.
    pub iterations: u64,
    /// (token, expert) assignments of completed iterations by (MoE layer, slot), layer-major; of a replica that came during the run,
    /// since then.
    pub history: &'a [u64],
    /// Where the experts are; with re-placement, in this iteration.
    pub placement: &'a SlotMap,
    /// Requests in line and running, per attention rank.
    pub queued: &'a [u32],
    /// Bytes of KV cache in use, per attention rank.
    pub kv_used: &'a [u64],
}

/// Executes a layer's routed experts.
///
/// * `lower` is called once a layer and iteration, when all gates of the layer are done; it appends operations that
///   depend (directly or not) on the gate, and moves the frontier of every device with tokens.
/// * Only what is in the view and the routing may influence it; it keeps its own state between calls.
pub trait ExecutionPolicy: Send {
    /// Refuses machines and deployments that it cannot run on.
    ///
    /// # Errors
    /// What is missing, and what to choose instead.
    fn check(&self, _plan: &Plan) -> Result<()> {
        Ok(())
    }
    /// Bytes of routed experts that each device keeps in its memory, staging buffers included.
    fn resident_expert_bytes(&self, plan: &Plan, placement: &SlotMap) -> Vec<u64> {
        all_resident(plan, placement)
    }
    /// Appends the operations of one layer.
    fn lower(&mut self, view: &StateView, routing: &LayerRouting, ops: &mut LayerOps);
    /// What its cache did, if it has one.
    fn cache(&self) -> Option<CacheReport> {
        None
    }
}

/// What an expert cache did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheReport {
    /// Activated experts found in device memory, counted once a layer and iteration.
    pub hits: u64,
    /// Activated experts loaded.
    pub loads: u64,
    /// Bytes loaded.
    pub bytes: u64,
    /// Bytes of experts that the fullest cache of a device can hold.
    pub capacity: u64,
    /// Loads ahead of need.
    pub prefetches: u64,
    /// Of these, used before eviction.
    pub prefetches_used: u64,
}

/// Every expert on the devices of its groups.
pub fn all_resident(plan: &Plan, placement: &SlotMap) -> Vec<u64> {
    let mut bytes = vec![0; plan.ranks.devices()];
    for layer in 0..plan.moe_layers.len() {
        for group in 0..placement.groups() {
            let slots = placement.group_slots(layer, group);
            let held: u64 = slots.map(|s| plan.expert_bytes(layer, placement.expert(layer, s))).sum();
            for device in plan.ranks.group_devices(group) {
                bytes[device] += held;
            }
        }
    }
    bytes
}
