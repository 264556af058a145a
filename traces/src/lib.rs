//! What is served and what is asked of it: model architectures, expert-selection traces and request arrivals.
//!
//! * [`model`]: architectures as data files, expanded to layers; parameters, bytes and KV per layer.

pub mod model;

pub use model::Model;
