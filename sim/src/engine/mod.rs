//! The event engine: operations with demand vectors on exclusive, shared and capacity resources.
//!
//! * [`queue`]: the pending events, ordered by (time, sequence).
//! * [`resources`]: the three disciplines.
//! * [`graph`]: the operations of one iteration, struct of arrays, appended lazily.
//! * [`des`]: fidelity `op`, every operation granted and completed by events.
//! * `runs`: when operations ran that were paused on the way.
//! * [`phase`]: fidelity `phase`, one linear pass where operations share nothing.
//! * `loops`: the same fidelity where they overlap, components in loops of their own.
//! * [`share`]: max-min rates of operations that draw on the same shared resource.
//! * [`exec`]: chooses between them per block; [`critical`] reads the outcome.

pub mod critical;
pub mod des;
pub mod exec;
pub mod graph;
mod loops;
pub mod phase;
pub mod queue;
pub mod resources;
mod runs;
pub mod share;

pub use exec::{Execution, Executor};
pub use graph::{Bound, Graph, NO_DEVICE, OpId, OpKind, Work};
pub use queue::EventQueue;
pub use resources::{LaneId, Pool, Resources, SharedId};
