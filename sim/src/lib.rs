//! moesim: a discrete-event simulator of hardware that serves mixture-of-experts language models.
//!
//! * [`experiment`]: what is simulated, in one file.
//! * [`machine`]: the model laid out on the hardware; costs of everything but the experts.
//! * [`calibrated`]: which calibrated kernels a run uses.
//! * [`routing`]: which experts each token selects, revealed layer by layer.
//! * [`serving`]: ranks, batches, KV cache.
//! * [`policy`]: how a layer's experts are executed; [`registry`]: every policy by name.
//! * [`engine`]: operations on resources, advanced by events or in one pass.
//! * [`simulation`]: one run; [`metrics`] and [`output`]: what it reports; [`sweep`]: many runs.
//! * [`explain`]: where the time of one iteration goes.
//! * [`cli`]: the command line.

pub mod calibrated;
pub mod cli;
pub mod engine;
pub mod experiment;
pub mod explain;
#[cfg(test)]
mod keys;
pub mod machine;
pub mod metrics;
pub mod output;
mod paths;
pub mod placing;
pub mod policy;
mod prefetch;
pub mod registry;
pub mod routing;
pub mod serving;
pub mod simulation;
pub mod sweep;
pub mod validate;
