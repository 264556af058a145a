//! moesim: the simulator.

pub mod engine;
