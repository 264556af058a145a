//! Errors of many points in a few numbers.

/// Signed and absolute errors, as fractions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// How many.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their median.
    pub median: f64,
    /// The mean of their absolute values.
    pub mean_absolute: f64,
    /// The median of these.
    pub median_absolute: f64,
}

impl Errors {
    /// Of a sample; none if it is empty.
    pub fn of(errors: &[f64]) -> Option<Self> {
        let absolute: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
        Some(Self {
            n: errors.len(),
            mean: mean(errors)?,
            median: median(errors)?,
            mean_absolute: mean(&absolute)?,
            median_absolute: median(&absolute)?,
        })
    }
}

/// The mean of a sample, unless it is empty.
pub fn mean(x: &[f64]) -> Option<f64> {
    (!x.is_empty()).then(|| x.iter().sum::<f64>() / x.len() as f64)
}

/// The median of a sample, unless it is empty; of an even number the mean of the two in the middle.
pub fn median(x: &[f64]) -> Option<f64> {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (n > 0).then(|| (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0)
}

/// Spearman's rank correlation; equal values have the mean of their ranks. None where a side has one value alone.
pub fn rank_correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (ranks(a), ranks(b));
    let (mean_a, mean_b) = (mean(&a)?, mean(&b)?);
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(&b).map(|(x, y)| f(x - mean_a, y - mean_b)).sum::<f64>();
    let (both, of_a, of_b) = (sum(&|x, y| x * y), sum(&|x, _| x * x), sum(&|_, y| y * y));
    (of_a > 0.0 && of_b > 0.0).then(|| both / (of_a * of_b).sqrt())
}

fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&i, &j| x[i].total_cmp(&x[j]));
    let mut ranks = vec![0.0; x.len()];
    let mut at = 0;
    for equal in order.chunk_by(|&i, &j| x[i] == x[j]) {
        equal.iter().for_each(|&i| ranks[i] = at as f64 + (equal.len() + 1) as f64 / 2.0);
        at += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_by_hand() {
        let e = Errors::of(&[-0.5, 0.1, 0.2, 1.0]).unwrap();
        assert_eq!((e.n, e.median_absolute, e.mean_absolute), (4, 0.35, 0.45));
        assert!((e.mean - 0.2).abs() < 1e-12 && (e.median - 0.15).abs() < 1e-12, "{e:?}");
        assert_eq!(Errors::of(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    }

    #[test]
    fn rank_correlation_by_hand() {
        let close = |a: &[f64], b: &[f64], r: f64| {
            let found = rank_correlation(a, b).unwrap();
            assert!((found - r).abs() < 1e-12, "{found}");
        };
        close(&[1.0, 2.0, 3.0], &[10.0, 100.0, 1000.0], 1.0);
        close(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0], -1.0);
        // Ranks 1 to 5 and 2 1 4 3 5: 1 - 6 x 4 / (5 x 24).
        close(&[1.0, 2.0, 3.0, 4.0, 5.0], &[20.0, 10.0, 40.0, 30.0, 50.0], 0.8);
        // Ranks 1.5 1.5 3 and 1 2 3: 1.5 over the root of 1.5 x 2.
        close(&[7.0, 7.0, 9.0], &[1.0, 2.0, 3.0], 1.5 / 3f64.sqrt());
        assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(rank_correlation(&[], &[]), None);
    }
}
