//! Which expert selections a token replays, and their counts per layer, device and expert.
//!
//! * [`spec`]: what an experiment says of it.
//! * [`binding`]: which sequence of the trace a request replays, and from which row.
//! * [`source`]: the row of a (sequence, position): a pure function, however often it is computed.
//! * [`slot_map`]: where the experts are.
//! * [`replay`]: counts of an iteration, revealed layer by layer.
//! * [`revealed`]: rows of an iteration, as far as its gates have spoken.
//! * [`cache`]: drawn routing, kept for the next run.

pub mod binding;
pub mod cache;
mod counts;
mod padded;
pub mod replay;
pub mod revealed;
mod shipped;
pub mod slot_map;
pub mod source;
pub mod spec;

pub use binding::{Binder, Binding};
pub use cache::{Cache, Opened, Origin};
pub use replay::{LayerRouting, MISSING, Replay, Segment, Selections};
pub use revealed::{Revealed, Token};
pub use slot_map::{Capacity, Counting, LayerShape, SlotMap};
pub use source::{Missing, Provenance, Source};
pub use spec::{Routing, Wanted};

#[cfg(test)]
mod tests;
