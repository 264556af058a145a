//! What a run reports.
//!
//! * [`histogram`]: percentiles from log buckets.
//! * [`series`]: time series of a fixed number of bins that double in width.
//! * [`recorder`]: collects during the run; [`summary`]: the file at its end.
//! * [`rejection`]: requests that can never be served, and why.
//! * [`tables`]: rows that stream to disk.

pub mod histogram;
pub mod recorder;
pub mod rejection;
pub mod series;
pub mod summary;
pub mod tables;
