//! What an expert costs its device, by tokens: not linear, because its weights are read for one token as for many.

/// A function of the tokens of a replica, piecewise linear between knots, beyond the last with its last slope.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// (Tokens, cost), tokens ascending from 0.
    knots: Vec<(f64, f64)>,
}

/// Below so many tokens in the mean, the numbers that arrive are spread as Poisson has them; above, the mean stands for them.
const SPREAD: f64 = 64.0;

impl Curve {
    /// A token costs one.
    pub fn tokens() -> Self {
        Self { knots: vec![(0.0, 0.0), (1.0, 1.0)] }
    }

    /// Through `knots`, each (tokens, cost), sorted by tokens; 0 tokens cost what the first says.
    ///
    /// # Panics
    /// If there are fewer than two, or their tokens do not ascend.
    pub fn through(knots: Vec<(f64, f64)>) -> Self {
        assert!(knots.len() > 1 && knots.windows(2).all(|k| k[0].0 < k[1].0), "at least two knots, ascending");
        Self { knots }
    }

    /// The expected cost where the number of tokens that arrive is drawn from a Poisson distribution: tokens of a batch
    /// that select an expert are rare events, each by itself. `cost(n)`: of exactly n tokens, asked for n up to `most`.
    pub fn expected(cost: impl Fn(u32) -> f64, most: f64) -> Self {
        let exact: Vec<f64> = (0..=(2.0 * SPREAD) as u32 * 2).map(&cost).collect();
        let mut knots = vec![(0.0, 0.0)];
        let mut mean = 1.0 / 16.0;
        while mean < SPREAD {
            let (mut p, mut sum, mut seen) = (libm::exp(-mean), 0.0, 0.0);
            for (n, cost) in exact.iter().enumerate() {
                if n > 0 {
                    p *= mean / n as f64;
                }
                sum += p * cost;
                seen += p;
            }
            knots.push((mean, sum / seen));
            mean *= 1.189_207_115_002_721;
        }
        let mut n = SPREAD;
        while n < 2.0 * most.max(SPREAD) {
            knots.push((n, cost(n as u32)));
            n = (n * 1.25).ceil();
        }
        knots.push((n, cost(n as u32)));
        // What arrives more costs no less: kernels that were measured are not always monotone.
        for i in 1..knots.len() {
            knots[i].1 = knots[i].1.max(knots[i - 1].1);
        }
        Self { knots }
    }

    /// The cost of `tokens`.
    pub fn of(&self, tokens: f64) -> f64 {
        let k = &self.knots;
        let i = k.partition_point(|knot| knot.0 <= tokens).clamp(1, k.len() - 1);
        let ((x0, y0), (x1, y1)) = (k[i - 1], k[i]);
        y0 + (tokens - x0) * ((y1 - y0) / (x1 - x0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_cost_one_each() {
        let c = Curve::tokens();
        assert_eq!([c.of(0.0), c.of(0.5), c.of(7.0), c.of(1e9)], [0.0, 0.5, 7.0, 1e9]);
    }

    /// An expert whose weights cost 10 as soon as one token comes, and nothing else: the chance that one comes, 1 - exp(-n).
    #[test]
    fn weights_are_read_if_any_token_comes() {
        let c = Curve::expected(|n| if n > 0 { 10.0 } else { 0.0 }, 100.0);
        for n in [0.1, 0.5, 1.0, 3.0, 10.0] {
            let expected = 10.0 * (1.0 - libm::exp(-n));
            assert!((c.of(n) / expected - 1.0).abs() < 0.02, "{n}: {} {expected}", c.of(n));
        }
        assert!((c.of(1000.0) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_linear_cost_stays_linear() {
        let c = Curve::expected(|n| 3.0 * f64::from(n), 5000.0);
        for n in [0.3, 2.0, 63.0, 100.0, 4000.0] {
            assert!((c.of(n) / (3.0 * n) - 1.0).abs() < 1e-3, "{n}: {}", c.of(n));
        }
    }
}
