//! Which work to measure next, where an experiment says what its time stands on.
//!
//! Every work has a share of the experiment's critical path and an uncertainty of its cost, both as parts of one. The
//! next work is the one with the largest product of both. The experiment's interval is the sum of the products: errors
//! of works are taken to go together, as those of one kernel do, so that nothing cancels. The uncertainty of a work is
//!
//! * before anything like it was measured, the error that its target comes with;
//! * once it was measured, half the width of the 95 % interval over the median, plus the run-to-run spread of works
//!   that were measured twice;
//! * between both, where a work of its shape and precision was measured whose sizes (rows, experts with rows) differ by
//!   a factor of at most two: linear in the logarithm of the factor, from the measured one's uncertainty at 1 to its
//!   own at 2.

use super::{MeasuredRow, Point, Work};

/// A work that stands for a share of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The work.
    pub work: Work,
    /// Part of the experiment's critical path that it stands for.
    pub share: f64,
    /// Relative error of its cost before anything was measured.
    pub before: f64,
    /// Why it cannot be measured, if it cannot.
    pub left: Option<String>,
}

/// A time of a work: median, and half the relative width of its interval.
#[derive(Clone, Debug)]
struct Time {
    work: Work,
    median_s: f64,
    half: f64,
}

/// The works of an experiment, and what was measured.
#[derive(Clone, Debug)]
pub struct Drive {
    /// The works.
    pub targets: Vec<Target>,
    /// First and second passes.
    times: [Vec<Time>; 2],
}

/// One work in this many that are measured is measured again, the first among them.
const AGAIN: usize = 4;

impl Drive {
    /// Of these works; nothing was measured.
    pub fn new(targets: Vec<Target>) -> Self {
        Self { targets, times: Default::default() }
    }

    /// Takes in a row of a table that is of this point.
    pub fn learn(&mut self, point: &Point, row: &MeasuredRow) {
        let [median_s, low, high] = ["latency_us", "low_us", "high_us"].map(|c| row.number(c) * 1e-6);
        let pass = usize::from(point.pass == 2);
        let half = 0.5 * (high - low) / median_s.max(1e-12);
        self.times[pass].retain(|t| !alike(&t.work, &point.work));
        self.times[pass].push(Time { work: point.work.clone(), median_s, half });
    }

    /// Mean of |second over first - 1| of works measured twice; 0 as long as there are none.
    pub fn spread(&self) -> f64 {
        let off = |t: &Time| Some((t.median_s / self.time(0, &t.work)?.median_s - 1.0).abs());
        let all: Vec<f64> = self.times[1].iter().filter_map(off).collect();
        all.iter().sum::<f64>() / all.len().max(1) as f64
    }

    /// Whether any work was measured twice, without which its interval leaves out what differs from run to run.
    pub fn has_spread(&self) -> bool {
        !self.times[1].is_empty()
    }

    fn time(&self, pass: usize, work: &Work) -> Option<&Time> {
        self.times[pass].iter().find(|t| alike(&t.work, work))
    }

    /// Relative uncertainty of the cost of target `i`.
    pub fn uncertainty(&self, i: usize) -> f64 {
        self.uncertainty_beside(i, self.spread())
    }

    /// The same where the run-to-run spread is known.
    fn uncertainty_beside(&self, i: usize, spread: f64) -> f64 {
        let Target { work, before, .. } = &self.targets[i];
        if let Some(own) = self.time(0, work) {
            return own.half + spread;
        }
        let near = |t: &Time| {
            let far = libm::log2(apart(&t.work, work)?);
            Some(t.half + spread + (before - t.half - spread).max(0.0) * far)
        };
        self.times[0].iter().filter_map(near).fold(*before, f64::min)
    }

    /// The next point: a work that can be measured and was not, or again one that was: the first at once, then one for
    /// every four that were measured.
    pub fn next(&self) -> Option<(usize, Point)> {
        let spread = self.spread();
        let open = |pass: usize| {
            let can = move |i: &usize| {
                let t = &self.targets[*i];
                let done = |pass| self.time(pass, &t.work).is_some();
                t.left.is_none() && !done(pass) && (pass == 0 || done(0))
            };
            let worth = |i: usize| self.targets[i].share * self.uncertainty_beside(i, spread);
            (0..self.targets.len()).filter(can).max_by(|a, b| worth(*a).total_cmp(&worth(*b)).then(b.cmp(a)))
        };
        let is_due = self.times[0].len() > AGAIN * self.times[1].len();
        let (first, second) = (open(0), open(1));
        let (i, pass) = match (first, second) {
            (Some(i), None) => (i, 1),
            (Some(i), Some(_)) if !is_due => (i, 1),
            (_, Some(i)) => (i, 2),
            (None, None) => return None,
        };
        Some((i, Point { work: self.targets[i].work.clone(), pass }))
    }

    /// Sum of share times uncertainty over the works that can be measured, which is the experiment's interval as a part
    /// of its time, and the same over those that cannot.
    pub fn interval(&self) -> [f64; 2] {
        let (mut out, spread) = ([0.0; 2], self.spread());
        for (i, t) in self.targets.iter().enumerate() {
            out[usize::from(t.left.is_some())] += t.share * self.uncertainty_beside(i, spread);
        }
        out
    }
}

/// What two works must have in common to be near, and their sizes.
fn parts(work: &Work) -> Option<([usize; 6], [f64; 2])> {
    Some(match work {
        Work::Experts { shape, precision, counts, .. } => {
            let active = counts.iter().filter(|n| **n > 0).count() as f64;
            let rows = counts.iter().map(|n| f64::from(*n)).sum();
            ([0, shape.hidden, shape.intermediate, shape.experts, shape.top_k, *precision as usize], [rows, active])
        }
        Work::Gemm { precision, size: [m, n, k] } => ([1, *n, *k, 0, 0, *precision as usize], [*m as f64, 1.0]),
        Work::Norm { tokens, hidden } => ([2, *hidden, 0, 0, 0, 0], [*tokens as f64, 1.0]),
        _ => return None,
    })
}

/// The factor between the sizes of two works of one shape and precision, at least 1; `None` for others, or beyond 2.
fn apart(a: &Work, b: &Work) -> Option<f64> {
    let ((shape, sizes), (other, others)) = (parts(a)?, parts(b)?);
    let factor = sizes.iter().zip(&others).map(|(x, y)| (x / y).max(y / x)).fold(1.0, f64::max);
    (shape == other && factor <= 2.0).then_some(factor)
}

/// Whether two works are the same, however their tokens came about.
fn alike(a: &Work, b: &Work) -> bool {
    let counts =
        |w: &Work| if let Work::Experts { counts, tokens, .. } = w { Some((counts.clone(), *tokens)) } else { None };
    apart(a, b) == Some(1.0) && counts(a) == counts(b)
}

/// Works of one bucket are measured as one: shape and precision are the same, and every size (rows, experts with rows)
/// rounds to the same half power of two.
pub fn bucket(work: &Work) -> Option<([usize; 6], [i32; 2])> {
    parts(work).map(|(shape, sizes)| (shape, sizes.map(|s| libm::round(2.0 * libm::log2(s)) as i32)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Bench, Precision, Sample, mock::Mock};
    use proptest::prelude::*;

    fn gemm(m: usize) -> Work {
        Work::Gemm { precision: Precision::Bf16, size: [m, 64, 32] }
    }

    fn target(work: Work, share: f64) -> Target {
        Target { work, share, before: 0.5, left: None }
    }

    fn measured(drive: &mut Drive, point: &Point, median_s: f64, half: f64) {
        let reach = half * median_s;
        let interval_s = [median_s - reach, median_s + reach];
        let sample = Sample { median_s, interval_s, repeats: 9, outliers: 0, others: 0.0, clock_mhz: 0.0 };
        let row = MeasuredRow::new(Mock::new(1, None).facts(), point, &sample);
        assert_eq!(row.point().as_ref(), Some(point), "a row says of what it is");
        drive.learn(point, &row);
    }

    #[test]
    fn interval_by_hand() {
        // The fourth cannot be measured and counts apart.
        let mut fourth = target(Work::Norm { tokens: 8, hidden: 64 }, 0.1);
        fourth.left = Some("no".into());
        let mut d = Drive::new(vec![target(gemm(8), 0.4), target(gemm(16), 0.2), target(gemm(64), 0.3), fourth]);
        assert!((d.interval()[0] - 0.45).abs() < 1e-12 && (d.interval()[1] - 0.05).abs() < 1e-12);
        let (i, point) = d.next().unwrap();
        assert_eq!((i, point.pass), (0, 1));
        // The row has four digits after the point of a microsecond.
        measured(&mut d, &point, 1e-3, 0.02);
        // Twice as large is as far as nearness reaches.
        assert!((d.uncertainty(0) - 0.02).abs() < 1e-6 && (d.uncertainty(1) - 0.5).abs() < 1e-12);
        // The first is measured again at once; 4 % of spread count from then on.
        let (i, again) = d.next().unwrap();
        assert_eq!((i, again.pass), (0, 2));
        measured(&mut d, &again, 1.04e-3, 0.02);
        assert!((d.spread() - 0.04).abs() < 1e-6 && (d.uncertainty(0) - 0.06).abs() < 1e-6);
        let (i, point) = d.next().unwrap();
        assert_eq!((i, point.pass), (2, 1));
        // Half a power of two away: half way between 0.06 and 0.5.
        d.targets[1].work = Work::Gemm { precision: Precision::Bf16, size: [1414, 64, 32] };
        let near = Point { work: gemm(1000), pass: 1 };
        measured(&mut d, &near, 1e-3, 0.02);
        assert!((d.uncertainty(1) - 0.28).abs() < 1e-3, "{}", d.uncertainty(1));
        // Another precision is another work.
        d.targets[1].work = Work::Gemm { precision: Precision::Int8, size: [1000, 64, 32] };
        assert!((d.uncertainty(1) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn all_are_measured_twice_in_the_end() {
        let mut d = Drive::new((0..7).map(|i| target(gemm(1 << (2 * i)), 0.1)).collect());
        let mut seen = Vec::new();
        while let Some((_, point)) = d.next() {
            assert!(!seen.contains(&point), "{point:?} twice");
            measured(&mut d, &point, 1e-3, 0.0);
            seen.push(point);
        }
        assert_eq!(seen.len(), 14);
        assert!(d.interval()[0] < 1e-12);
    }

    proptest! {
        /// What is measured more surely than it was known makes no interval wider, and none is below zero; a second
        /// time widens the interval by as much as the spread from run to run grows, at most.
        #[test]
        fn measuring_does_not_widen(
            sizes in prop::collection::vec(1usize..5000, 1..12), half in 0.0f64..0.25, off in prop::collection::vec(-0.2f64..0.2, 12),
        ) {
            let mut d = Drive::new(sizes.iter().map(|m| target(gemm(*m), 0.1)).collect());
            let shares = 0.1 * sizes.len() as f64;
            for off in off {
                let Some((_, point)) = d.next() else { break };
                let (before, spread) = (d.interval()[0], d.spread());
                measured(&mut d, &point, if point.pass == 2 { 1e-3 * (1.0 + off) } else { 1e-3 }, half);
                let wider = (d.spread() - spread).max(0.0) * shares;
                prop_assert!(wider == 0.0 || point.pass == 2);
                prop_assert!(d.interval()[0] <= before + wider + 1e-6 && d.interval()[0] >= 0.0);
            }
        }
        #[test]
        fn a_bucket_is_narrow(a in 1usize..100_000, b in 1usize..100_000) {
            if bucket(&gemm(a)) == bucket(&gemm(b)) {
                prop_assert!(apart(&gemm(a), &gemm(b)).is_some_and(|f| f <= 1.42));
            }
        }
    }
}
