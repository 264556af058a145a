//! A rate of data, one way.

use super::{Unit, parse_scaled, print_scaled, textual};
use std::fmt;
use std::str::FromStr;

/// Bytes per second, one way.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Bandwidth(f64);

const UNITS: [Unit; 8] = [
    ("PB/s", 1e15),
    ("TB/s", 1e12),
    ("GB/s", 1e9),
    ("MB/s", 1e6),
    ("kB/s", 1e3),
    ("B/s", 1.0),
    ("Tb/s", 1.25e11),
    ("Gb/s", 1.25e8),
];

impl Bandwidth {
    /// From bytes per second; not negative, finite.
    pub const fn from_per_second(bytes: f64) -> Self {
        Self(bytes)
    }
    /// Bytes per second.
    pub const fn per_second(self) -> f64 {
        self.0
    }
}

impl FromStr for Bandwidth {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse_scaled(text, "a bandwidth", "3.35 TB/s", &UNITS).map(Self)
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&print_scaled(self.0, &UNITS[..6]))
    }
}

textual!(Bandwidth, "a bandwidth");
