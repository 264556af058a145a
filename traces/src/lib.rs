//! moesim: traces.
