//! moesim: solver.
