//! moesim: a discrete-event simulator of hardware that serves mixture-of-experts language models.
//!
//! * [`experiment`]: what is simulated, in one file.
//! * [`machine`]: the model laid out on the hardware; costs of everything but the experts.
//! * [`costs`]: which calibrated kernels a run uses; [`framework`]: which of them a serving engine runs.
//! * [`routing`]: which experts each token selects, revealed layer by layer.
//! * [`serving`]: ranks, batches, KV cache.
//! * [`network`]: collectives, and how tokens travel to their experts.
//! * [`lowering`]: what a layer's operations are appended with.
//! * [`policy`]: how a layer's experts are executed; [`registry`]: every policy by name.
//! * [`replacement`]: experts that move while a run serves; [`placing`]: where they are at its start.
//! * [`engine`]: operations on resources, advanced by events or in one pass.
//! * [`simulation`]: one run; [`metrics`] and [`output`]: what it reports; [`sweep`]: many runs.
//! * [`explain`]: where the time of one iteration goes.
//! * [`cli`]: the command line.

mod cache_line;
pub mod cli;
pub mod costs;
pub mod engine;
pub mod experiment;
pub mod explain;
pub mod framework;
#[cfg(test)]
mod keys;
pub mod lowering;
pub mod machine;
pub mod metrics;
pub mod network;
pub mod output;
mod paths;
pub mod placing;
pub mod policy;
pub mod registry;
pub mod replacement;
pub mod routing;
pub mod serving;
pub mod simulation;
pub mod sweep;
pub mod validate;

/// What a user's own crate needs of the crates below.
pub use moesim_core::{Diag, Picos, Result, rng};
pub use moesim_solver as solver;
