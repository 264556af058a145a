//! What is served and what is asked of it: model architectures, expert-selection traces and request arrivals.
//!
//! * [`model`]: architectures as data files, expanded to layers; parameters, bytes and KV per layer.
//! * [`trace`]: the container of expert-selection traces.
//! * [`mod@import`], [`export`]: other tools' forms of a trace.
//! * [`counts`]: other tools' counts, which are no trace.
//! * [`edit`]: slices of a trace, and traces merged.
//! * [`stats`]: what a trace is like.
//! * [`synth`]: a synthetic source of traces.
//! * [`arrivals`]: when requests come, and how long they are.
//! * [`arrays`]: whole numbers out of other tools' arrays.

pub mod arrays;
pub mod arrivals;
pub mod counts;
mod csv_lines;
pub mod edit;
pub mod export;
pub mod import;
mod json;
mod map;
pub mod model;
mod npy;
mod numbers;
pub mod stats;
pub mod synth;
mod text;
mod torch;
pub mod trace;

pub use arrivals::{ArrivalSpec, Arrivals, Request};
pub use model::Model;
pub use trace::{Meta, OwnedSequence, Sequence, Trace};
