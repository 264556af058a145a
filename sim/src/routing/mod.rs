//! Which expert selections a token replays, and their counts per layer, device and expert.
//!
//! * [`binding`]: which sequence of the trace a request replays, and from which row.
//! * [`source`]: the row of a (sequence, position): a pure function, however often it is computed.
//! * [`replay`]: counts of an iteration, revealed layer by layer.

pub mod binding;
pub mod replay;
pub mod source;

pub use binding::{Binder, Binding};
pub use replay::{LayerRouting, Replay, Segment, SlotMap};
pub use source::{Missing, Provenance, Source};
