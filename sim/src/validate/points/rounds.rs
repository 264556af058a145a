//! A closed loop, round by round, until its means are known.
//!
//! A round is as many requests as there are clients, in the order in which they are done. Ten rounds were measured: in the first all
//! clients send at once to a server that was warmed up and is idle again, in the last no request follows, so that the batch empties. Rounds
//! in between are alike but for chance and for clients falling out of step. So the first and the last are always simulated, and of those
//! between as many as the means of all ten need to stand still; those that were left out count as the mean of the others.

use super::express::Expressed;
use crate::metrics::Summary;
use crate::metrics::tables::Tables;
use crate::registry::Registry;
use crate::routing::Opened;
use crate::simulation::Simulation;
use moesim_core::{Diag, Picos, Result};
use std::collections::BTreeMap;

/// Rounds of a measurement.
pub const MEASURED: u32 = 10;
/// Rounds before the last one that are simulated at least. Clients fall out of step in the first of them, which makes later ones longer.
const FEWEST: usize = 5;
/// The means of all rounds have come to rest when one more round moves them by no more than this.
const REST: f64 = 0.01;

/// What a point takes in the simulation.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// Mean time to the first token, milliseconds.
    pub ttft_ms: f64,
    /// Mean time per output token after the first, milliseconds.
    pub tpot_ms: f64,
    /// Rounds that were simulated, of [`MEASURED`].
    pub rounds: u32,
    /// What bound most of the time.
    pub bottleneck: Option<&'static str>,
    /// Parts of the critical path by kind of operation; they sum to 1.
    pub breakdown: BTreeMap<&'static str, f64>,
    /// Where costs came from, by operation.
    pub costs: BTreeMap<&'static str, String>,
}

/// Runs a point; `go_on` is asked after every iteration.
///
/// # Errors
/// What a run refuses, a point of which no or not every request can be served, and a stop by `go_on`.
pub fn simulate(
    point: &Expressed,
    registry: &Registry,
    open: &dyn Fn() -> Result<Opened>,
    go_on: &dyn Fn() -> bool,
) -> Result<Simulated> {
    let x = &point.resolved;
    let mut s = Simulation::new(x, registry, || open().map(|o| o.trace), Tables::default())?;
    let clients = s.experiment.deployment.max_sequences as u64;
    let mut now = Picos::ZERO;
    let mut means = Means::default();
    let mut closed = false;
    while s.step(&mut now)? {
        if !go_on() {
            return Err(Diag::run("interrupted").cure("run it again"));
        }
        let r = &s.recorder.totals().requests;
        if !closed && r.finished >= (means.rounds.len() as u64 + 1) * clients {
            means.round([(r.ttft.mean(), r.ttft.len()), (r.tpot.mean(), r.tpot.len())]);
            if means.rest() {
                s.close();
                closed = true;
            }
        }
    }
    s.finish(now)?;
    let r = &s.recorder.totals().requests;
    // Without an early end the last clients of all are in no round yet.
    means.round([(r.ttft.mean(), r.ttft.len()), (r.tpot.mean(), r.tpot.len())]);
    let summary = Summary::new(&s.ended());
    if let Some(first) = summary.requests.rejections.first() {
        return Err(Diag::does_not_fit(first.text()).place("requests").cure(first.reason.cure()));
    }
    let [ttft, tpot] = means.all();
    Ok(Simulated {
        ttft_ms: ttft / 1e9,
        tpot_ms: tpot / 1e9,
        rounds: means.rounds.len() as u32,
        bottleneck: summary.bottleneck,
        breakdown: summary.breakdown.iter().map(|(kind, s)| (*kind, s / summary.simulated_s)).collect(),
        costs: summary.costs,
    })
}

/// Mean TTFT and TPOT of each round.
#[derive(Clone, Debug, Default)]
struct Means {
    rounds: Vec<[f64; 2]>,
    /// Sums and counts of all rounds so far.
    sums: [(f64, u64); 2],
}

impl Means {
    /// A round is over: means and counts of all requests so far. Requests of a single token have no time between tokens.
    fn round(&mut self, so_far: [(f64, u64); 2]) {
        let mut round = [0.0; 2];
        for (i, (mean, n)) in so_far.into_iter().enumerate() {
            let (sum, before) = self.sums[i];
            let all = mean * n as f64;
            round[i] = if n > before { (all - sum) / (n - before) as f64 } else { mean };
            self.sums[i] = (all, n);
        }
        self.rounds.push(round);
    }

    /// Means of all rounds measured, if the first `n` were simulated, and `last` after them.
    fn of(&self, n: usize, last: Option<[f64; 2]>) -> [f64; 2] {
        let measured = MEASURED as usize;
        let between = &self.rounds[1.min(n)..n];
        std::array::from_fn(|i| {
            let mean = |rounds: &[[f64; 2]]| rounds.iter().map(|r| r[i]).sum::<f64>() / rounds.len() as f64;
            let usual = if between.is_empty() { self.rounds[0][i] } else { mean(between) };
            let known = usize::from(last.is_some());
            let left_out = measured.saturating_sub(n + known) as f64;
            let sum = self.rounds[..n].iter().chain(&last).map(|r| r[i]).sum::<f64>();
            (sum + left_out * usual) / (left_out + (n + known) as f64)
        })
    }

    /// Whether one round more has moved the means of all by no more than [`REST`].
    fn rest(&self) -> bool {
        let n = self.rounds.len();
        if n + 1 >= MEASURED as usize {
            return true;
        }
        let still = |a: f64, b: f64| (a - b).abs() <= REST * b.abs();
        n >= FEWEST && {
            let (before, now) = (self.of(n - 1, None), self.of(n, None));
            (0..2).all(|i| still(before[i], now[i]))
        }
    }

    /// Means of all rounds measured; the last one simulated is that in which the batch empties.
    fn all(&self) -> [f64; 2] {
        let n = self.rounds.len() - 1;
        if n == 0 { self.rounds[0] } else { self.of(n, Some(self.rounds[n])) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{point, uniform};
    use super::*;

    #[test]
    fn means_by_hand() {
        let mut m = Means::default();
        // Rounds of two requests with means 5, 2, 2, and 1 in the end.
        m.round([(5.0, 2), (5.0, 2)]);
        assert!(!m.rest());
        m.round([(3.5, 4), (3.5, 4)]);
        assert!(!m.rest());
        for requests in [6, 8, 10] {
            assert!(!m.rest(), "too few");
            let mean = (2.0 * 5.0 + (requests - 2) as f64 * 2.0) / requests as f64;
            m.round([(mean, requests), (mean, requests)]);
        }
        assert!(m.rest(), "the fifth is as the fourth");
        let mean = (2.0 * 5.0 + 8.0 * 2.0 + 2.0 * 1.0) / 12.0;
        m.round([(mean, 12), (mean, 12)]);
        // 5 + 8 x 2 + 1 over ten.
        assert!(m.all().iter().all(|all| (all - 2.2).abs() < 1e-12), "{:?}", m.all());
        assert_eq!(m.rounds.len(), 6);
    }

    #[test]
    fn means_that_move_go_on_to_the_last_but_one_round() {
        let mut m = Means::default();
        let mut sum = 0.0;
        for round in 1..=9u32 {
            sum += f64::from(round);
            m.round([(sum / f64::from(round), u64::from(round)); 2]);
            assert_eq!(m.rest(), round == 9, "{round}");
        }
        m.round([((sum + 10.0) / 10.0, 10); 2]);
        assert!(m.all().iter().all(|mean| (mean - 5.5).abs() < 1e-12), "{:?}", m.all());
    }

    /// Fewer rounds say nearly what all ten do.
    #[test]
    fn an_early_end_stands_for_all_rounds() {
        let e = uniform(&point());
        let open = || crate::routing::Cache::none().open(e.resolved.routing(), &|_| {});
        let few = simulate(&e, &Registry::builtin(), &open, &|| true).unwrap();
        let mut s =
            Simulation::new(&e.resolved, &Registry::builtin(), || open().map(|o| o.trace), Tables::default()).unwrap();
        s.run(&mut |_| true).unwrap();
        let r = &s.recorder.totals().requests;
        assert_eq!(r.finished, 40);
        // Rounds of four requests: what they have in common with others' prompts varies from round to round.
        let all = r.tpot.mean() / 1e9;
        assert!((few.tpot_ms / all - 1.0).abs() < 0.1, "{all} {few:?}");
        // Times to the first token of so few requests vary.
        assert!((few.ttft_ms / (r.ttft.mean() / 1e9) - 1.0).abs() < 0.25, "{few:?}");
        assert!(few.rounds < MEASURED, "{few:?}");
        assert!((few.breakdown.values().sum::<f64>() - 1.0).abs() < 1e-9);
        let stopped = simulate(&e, &Registry::builtin(), &open, &|| false).unwrap_err();
        assert!(stopped.to_string().contains("interrupted"), "{stopped}");
    }
}
