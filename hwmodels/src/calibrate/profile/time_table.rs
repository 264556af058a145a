//! Measured times of a kernel by shape, in place of a form: interpolated between sizes, never beyond.

use super::{Data, Op};
use moesim_core::{Diag, Result};
use serde::{Deserialize, Serialize};

/// Measured times of a kernel family in one precision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeTable {
    /// What it does: `experts` (a fused layer, loads as measured: balanced) or `gemm`.
    pub op: Op,
    /// The family, as its data name it.
    pub family: String,
    /// The precision, as its data name it.
    pub precision: String,
    /// Versions of the framework.
    pub versions: Vec<String>,
    /// Where its times come from.
    pub data: Data,
    /// The shapes.
    pub shape: Vec<ShapeTimes>,
}

/// Times of one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeTimes {
    /// Of `experts`: width of the model, inner width, matrices of the first GEMM, experts on the device; how many of
    /// these a token selects is not told apart. Of `gemm`: columns of the weights, inner dimension.
    pub of: Vec<u64>,
    /// Rows that are computed on the device, rising.
    pub rows: Vec<f64>,
    /// Seconds of each.
    pub seconds: Vec<f64>,
}

impl ShapeTimes {
    /// Seconds at `rows`: linear between logarithms; `None` outside what was measured.
    pub fn at(&self, rows: f64) -> Option<f64> {
        let (first, last) = (*self.rows.first()?, *self.rows.last()?);
        if !(first..=last).contains(&rows) {
            return None;
        }
        let above = self.rows.partition_point(|r| *r < rows);
        if self.rows[above] == rows {
            return Some(self.seconds[above]);
        }
        let [x, y] = [self.rows[above - 1], self.rows[above]].map(libm::log);
        let [a, b] = [self.seconds[above - 1], self.seconds[above]].map(libm::log);
        Some(libm::exp(a + (b - a) * (libm::log(rows) - x) / (y - x)))
    }
}

impl TimeTable {
    /// Builds a table from (shape, rows, seconds); times of the same shape and rows become their geometric mean.
    pub fn new(
        op: Op,
        names: [&str; 2],
        versions: &[String],
        data: Data,
        rows: impl IntoIterator<Item = (Vec<u64>, f64, f64)>,
    ) -> Self {
        let mut all: Vec<(Vec<u64>, f64, f64)> = rows.into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.total_cmp(&b.2)));
        let mut shape: Vec<ShapeTimes> = Vec::new();
        for same in all.chunk_by(|a, b| a.0 == b.0 && a.1 == b.1) {
            let mean = same.iter().map(|r| libm::log(r.2)).sum::<f64>() / same.len() as f64;
            if shape.last().is_none_or(|s| s.of != same[0].0) {
                shape.push(ShapeTimes { of: same[0].0.clone(), rows: Vec::new(), seconds: Vec::new() });
            }
            let last = shape.last_mut().expect("one was pushed");
            last.rows.push(same[0].1);
            // Seven digits: more than any clock has.
            last.seconds.push(format!("{:.6e}", libm::exp(mean)).parse().unwrap_or(0.0));
        }
        let [family, precision] = names.map(str::to_string);
        Self { op, family, precision, versions: versions.to_vec(), data, shape }
    }

    /// Seconds of a shape at a number of rows; `None` for shapes and sizes that were not measured.
    pub fn at(&self, of: &[u64], rows: f64) -> Option<f64> {
        let at = self.shape.binary_search_by(|s| s.of.as_slice().cmp(of)).ok()?;
        self.shape[at].at(rows)
    }

    /// Refuses what cannot be interpolated.
    ///
    /// # Errors
    /// Shapes out of order, sizes that do not rise, times that are none.
    pub fn check(&self) -> Result<()> {
        let wrong = |problem: &str| {
            let place = format!("table {} {}", self.family, self.precision);
            Err(Diag::input(problem).place(place).cure("write it with moesim calibrate fit --kind table"))
        };
        if !matches!(self.op, Op::Experts | Op::Gemm) {
            return wrong("is of an operation that has no tables");
        }
        if self.shape.windows(2).any(|w| w[0].of >= w[1].of) {
            return wrong("has shapes that are not in rising order");
        }
        for s in &self.shape {
            let rise = s.rows.windows(2).all(|w| w[0] < w[1]);
            let real = |x: &f64| x.is_finite() && *x > 0.0;
            let real = s.rows.iter().chain(&s.seconds).all(real);
            if s.rows.is_empty() || s.rows.len() != s.seconds.len() || !rise || !real {
                return wrong("has a shape without times, or with sizes that do not rise");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(u64, f64, f64)]) -> TimeTable {
        let data = Data { file: Vec::new(), source: None, rows: rows.len(), shapes: 1, sizes: [1.0, 64.0] };
        TimeTable::new(Op::Gemm, ["f", "bf16"], &[], data, rows.iter().map(|r| (vec![r.0, 7], r.1, r.2)))
    }

    #[test]
    fn between_sizes_never_beyond() {
        let t = table(&[(5, 64.0, 8e-6), (5, 1.0, 2e-6), (5, 16.0, 2e-6), (5, 16.0, 8e-6), (4, 1.0, 1e-6)]);
        t.check().unwrap();
        // The mean of 2 and 8 us is 4; half way between 16 and 64 rows, so is 4 us times the root of 2.
        assert_eq!((t.at(&[5, 7], 1.0), t.at(&[5, 7], 16.0), t.at(&[4, 7], 1.0)), (Some(2e-6), Some(4e-6), Some(1e-6)));
        assert!((t.at(&[5, 7], 32.0).unwrap() / (4e-6 * 2f64.sqrt()) - 1.0).abs() < 1e-9);
        for (of, rows) in [([5, 7], 0.5), ([5, 7], 65.0), ([5, 8], 16.0), ([4, 7], 2.0), ([5, 7], f64::NAN)] {
            assert_eq!(t.at(&of, rows), None);
        }
    }

    #[test]
    fn what_cannot_be_interpolated_is_refused() {
        let good = table(&[(5, 1.0, 2e-6), (5, 16.0, 2e-6)]);
        let bad = |change: &dyn Fn(&mut TimeTable)| {
            let mut t = good.clone();
            change(&mut t);
            t.check().unwrap_err().to_string()
        };
        assert!(bad(&|t| t.shape[0].rows[1] = 1.0).contains("do not rise"));
        assert!(bad(&|t| t.shape[0].seconds[1] = f64::NAN).contains("without times"));
        assert!(bad(&|t| t.shape[0].seconds.truncate(1)).contains("without times"));
        assert!(bad(&|t| t.shape.push(t.shape[0].clone())).contains("rising order"));
        assert!(bad(&|t| t.op = Op::Combine).contains("no tables"));
    }
}
