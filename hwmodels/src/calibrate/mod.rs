//! Calibration: constants of cost forms from measured times.

pub mod solve;
