//! Percentiles from a mergeable log-bucket histogram. A bucket keeps its values' sum, so that a percentile is the mean of the
//! bucket that it falls into: two samples that differ less than a bucket is wide still differ, and what is alone in its bucket
//! is exact.

use serde::Serialize;

/// Buckets per power of two: 2^8, so that a bucket is at most 1/256 of its values wide, and their mean no further off.
const SUB_BITS: u32 = 8;
const SUB: u64 = 1 << SUB_BITS;

/// The largest relative error of a percentile.
pub const VALUE_ERROR: f64 = 0.004;

/// Counts and sums of non-negative integers (picoseconds, tokens). Values below 256 are exact.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    buckets: Vec<Bucket>,
    n: u64,
    sum: u128,
    max: u64,
}

/// Values of one bucket.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    count: u64,
    sum: u128,
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

impl Histogram {
    /// Adds `value`.
    pub fn add(&mut self, value: u64) {
        let b = bucket(value);
        if b >= self.buckets.len() {
            self.buckets.resize(b + 1, Bucket::default());
        }
        self.buckets[b].count += 1;
        self.buckets[b].sum += u128::from(value);
        self.n += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), Bucket::default());
        for (a, b) in self.buckets.iter_mut().zip(&other.buckets) {
            a.count += b.count;
            a.sum += b.sum;
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
        for b in &self.buckets {
            seen += b.count;
            if seen >= rank {
                return b.sum as f64 / b.count as f64;
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

    #[test]
    fn samples_closer_than_a_bucket_differ() {
        let p50 = |values: &[u64]| {
            let mut h = Histogram::default();
            values.iter().for_each(|v| h.add(*v));
            h.quantile(0.5)
        };
        assert_eq!(bucket(1_000_000), bucket(1_000_001));
        assert_eq!((p50(&[1_000_000; 3]), p50(&[1_000_001; 3])), (1_000_000.0, 1_000_001.0));
        assert_eq!(p50(&[1_000_000, 1_000_003, 5_000_000]), 1_000_001.5);
    }
}
