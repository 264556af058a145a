//! moesim: sim.
