//! A rate of floating-point (or integer) operations.

use super::{Unit, parse_scaled, print_scaled, textual};
use std::fmt;
use std::str::FromStr;

/// Operations per second; a multiply-add counts two.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct FlopRate(f64);

const UNITS: [Unit; 6] =
    [("PFLOP/s", 1e15), ("TFLOP/s", 1e12), ("GFLOP/s", 1e9), ("FLOP/s", 1.0), ("POP/s", 1e15), ("TOP/s", 1e12)];

impl FlopRate {
    /// From operations per second; not negative, finite.
    pub const fn from_per_second(flop: f64) -> Self {
        Self(flop)
    }
    /// Operations per second.
    pub const fn per_second(self) -> f64 {
        self.0
    }
}

impl FromStr for FlopRate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse_scaled(text, "a compute rate", "989.4 TFLOP/s", &UNITS).map(Self)
    }
}

impl fmt::Display for FlopRate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&print_scaled(self.0, &UNITS[..4]))
    }
}

textual!(FlopRate, "a compute rate");
