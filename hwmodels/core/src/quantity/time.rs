//! Simulated time.

use super::{Unit, parse_scaled, textual};
use std::fmt;
use std::str::FromStr;

/// Simulated time, or a span of it, in integer picoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Picos(pub u64);

const UNITS: [Unit; 9] = [
    ("h", 3.6e15),
    ("min", 6e13),
    ("s", 1e12),
    ("ms", 1e9),
    ("us", 1e6),
    ("µs", 1e6),
    ("μs", 1e6),
    ("ns", 1e3),
    ("ps", 1.0),
];

impl Picos {
    /// The start of time, and the empty span.
    pub const ZERO: Self = Self(0);
    /// Later than every event.
    pub const MAX: Self = Self(u64::MAX);

    /// Rounds a time in seconds to the nearest picosecond: the one place where costs enter the clock.
    /// What is not finite or exceeds the clock (213 days) saturates.
    pub fn from_seconds(seconds: f64) -> Self {
        // Adding a half and cutting off: no call into the mathematics library, and exact below an hour.
        Self((seconds * 1e12 + 0.5) as u64)
    }
    /// Rounds up, for transfers whose rate changed.
    pub fn from_seconds_up(seconds: f64) -> Self {
        Self((seconds * 1e12).ceil() as u64)
    }
    /// In seconds.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e12
    }
    /// In milliseconds.
    pub fn millis(self) -> f64 {
        self.0 as f64 / 1e9
    }
    /// In microseconds.
    pub fn micros(self) -> f64 {
        self.0 as f64 / 1e6
    }
    /// The span since `earlier`, zero if that is later.
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl FromStr for Picos {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(whole) = text.trim().strip_suffix("ps").and_then(|t| t.trim().parse::<u64>().ok()) {
            return Ok(Self(whole));
        }
        let value = parse_scaled(text, "a time", "200 ns", &UNITS)?;
        if value > 1.8e19 {
            return Err(format!("\"{}\" is out of range; a time is below 213 days, as in \"200 ns\"", text.trim()));
        }
        Ok(Self(value.round() as u64))
    }
}

impl fmt::Display for Picos {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let unit = UNITS[2..].iter().find(|u| self.0 != 0 && self.0.is_multiple_of(u.1 as u64) && self.0 < (1 << 53));
        match unit {
            Some((name, scale)) => write!(f, "{} {name}", self.0 / *scale as u64),
            None => write!(f, "{} ps", self.0),
        }
    }
}

/// Stays at the end of the clock instead of starting over; what runs checks that it is not there.
impl std::ops::Add for Picos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::AddAssign for Picos {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

textual!(Picos, "a time");
