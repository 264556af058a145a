//! What a run reports.
//!
//! * [`recorder`]: collects during the run, iteration by iteration ([`Outcome`]).
//! * [`histogram`]: percentiles from log buckets; [`series`]: time series of a fixed number of bins that double in width.
//! * [`ended`]: a run that is over, as its outputs read it; [`summary`]: the file at its end, with `amounts`, `approximations` and `basis`.
//! * [`rejection`]: requests that can never be served, and why.
//! * [`tables`]: rows that stream to disk; [`timeline`]: operations for a viewer of traces; `idle_keys`: keys that change
//!   nothing, said in the summary.

mod amounts;
mod approximations;
mod basis;
pub mod ended;
pub mod histogram;
mod idle_keys;
pub mod outcome;
pub mod recorder;
pub mod rejection;
pub mod series;
pub mod summary;
pub mod tables;
pub mod timeline;

pub use ended::Ended;
pub use outcome::Outcome;
pub use recorder::{Recorder, Totals};
pub use summary::Summary;
