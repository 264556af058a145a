//! What a run reports.
//!
//! * [`histogram`]: percentiles from log buckets.
//! * [`series`]: time series of a fixed number of bins that double in width.
//! * [`recorder`]: collects during the run; [`summary`]: the file at its end, with `amounts` and `approximations`.
//! * [`rejection`]: requests that can never be served, and why.
//! * [`timeline`]: operations for a viewer of traces.
//! * [`tables`]: rows that stream to disk; `idle_keys`: keys that change nothing, said in the summary.

mod amounts;
mod approximations;
pub mod histogram;
mod idle_keys;
pub mod recorder;
pub mod rejection;
pub mod series;
pub mod summary;
pub mod tables;
pub mod timeline;
