//! Loads that are expected, out of those that came.

/// Loads of (MoE layer, expert), layer-major, by the past.
pub(super) struct Forecast {
    /// Of the last interval.
    weight: f64,
    /// Means over intervals: tokens of each, and iterations.
    loads: Vec<f64>,
    iterations: f64,
    seen: Vec<u64>,
    seen_iterations: u64,
}

impl Forecast {
    pub(super) fn new(weight: f64, experts: usize) -> Self {
        Self { weight, loads: vec![0.0; experts], iterations: 0.0, seen: vec![0; experts], seen_iterations: 0 }
    }

    /// `counts` and `iterations` since the run began; false if nothing came since the last time, which then changes nothing.
    pub(super) fn learn(&mut self, counts: Vec<u64>, iterations: u64) -> bool {
        if counts == self.seen {
            return false;
        }
        // The first interval is all that is known.
        let weight = if self.iterations > 0.0 { self.weight } else { 1.0 };
        let mean = |before: f64, now: u64| (1.0 - weight) * before + weight * now as f64;
        for (load, (now, seen)) in self.loads.iter_mut().zip(counts.iter().zip(&self.seen)) {
            *load = mean(*load, now - seen);
        }
        self.iterations = mean(self.iterations, iterations - self.seen_iterations);
        (self.seen, self.seen_iterations) = (counts, iterations);
        true
    }

    /// Tokens of an iteration.
    pub(super) fn tokens(&self) -> Vec<f64> {
        self.loads.iter().map(|n| n / self.iterations).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of what comes is new: 8 tokens in 2 iterations, then 4 and 4 in 4, are (8 / 2 + 4 / 2, 4 / 2) in 3.
    #[test]
    fn the_newest_interval_weighs_most() {
        let mut f = Forecast::new(0.5, 2);
        assert!(f.learn(vec![8, 0], 2));
        assert_eq!(f.tokens(), [4.0, 0.0]);
        assert!(!f.learn(vec![8, 0], 5), "nothing came");
        assert!(f.learn(vec![12, 4], 6));
        assert_eq!(f.tokens(), [6.0 / 3.0, 2.0 / 3.0]);
        let mut last = Forecast::new(1.0, 1);
        [(8, 1), (10, 3)].into_iter().for_each(|(n, iterations)| assert!(last.learn(vec![n], iterations)));
        assert_eq!(last.tokens(), [1.0], "the last interval alone");
    }
}
