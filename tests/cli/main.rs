//! Does the command line keep its promises? Everything here goes through the real binary.

mod calibrate;
mod common;
mod determinism;
mod explain;
#[cfg(unix)]
mod force;
mod goldens;
mod hostile;
mod hostile_files;
mod importers;
#[cfg(unix)]
mod interrupt;
mod lru;
mod machines;
mod measure;
mod mechanisms;
mod model;
mod outputs;
mod own_policy;
mod place;
mod real_data;
mod replacement;
mod routing;
mod serving;
mod sweeps;
mod validate;
