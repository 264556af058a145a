//! Does the command line keep its promises? Everything here goes through the real binary.

#[path = "cli/calibrate.rs"]
mod calibrate;
#[path = "cli/common.rs"]
mod common;
#[path = "cli/determinism.rs"]
mod determinism;
#[path = "cli/explain.rs"]
mod explain;
#[path = "cli/force.rs"]
#[cfg(unix)]
mod force;
#[path = "cli/hostile.rs"]
mod hostile;
#[path = "cli/hostile_files.rs"]
mod hostile_files;
#[path = "cli/importers.rs"]
mod importers;
#[path = "cli/interrupt.rs"]
#[cfg(unix)]
mod interrupt;
#[path = "cli/lru.rs"]
mod lru;
#[path = "cli/machines.rs"]
mod machines;
#[path = "cli/measure.rs"]
mod measure;
#[path = "cli/mechanisms.rs"]
mod mechanisms;
#[path = "cli/model.rs"]
mod model;
#[path = "cli/outputs.rs"]
mod outputs;
#[path = "cli/own_policy.rs"]
mod own_policy;
#[path = "cli/place.rs"]
mod place;
#[path = "cli/real_data.rs"]
mod real_data;
#[path = "cli/replacement.rs"]
mod replacement;
#[path = "cli/routing.rs"]
mod routing;
#[path = "cli/serving.rs"]
mod serving;
#[path = "cli/sweeps.rs"]
mod sweeps;
#[path = "cli/validate.rs"]
mod validate;
