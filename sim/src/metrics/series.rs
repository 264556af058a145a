//! Time series in bounded memory: a fixed number of bins that double in width when time outgrows them.

/// Bins of a series.
const BINS: usize = 512;

/// Sums over time of several columns.
#[derive(Clone, Debug)]
pub struct Series {
    columns: usize,
    width: u64,
    used: usize,
    bins: Vec<f64>,
}

impl Series {
    /// `columns` sums per bin; the first bins are a millisecond wide.
    pub fn new(columns: usize) -> Self {
        Self { columns, width: 1_000_000_000, used: 0, bins: vec![0.0; BINS * columns] }
    }

    /// Spreads `amounts`, one a column, evenly over `from..to` (picoseconds).
    pub fn add(&mut self, from: u64, to: u64, amounts: &[f64]) {
        while to > self.width * BINS as u64 {
            self.halve();
        }
        let (first, last) = ((from / self.width) as usize, (to.saturating_sub(1).max(from) / self.width) as usize);
        for bin in first..=last.min(BINS - 1) {
            let (begin, end) = (bin as u64 * self.width, (bin as u64 + 1) * self.width);
            let share = if to > from { (to.min(end) - from.max(begin)) as f64 / (to - from) as f64 } else { 1.0 };
            let row = &mut self.bins[bin * self.columns..(bin + 1) * self.columns];
            for (sum, a) in row.iter_mut().zip(amounts) {
                *sum += a * share;
            }
            self.used = self.used.max(bin + 1);
        }
    }

    fn halve(&mut self) {
        let c = self.columns;
        for bin in 0..BINS / 2 {
            for i in 0..c {
                self.bins[bin * c + i] = self.bins[2 * bin * c + i] + self.bins[(2 * bin + 1) * c + i];
            }
        }
        self.bins[BINS / 2 * c..].fill(0.0);
        self.width *= 2;
        self.used = self.used.div_ceil(2);
    }

    /// Bin width in picoseconds.
    pub fn width(&self) -> u64 {
        self.width
    }
    /// The bins that time has reached, each a row of sums.
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.bins.chunks_exact(self.columns).take(self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_survive_doubling() {
        let mut s = Series::new(2);
        let mut total = 0.0;
        for i in 0..5000u64 {
            s.add(i * 700_000_000, i * 700_000_000 + 1_900_000_000, &[1.0, 2.0]);
            total += 1.0;
        }
        let sum = s.rows().fold((0.0, 0.0), |t, r| (t.0 + r[0], t.1 + r[1]));
        assert!((sum.0 - total).abs() < 1e-6 && (sum.1 - 2.0 * total).abs() < 1e-6);
        assert!(s.width() > 1_000_000_000 && s.rows().count() <= BINS);
    }
}
