//! From decisions to operations: what the framework and execution policies append with.
//!
//! * [`ops`]: operations of one layer after its gate.
//! * [`picked`]: experts that run together.

pub mod ops;
pub mod picked;

pub use ops::LayerOps;
pub use picked::{Picked, Slots};
