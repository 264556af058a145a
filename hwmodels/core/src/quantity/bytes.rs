//! An amount of data.

use super::{Unit, parse_scaled, textual};
use std::fmt;
use std::str::FromStr;

/// An amount of data in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

const UNITS: [Unit; 9] = [
    ("TB", 1e12),
    ("TiB", 1_099_511_627_776.0),
    ("GB", 1e9),
    ("GiB", 1_073_741_824.0),
    ("MB", 1e6),
    ("MiB", 1_048_576.0),
    ("kB", 1e3),
    ("KiB", 1024.0),
    ("B", 1.0),
];

impl Bytes {
    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The number of bytes as a floating-point number, for cost formulas.
    pub fn as_f64(self) -> f64 {
        self.0 as f64
    }
    /// In GiB, for people.
    pub fn gib(self) -> f64 {
        self.0 as f64 / 1_073_741_824.0
    }
}

impl FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        // Whole bytes are exact over the full range; everything else goes through f64.
        if let Some(whole) = text.trim().strip_suffix('B').and_then(|t| t.trim().parse::<u64>().ok()) {
            return Ok(Self(whole));
        }
        let value = parse_scaled(text, "a size", "80 GiB", &UNITS)?;
        if value > 9.0e18 {
            return Err(format!("\"{}\" is out of range; a size is below 9 EB, as in \"80 GiB\"", text.trim()));
        }
        Ok(Self(value.round() as u64))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let unit = UNITS.iter().find(|u| self.0 != 0 && self.0.is_multiple_of(u.1 as u64) && self.0 < (1 << 53));
        match unit {
            Some((name, scale)) => write!(f, "{} {name}", self.0 / *scale as u64),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl std::ops::Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        Self(iter.map(|b| b.0).sum())
    }
}

textual!(Bytes, "a size");
