//! Gaps of renewal processes: independent, of one distribution. In units of their mean, they differ by their coefficient
//! of variation (cv) alone: below 1 arrivals are evener than independent ones, above 1 they come in bursts.

use super::out_of_range;
use super::real::Real;
use moesim_core::Result;
use moesim_core::rng::Stream;
use rand_distr::{Distribution, Exp1, Gamma, OpenClosed01, Weibull};

/// How gaps are distributed, with mean 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Gaps {
    /// Independent arrivals: a Poisson process.
    Exponential,
    /// Gamma with this shape; cv = 1 / sqrt(shape).
    Gamma { shape: f64 },
    /// Weibull with this shape, and the scale that makes the mean 1.
    Weibull { shape: f64, scale: f64 },
}

/// Coefficients of variation that are believed. Beyond 10, a few gaps are most of any run.
const CV: std::ops::RangeInclusive<f64> = 0.01..=10.0;

impl Gaps {
    pub(super) fn gamma(shape: f64) -> Self {
        Self::Gamma { shape }
    }
    pub(super) fn weibull(shape: f64) -> Self {
        Self::Weibull { shape, scale: 1.0 / libm::tgamma(1.0 + 1.0 / shape) }
    }
    pub(super) fn gamma_of(cv: f64) -> Result<Self> {
        believable(cv)?;
        Ok(Self::gamma(1.0 / (cv * cv)))
    }
    /// The shape has no closed form; cv falls as it rises, so it is bisected.
    pub(super) fn weibull_of(cv: f64) -> Result<Self> {
        believable(cv)?;
        let (mut low, mut high) = (0.1, 200.0);
        // Each step halves the interval, until its ends are neighbours.
        for _ in 0..64 {
            let middle = 0.5 * (low + high);
            if weibull_cv(middle) > cv { low = middle } else { high = middle }
        }
        Ok(Self::weibull(0.5 * (low + high)))
    }

    /// A gap.
    pub(super) fn draw(self, r: &mut Stream) -> f64 {
        match self {
            Self::Exponential => exponential(r),
            Self::Gamma { shape } => gamma(shape, r) / shape,
            Self::Weibull { shape, scale } => {
                Weibull::new(Real(scale), Real(shape)).map_or(f64::NAN, |w| sample(&w, r))
            }
        }
    }

    /// From any moment of a process that has always been going on to its next arrival: a uniform part of a gap drawn by
    /// its length (Cox, Renewal Theory, 1962, section 5.2). Started so, arrivals in a window of w mean gaps number w on
    /// average, however short it is. Drawn by length, a Gamma of shape a is one of shape a + 1; of a Weibull of shape a,
    /// the power a is a Gamma of shape 1 + 1/a.
    pub(super) fn first(self, r: &mut Stream) -> f64 {
        let long = match self {
            Self::Exponential => return exponential(r),
            Self::Gamma { shape } => gamma(shape + 1.0, r) / shape,
            Self::Weibull { shape, scale } => scale * libm::pow(gamma(1.0 + 1.0 / shape, r), 1.0 / shape),
        };
        let part: Real = OpenClosed01.sample(r);
        long * part.0
    }
}

fn believable(cv: f64) -> Result<()> {
    match CV.contains(&cv) {
        true => Ok(()),
        false => Err(out_of_range("cv", cv.to_string(), "from 0.01 (even) over 1 (independent) to 10 (bursts)")),
    }
}

/// sqrt(G(1 + 2/a) / G(1 + 1/a)^2 - 1), by logarithms.
fn weibull_cv(shape: f64) -> f64 {
    let ratio = libm::lgamma(1.0 + 2.0 / shape) - 2.0 * libm::lgamma(1.0 + 1.0 / shape);
    libm::expm1(ratio).max(0.0).sqrt()
}

/// Exponential with mean 1.
pub(super) fn exponential(r: &mut Stream) -> f64 {
    let x: Real = Exp1.sample(r);
    x.0
}

/// Gamma with scale 1.
fn gamma(shape: f64, r: &mut Stream) -> f64 {
    Gamma::new(Real(shape), Real(1.0)).map_or(f64::NAN, |g| sample(&g, r))
}

/// A draw.
pub(super) fn sample(distribution: &impl Distribution<Real>, r: &mut Stream) -> f64 {
    distribution.sample(r).0
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::failure;
    use super::*;
    use moesim_core::rng::stream;
    use proptest::prelude::*;

    const CVS: [f64; 7] = [0.1, 0.5, 0.9, 1.0, 1.7, 2.9, 5.0];

    /// The first four moments of a distribution of mean 1.
    fn moments(gaps: Gaps) -> [f64; 4] {
        let of = |n: f64| match gaps {
            Gaps::Exponential => libm::tgamma(1.0 + n),
            Gaps::Gamma { shape } => (0..n as u32).map(|i| (shape + f64::from(i)) / shape).product(),
            Gaps::Weibull { shape, scale } => libm::pow(scale, n) * libm::tgamma(1.0 + n / shape),
        };
        [of(1.0), of(2.0), of(3.0), of(4.0)]
    }

    /// cv of a distribution, and the standard errors of mean and cv of n draws (the latter by the delta method).
    pub(crate) fn errors(gaps: Gaps, n: f64) -> (f64, f64, f64) {
        let [_, m2, m3, m4] = moments(gaps);
        let variance = m2 - 1.0;
        let third = m3 - 3.0 * m2 + 2.0;
        let fourth = m4 - 4.0 * m3 + 6.0 * m2 - 3.0;
        let cv = variance.sqrt();
        let relative = (fourth / (variance * variance) - 1.0) / 4.0 + variance - third / variance;
        (cv, cv / n.sqrt(), cv * (relative / n).sqrt())
    }

    /// Mean and cv.
    pub(crate) fn sample(draws: &[f64]) -> (f64, f64) {
        let n = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn mean_and_cv_are_as_asked_for() {
        const N: usize = 200_000;
        for (i, cv) in CVS.into_iter().enumerate() {
            for gaps in [Gaps::gamma_of(cv).unwrap(), Gaps::weibull_of(cv).unwrap()] {
                let mut r = stream(11, "test", i as u64);
                let draws: Vec<f64> = (0..N).map(|_| gaps.draw(&mut r)).collect();
                let (exact, mean_error, cv_error) = errors(gaps, N as f64);
                assert!((exact - cv).abs() < 1e-9, "{gaps:?}: {exact} for {cv}");
                let (mean, found) = sample(&draws);
                assert!((mean - 1.0).abs() < 5.0 * mean_error, "{gaps:?}: mean {mean}");
                assert!((found - cv).abs() < 5.0 * cv_error, "{gaps:?}: cv {found}, not {cv}, +- {cv_error}");
                // The mean of the time to the next arrival is (1 + cv^2) / 2.
                let draws: Vec<f64> = (0..N).map(|_| gaps.first(&mut r)).collect();
                let [_, m2, m3, _] = moments(gaps);
                let error = ((m3 / 3.0 - m2 * m2 / 4.0) / N as f64).sqrt();
                let (mean, _) = sample(&draws);
                assert!((mean - 0.5 * (1.0 + cv * cv)).abs() < 5.0 * error, "{gaps:?}: {mean}");
            }
        }
    }

    /// Largest distance between the distribution of draws and an exact one.
    fn distance(mut draws: Vec<f64>, exact: impl Fn(f64) -> f64) -> f64 {
        draws.sort_by(f64::total_cmp);
        let n = draws.len() as f64;
        let off = |(i, x): (usize, &f64)| (exact(*x) - i as f64 / n).max((i + 1) as f64 / n - exact(*x));
        draws.iter().enumerate().map(off).fold(0.0, f64::max)
    }

    #[test]
    fn a_cv_of_1_is_a_poisson_process() {
        const N: usize = 50_000;
        // Kolmogorov-Smirnov: above 2.23 / sqrt(n) once in 10,000.
        let bound = 2.23 / (N as f64).sqrt();
        let exact = |x: f64| -libm::expm1(-x);
        for gaps in [Gaps::Exponential, Gaps::gamma_of(1.0).unwrap(), Gaps::weibull_of(1.0).unwrap()] {
            let mut r = stream(5, "test", 0);
            let d = distance((0..N).map(|_| gaps.draw(&mut r)).collect(), exact);
            assert!(d < bound, "{gaps:?}: {d}");
            let d = distance((0..N).map(|_| gaps.first(&mut r)).collect(), exact);
            assert!(d < bound, "{gaps:?}: first {d}");
        }
        // What is not a Poisson process is seen as such.
        let mut r = stream(5, "test", 0);
        let gaps = Gaps::gamma_of(1.1).unwrap();
        assert!(distance((0..N).map(|_| gaps.draw(&mut r)).collect(), exact) > bound);
        // Weibull of any cv, by its own distribution.
        let gaps = Gaps::weibull_of(2.0).unwrap();
        let Gaps::Weibull { shape, scale } = gaps else { panic!("weibull") };
        let d = distance((0..N).map(|_| gaps.draw(&mut r)).collect(), |x| -libm::expm1(-libm::pow(x / scale, shape)));
        assert!(d < bound, "{d}");
    }

    #[test]
    fn draws_are_the_same_bits_everywhere() {
        // As they came out when this was written.
        let mut r = stream(1, "test", 0);
        let all = [Gaps::Exponential, Gaps::gamma(0.3), Gaps::gamma(4.0), Gaps::weibull(0.5)];
        let bits: Vec<u64> = all.map(|g| g.draw(&mut r).to_bits()).to_vec();
        assert_eq!(
            bits,
            [
                4_617_232_793_384_973_124,
                4_573_834_322_892_157_658,
                4_601_490_885_099_207_070,
                4_614_345_828_851_547_796
            ]
        );
    }

    #[test]
    fn cvs_have_a_range() {
        for cv in [0.0, -1.0, 0.005, 11.0, f64::NAN, f64::INFINITY] {
            assert!(failure(Gaps::gamma_of(cv)).contains("cv: "));
            assert!(failure(Gaps::weibull_of(cv)).contains("cv: "));
        }
    }

    proptest! {
        #[test]
        fn draws_are_finite_and_not_negative(cv in 0.01f64..10.0, seed in any::<u64>()) {
            let mut r = stream(seed, "test", 0);
            for gaps in [Gaps::gamma_of(cv).unwrap(), Gaps::weibull_of(cv).unwrap()] {
                for _ in 0..100 {
                    let (gap, first) = (gaps.draw(&mut r), gaps.first(&mut r));
                    prop_assert!(gap.is_finite() && gap >= 0.0 && first.is_finite() && first >= 0.0);
                }
            }
        }
    }
}
