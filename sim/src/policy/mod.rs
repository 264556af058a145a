//! Policies: one trait a seam, one implementation a file, registered by name. They decide, and nothing else.
//!
//! * [`ExecutionPolicy`] appends a layer's operations once its gate is done: [`execution`].
//! * [`residency`]: what devices keep of experts that live elsewhere.
//! * [`settings`]: a policy's name and its own settings; [`report`]: its counters.
//! * [`Dispatch`](crate::network::Dispatch) says what of a token is sent where.
//! * [`Scheduler`](crate::serving::Scheduler) and [`LoadBalancer`](crate::serving::LoadBalancer) form batches and choose
//!   ranks; placement methods are in the crate `moesim-solver`.

pub mod execution;
pub mod report;
pub mod residency;
pub mod settings;
pub mod view;

pub use report::Report;
pub use residency::CacheFraction;
pub use settings::{Choice, Settings};
pub use view::{Future, View};

use crate::lowering::Ops;
use crate::machine::Plan;
use crate::routing::{LayerRouting, SlotMap};
use moesim_core::Result;

/// Executes a layer's routed experts.
///
/// * `lower` is called once a layer and iteration, when all gates of the layer are done; it appends operations that
///   depend (directly or not) on the gate, and moves the frontier of every device with tokens.
/// * Only what is in the view and the routing may influence it; it keeps its own state between calls.
///
/// All experts of a group as one kernel, after the tokens have arrived:
///
/// ```
/// use moesim::lowering::{Ops, Slots};
/// use moesim::policy::{ExecutionPolicy, View};
/// use moesim::routing::LayerRouting;
///
/// struct Together;
///
/// impl ExecutionPolicy for Together {
///     fn lower(&mut self, _: &View, routing: &LayerRouting, ops: &mut Ops) {
///         let arrived = ops.dispatch(routing);
///         ops.shared_experts();
///         for group in 0..routing.groups() {
///             let slots = Slots::From(routing.group_slots(group).start);
///             for device in ops.plan.ranks.group_devices(group) {
///                 ops.experts_on_device(device, slots, routing.group_tokens(group), arrived);
///             }
///         }
///         ops.combine(routing);
///     }
/// }
/// ```
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
        plan.all_resident(placement)
    }
    /// Whether it is an oracle: it asks for [`View::future`], which others do not get, and the summary of its run says
    /// `"oracle": true`.
    fn oracle(&self) -> bool {
        false
    }
    /// Appends the operations of one layer.
    fn lower(&mut self, view: &View, routing: &LayerRouting, ops: &mut Ops);
    /// Names what it counted.
    fn report(&self, _into: &mut Report) {}
}
