//! Fitting a form's constants: robust least squares of logarithms.
//!
//! The residual of a row is `ln(predicted / measured)`, so that every row counts by its relative error, seen through
//! the pseudo-Huber transform (Charbonnier et al. 1997): quadratic for small errors, linear beyond
//! [`FitProblem::robust`]. Constants stay within their bounds: the solver (MINPACK's Levenberg-Marquardt) moves `u` of
//! `low (high / low)^(1 / (1 + e^-u))`. A prior is one more residual, `weight ln(value / centre)`: with few rows, what
//! they do not say stays sane.

use crate::form::Constant;
use levenberg_marquardt::{LeastSquaresProblem, LevenbergMarquardt};
use nalgebra::storage::Owned;
use nalgebra::{DMatrix, DVector, Dyn};
use rayon::prelude::*;

/// What is fitted.
pub struct FitProblem<'a> {
    /// The constants.
    pub constants: &'a [Constant],
    /// Measured seconds, all above zero.
    pub measured: &'a [f64],
    /// Writes the predicted seconds of every row for these constants.
    pub predict: &'a (dyn Fn(&[f64], &mut [f64]) + Sync),
    /// Relative error beyond which a row counts less than its square.
    pub robust: f64,
    /// Scatter expected of a row's logarithm: what a prior is weighed against.
    pub noise: f64,
}

/// Fitted constants.
#[derive(Clone, Debug, PartialEq)]
pub struct FitSolution {
    /// Their values.
    pub values: Vec<f64>,
    /// Standard errors of their logarithms, by the curvature at the solution and the scatter of the residuals; not a
    /// number where the rows say nothing of a constant.
    pub ln_errors: Vec<f64>,
    /// Half the sum of squared residuals, priors included.
    pub objective: f64,
}

/// Fits from several starts (each constant times a factor) and keeps the best; the first among equals. The same on any
/// number of threads.
pub fn solve(problem: &FitProblem, starts: &[Vec<f64>]) -> FitSolution {
    let one = |start: &Vec<f64>| {
        let u = problem.constants.iter().zip(start).map(|(c, f)| free(c, c.start * f)).collect::<Vec<f64>>();
        let state = State { problem, u: DVector::from_vec(u) };
        // Far beyond what measurements tell; tighter, the choice among tiles keeps the solver hopping.
        let solver = LevenbergMarquardt::new().with_patience(60).with_ftol(1e-7).with_xtol(1e-6);
        let (state, report) = solver.minimize(state);
        (report.objective_function, state.u)
    };
    let ends: Vec<(f64, DVector<f64>)> = starts.par_iter().map(one).collect();
    let better = |a: (f64, DVector<f64>), b: (f64, DVector<f64>)| if b.0 < a.0 { b } else { a };
    let (objective, u) = ends.into_iter().reduce(better).expect("there is a start");
    let state = State { problem, u };
    FitSolution { values: state.values(), ln_errors: state.ln_errors(), objective }
}

/// The unbounded variable of a value.
fn free(c: &Constant, value: f64) -> f64 {
    let [low, high] = c.bounds;
    let part = libm::log(value / low) / libm::log(high / low);
    let part = part.clamp(0.01, 0.99);
    libm::log(part / (1.0 - part))
}

fn bounded(c: &Constant, u: f64) -> f64 {
    let [low, high] = c.bounds;
    (low * libm::exp(libm::log(high / low) / (1.0 + libm::exp(-u)))).clamp(low, high)
}

/// The pseudo-Huber transform: its square is the loss.
fn robust(r: f64, delta: f64) -> f64 {
    let x = r / delta;
    // sqrt(2 (sqrt(1 + x^2) - 1)), without the loss of digits near 0.
    let loss = 2.0 * x * x / ((1.0 + x * x).sqrt() + 1.0);
    (loss.sqrt() * delta).copysign(r)
}

struct State<'a> {
    problem: &'a FitProblem<'a>,
    u: DVector<f64>,
}

impl State<'_> {
    fn values(&self) -> Vec<f64> {
        self.problem.constants.iter().zip(self.u.iter()).map(|(c, u)| bounded(c, *u)).collect()
    }

    /// Residuals of rows, then of priors, at `values`.
    fn at(&self, values: &[f64]) -> Vec<f64> {
        let p = self.problem;
        let mut out = vec![0.0; p.measured.len()];
        (p.predict)(values, &mut out);
        // A prediction that is not a time counts as far too long, so that the solver turns back.
        let residual = |(t, m): (&f64, &f64)| {
            let r = libm::log(t / m);
            robust(if r.is_finite() { r } else { 1e3 }, p.robust)
        };
        let mut r: Vec<f64> = out.iter().zip(p.measured).map(residual).collect();
        let prior = |(c, v): (&Constant, &f64)| p.noise / c.spread * libm::log(v / c.start);
        r.extend(p.constants.iter().zip(values).map(prior));
        r
    }

    /// Derivatives with respect to `scale(value)`, by forward differences, a column a constant.
    fn columns(&self, moved: impl Fn(usize) -> (Vec<f64>, f64) + Sync) -> DMatrix<f64> {
        let here = self.at(&self.values());
        let column = |i: usize| {
            let (values, step) = moved(i);
            self.at(&values).iter().zip(&here).map(|(a, b)| (a - b) / step).collect::<Vec<f64>>()
        };
        let columns: Vec<Vec<f64>> = (0..self.u.len()).into_par_iter().map(column).collect();
        DMatrix::from_fn(here.len(), columns.len(), |r, c| columns[c][r])
    }

    fn ln_errors(&self) -> Vec<f64> {
        const STEP: f64 = 1e-5;
        let values = self.values();
        let j = self.columns(|i| {
            let mut v = values.clone();
            v[i] *= libm::exp(STEP);
            (v, STEP)
        });
        let rows = self.problem.measured.len();
        let squares: f64 = self.at(&values)[..rows].iter().map(|r| r * r).sum();
        let variance = squares / (rows.saturating_sub(values.len())).max(1) as f64;
        let covariance = (j.transpose() * &j).try_inverse();
        let error = |i: usize| covariance.as_ref().map_or(f64::NAN, |c| (variance * c[(i, i)]).max(0.0).sqrt());
        (0..values.len()).map(error).collect()
    }
}

impl LeastSquaresProblem<f64, Dyn, Dyn> for State<'_> {
    type ResidualStorage = Owned<f64, Dyn>;
    type JacobianStorage = Owned<f64, Dyn, Dyn>;
    type ParameterStorage = Owned<f64, Dyn>;

    fn set_params(&mut self, x: &DVector<f64>) {
        self.u.copy_from(x);
    }
    fn params(&self) -> DVector<f64> {
        self.u.clone()
    }
    fn residuals(&self) -> Option<DVector<f64>> {
        Some(DVector::from_vec(self.at(&self.values())))
    }
    fn jacobian(&self) -> Option<DMatrix<f64>> {
        const STEP: f64 = 1e-6;
        Some(self.columns(|i| {
            let mut u = self.u.clone();
            u[i] += STEP;
            (Self { problem: self.problem, u }.values(), STEP)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: [Constant; 2] = [
        Constant { name: "a", about: "fixed", unit: "s", bounds: [1e-8, 1e-3], start: 1e-6, spread: f64::INFINITY },
        Constant { name: "b", about: "rate", unit: "s", bounds: [1e-12, 1e-6], start: 1e-9, spread: f64::INFINITY },
    ];

    fn fit(constants: &[Constant], measured: &[f64]) -> FitSolution {
        let predict = |c: &[f64], out: &mut [f64]| {
            out.iter_mut().enumerate().for_each(|(i, t)| *t = c[0] + c[1] * f64::from(1 << i));
        };
        solve(
            &FitProblem { constants, measured, predict: &predict, robust: 0.1, noise: 0.05 },
            &[vec![1.0; constants.len()], vec![0.1; constants.len()]],
        )
    }

    fn line(a: f64, b: f64) -> Vec<f64> {
        (0..16).map(|i| a + b * f64::from(1 << i)).collect()
    }

    #[test]
    fn an_exact_line_is_found() {
        let s = fit(&LINE, &line(7e-6, 3e-10));
        assert!((s.values[0] / 7e-6 - 1.0).abs() < 1e-4 && (s.values[1] / 3e-10 - 1.0).abs() < 1e-4, "{s:?}");
    }

    #[test]
    fn one_wild_row_moves_little() {
        let mut measured = line(7e-6, 3e-10);
        measured[3] *= 10.0;
        let s = fit(&LINE, &measured);
        assert!((s.values[0] / 7e-6 - 1.0).abs() < 0.03, "{s:?}");
        assert!(s.ln_errors.iter().all(|e| *e > 0.0), "{s:?}");
    }

    /// A constant that the rows say nothing of stays at its prior; without one its error is not a number or huge.
    #[test]
    fn priors_hold_what_rows_do_not_say() {
        let unused = Constant { name: "c", spread: 0.5, start: 2.0, bounds: [0.1, 10.0], ..LINE[0] };
        let s = fit(&[LINE[0], LINE[1], unused], &line(7e-6, 3e-10));
        assert!((s.values[2] - 2.0).abs() < 1e-6, "{s:?}");
    }

    #[test]
    fn bounds_are_kept() {
        let s = fit(&LINE, &line(5e-3, 3e-10));
        assert!(s.values[0] <= 1e-3 && s.values[0] > 0.9e-3, "{s:?}");
    }
}
