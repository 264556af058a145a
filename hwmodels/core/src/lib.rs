//! What every moesim crate needs.
//!
//! * [`quantity`]: sizes, rates and times with their units; they cannot be mixed up.
//! * [`diag`]: one message that names the file, the place and the cure.
//! * [`config`]: strict TOML into typed structures, overrides, values with an origin.
//! * [`input`]: files that are opened only if they are plain files.
//! * [`rng`]: random streams named by (seed, purpose, entity).
//! * [`output`]: files and folders that appear complete or not at all.

pub mod config;
pub mod diag;
pub mod input;
pub mod output;
pub mod quantity;
pub mod rng;

pub use config::Sourced;
pub use diag::{Diag, Result};
pub use quantity::{Bandwidth, Bytes, FlopRate, Picos};
