//! Repetitions of one work, and what they come to.

use super::{Bench, Point};
use moesim_core::Result;
use std::time::{Duration, Instant};

/// Fewest repetitions, unless a call takes longer than [`SLOW_S`].
const FEWEST: usize = 7;
/// Fewest of slow calls.
const FEWEST_SLOW: usize = 3;
/// A call that is repeated less.
const SLOW_S: f64 = 0.5;
/// Most repetitions.
const MOST: usize = 200;
/// Repetitions go on until they took this long together.
const ENOUGH_S: f64 = 0.2;
/// Repetitions after which a bench may pause, unless they took their part of [`ENOUGH_S`].
const BATCH: usize = 20;
/// Calls before the first that counts, and how long they take at least together, if there are not [`MOST`] of them.
const WARM_UP: (usize, f64) = (2, 0.02);
/// Others may take this part of the processors' time; a sample during which they took more is disturbed.
pub const QUIET: f64 = 0.1;
/// Samples of a point, if all are disturbed.
const TRIES: usize = 4;
/// How long is waited after a disturbed one.
const WAIT: Duration = Duration::from_millis(400);
/// A time this many robust standard deviations from the median is an outlier.
const FAR: f64 = 5.0;

/// What repetitions come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Median seconds.
    pub median_s: f64,
    /// A 95 % interval of the median, by order statistics; with fewer than six repetitions all of them, which is less
    /// sure.
    pub interval_s: [f64; 2],
    /// Repetitions.
    pub repeats: usize,
    /// Of these, further than five robust standard deviations (1.4826 times the median distance) from the median. They
    /// are kept: a median minds them little.
    pub outliers: usize,
    /// The part of the processors' time that others took meanwhile.
    pub others: f64,
    /// Clock before and after, the mean, in MHz; 0 if it is not told.
    pub clock_mhz: f64,
}

/// What came of a work.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleOutcome {
    /// Its times.
    Done(Sample),
    /// It cannot be done here, and why.
    Left(String),
    /// `stop` said so.
    Stopped,
}

/// Times a point's work; `stop` is asked between calls. Where others disturb the processors, up to four times, with a
/// wait in between; the least disturbed sample is taken.
///
/// # Errors
/// The device failed.
pub fn sample(bench: &mut dyn Bench, point: &Point, stop: &dyn Fn() -> bool) -> Result<SampleOutcome> {
    if let Some(why) = bench.prepare(point)? {
        return Ok(SampleOutcome::Left(why));
    }
    let (mut calls, mut warm_s) = (0, 0.0);
    while calls < WARM_UP.0 || (warm_s < WARM_UP.1 && calls < MOST) {
        if stop() {
            return Ok(SampleOutcome::Stopped);
        }
        warm_s += bench.once()?;
        calls += 1;
        if warm_s > SLOW_S {
            break;
        }
    }
    let mut least: Option<Sample> = None;
    for _ in 0..TRIES {
        let Some(s) = once(bench, stop)? else { return Ok(SampleOutcome::Stopped) };
        if least.is_none_or(|l| s.others < l.others) {
            least = Some(s);
        }
        if least.is_some_and(|l| l.others <= QUIET) {
            break;
        }
        std::thread::sleep(WAIT);
    }
    Ok(least.map_or(SampleOutcome::Stopped, SampleOutcome::Done))
}

/// One sample; `None` if `stop` said so.
fn once(bench: &mut dyn Bench, stop: &dyn Fn() -> bool) -> Result<Option<Sample>> {
    let (before, others, begin) = (bench.clock_mhz(), bench.others_s(), Instant::now());
    let (mut times, mut all_s) = (Vec::new(), 0.0);
    let enough = |times: &[f64], all_s: f64| {
        let slow = times.iter().any(|t| *t > SLOW_S);
        times.len() >= MOST || (times.len() >= if slow { FEWEST_SLOW } else { FEWEST } && all_s >= ENOUGH_S)
    };
    while !enough(&times, all_s) {
        if stop() {
            return Ok(None);
        }
        if !times.is_empty() && times.len().is_multiple_of(BATCH) && all_s < ENOUGH_S * times.len() as f64 / MOST as f64
        {
            bench.pause();
        }
        let t = bench.once()?;
        times.push(t);
        all_s += t;
    }
    let clocks: Vec<f64> = [before, bench.clock_mhz()].into_iter().flatten().collect();
    let clock_mhz = clocks.iter().sum::<f64>() / clocks.len().max(1) as f64;
    // A mock has no time of its own, and others take none of it.
    let whole = begin.elapsed().as_secs_f64() * bench.facts().threads as f64;
    let others = ((bench.others_s() - others) / whole.max(1e-9)).clamp(0.0, 1.0);
    Ok(Some(Sample { clock_mhz, others, ..summarise(times) }))
}

/// Median, interval and outliers of at least one time.
pub fn summarise(mut times: Vec<f64>) -> Sample {
    times.sort_by(f64::total_cmp);
    let n = times.len();
    let median_s = middle(&times);
    let mut far: Vec<f64> = times.iter().map(|t| (t - median_s).abs()).collect();
    far.sort_by(f64::total_cmp);
    let limit = FAR * 1.4826 * middle(&far);
    let outliers = far.iter().filter(|d| **d > limit && limit > 0.0).count();
    let below = ranks(n);
    Sample {
        median_s,
        interval_s: [times[below], times[n - 1 - below]],
        repeats: n,
        outliers,
        others: 0.0,
        clock_mhz: 0.0,
    }
}

fn middle(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

/// How many of n sorted values lie outside a 95 % interval of the median on either side: the most for which a binomial
/// of n fair draws is below or above with a probability of at most 2.5 % each.
fn ranks(n: usize) -> usize {
    let mut probability = 1.0;
    for _ in 0..n {
        probability *= 0.5;
    }
    let (mut below, mut sum) = (0, probability);
    while sum <= 0.025 && below < n / 2 {
        below += 1;
        probability *= (n - below + 1) as f64 / below as f64;
        sum += probability;
    }
    below.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_by_hand() {
        // Tables of the sign test: with 7 values the extremes, with 20 the 6th from either end, with 100 the 40th.
        assert_eq!([5, 6, 7, 20, 100].map(ranks), [0, 0, 0, 5, 39]);
        assert!(ranks(200) > 80 && ranks(200) < 100);
    }

    #[test]
    fn a_wild_time_is_flagged_and_moves_nothing() {
        let mut times: Vec<f64> = (0..21).map(|i| 1.0 + f64::from(i) * 1e-3).collect();
        let tame = summarise(times.clone());
        assert_eq!((tame.median_s, tame.outliers, tame.repeats), (1.01, 0, 21));
        times[20] = 50.0;
        let wild = summarise(times);
        assert_eq!((wild.median_s, wild.outliers), (1.01, 1));
        assert!(wild.interval_s[0] < 1.01 && wild.interval_s[1] > 1.01 && wild.interval_s[1] < 1.02);
    }

    /// Calls of a millisecond; others take the whole machine during the first sample, and nothing later.
    struct Busy {
        facts: crate::measure::Facts,
        calls: std::cell::Cell<u32>,
        pauses: std::cell::Cell<u32>,
        call_s: f64,
    }

    impl Bench for Busy {
        fn facts(&self) -> &crate::measure::Facts {
            &self.facts
        }
        fn prepare(&mut self, _: &Point) -> Result<Option<String>> {
            Ok(None)
        }
        fn once(&mut self) -> Result<f64> {
            self.calls.set(self.calls.get() + 1);
            std::thread::sleep(Duration::from_millis(1));
            Ok(self.call_s)
        }
        fn now_s(&self) -> f64 {
            0.0
        }
        fn others_s(&self) -> f64 {
            // A first sample ends after a few calls; far more than its wall time is taken.
            if self.calls.get() < 4 { 0.0 } else { 1e3 }
        }
        fn pause(&self) {
            self.pauses.set(self.pauses.get() + 1);
        }
        fn clock_mhz(&self) -> Option<f64> {
            None
        }
    }

    #[test]
    fn short_calls_are_spread() {
        for (call_s, wanted) in [(1e-6, (200, 9)), (9e-4, (200, 9)), (2e-3, (100, 0))] {
            let facts = crate::measure::mock::Mock::new(1, None).facts().clone();
            let mut bench = Busy { facts, calls: 10.into(), pauses: 0.into(), call_s };
            let s = once(&mut bench, &|| false).unwrap().unwrap();
            assert_eq!((s.repeats, bench.pauses.get()), wanted, "{call_s}");
        }
    }

    #[test]
    fn a_disturbed_sample_is_taken_again() {
        let facts = crate::measure::mock::Mock::new(1, None).facts().clone();
        let mut bench = Busy { facts, calls: 0.into(), pauses: 0.into(), call_s: 0.05 };
        let point = Point { work: crate::measure::Work::Launch, pass: 1 };
        let SampleOutcome::Done(s) = sample(&mut bench, &point, &|| false).unwrap() else { panic!("no sample") };
        assert_eq!(s.others, 0.0);
        // Two to warm up, seven in the disturbed sample, seven in the next.
        assert_eq!((s.repeats, bench.calls.get()), (7, 16));
    }
}
