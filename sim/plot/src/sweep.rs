//! Pictures of a sweep: a metric against one or two of the keys that were varied.

mod draw;
mod keys;
mod table;

pub use draw::sweep_plot;
pub use table::{SweepPoint, SweepTable};
