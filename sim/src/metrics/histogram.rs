//! Percentiles from a mergeable log-bucket histogram.

use serde::Serialize;

/// Buckets per power of two: 2^7, so that a bucket is at most 1/128 wide and its middle at most 0.4 % off.
const SUB_BITS: u32 = 7;
const SUB: u64 = 1 << SUB_BITS;

/// The largest relative error of a percentile.
pub const VALUE_ERROR: f64 = 0.004;

/// Counts of non-negative integers (picoseconds, tokens). Values below 128 are exact.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    n: u64,
    sum: u128,
    max: u64,
}

/// Mean, percentiles and maximum of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Arithmetic mean (exact).
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Maximum (exact).
    pub max: f64,
}

fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - SUB_BITS;
    ((u64::from(shift) + 1) * SUB + (value >> shift) - SUB) as usize
}

fn middle(bucket: usize) -> f64 {
    let b = bucket as u64;
    if b < SUB {
        return b as f64;
    }
    let shift = b / SUB - 1;
    let low = (b % SUB + SUB) as f64 * (1u64 << shift) as f64;
    low + ((1u64 << shift) - 1) as f64 / 2.0
}

impl Histogram {
    /// Adds `value`.
    pub fn add(&mut self, value: u64) {
        let b = bucket(value);
        if b >= self.counts.len() {
            self.counts.resize(b + 1, 0);
        }
        self.counts[b] += 1;
        self.n += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (a, b) in self.counts.iter_mut().zip(&other.counts) {
            *a += b;
        }
        self.n += other.n;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }
    /// How many values.
    pub fn len(&self) -> u64 {
        self.n
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }
    /// Arithmetic mean; 0 if empty.
    pub fn mean(&self) -> f64 {
        if self.n == 0 { 0.0 } else { self.sum as f64 / self.n as f64 }
    }
    /// The value below or at which a fraction `q` of the sample lies, within [`VALUE_ERROR`].
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = ((q * self.n as f64).ceil() as u64).clamp(1, self.n.max(1));
        let mut seen = 0;
        for (b, &c) in self.counts.iter().enumerate() {
            seen += c;
            if seen >= rank {
                return middle(b).min(self.max as f64);
            }
        }
        0.0
    }
    /// All of it, in units of `unit`; nothing if empty.
    pub fn spread(&self, unit: f64) -> Option<Spread> {
        (self.n > 0).then(|| Spread {
            mean: self.mean() / unit,
            p50: self.quantile(0.5) / unit,
            p90: self.quantile(0.9) / unit,
            p99: self.quantile(0.99) / unit,
            max: self.max as f64 / unit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn percentiles_are_within_the_stated_error(mut values in prop::collection::vec(0u64..u64::MAX / 4, 1..300), cut in 0usize..300) {
            let (mut a, mut b) = (Histogram::default(), Histogram::default());
            let cut = cut.min(values.len());
            for &v in &values[..cut] { a.add(v) }
            for &v in &values[cut..] { b.add(v) }
            a.merge(&b);
            values.sort_unstable();
            for q in [0.01, 0.5, 0.9, 0.99, 1.0] {
                let exact = values[((q * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1] as f64;
                prop_assert!((a.quantile(q) - exact).abs() <= VALUE_ERROR * exact + 0.5, "{} {}", a.quantile(q), exact);
            }
            prop_assert_eq!(a.len() as usize, values.len());
        }
    }

    #[test]
    fn small_numbers_are_exact() {
        let mut h = Histogram::default();
        (1..=100).for_each(|v| h.add(v));
        let s = h.spread(1.0).unwrap();
        assert_eq!((s.mean, s.p50, s.p90, s.p99, s.max), (50.5, 50.0, 90.0, 99.0, 100.0));
    }
}
