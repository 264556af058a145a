//! Collects what a run does, iteration by iteration.
//!
//! * [`requests`]: requests, tokens, latencies.
//! * [`served`]: what operations did, and what bound them.
//! * [`sample`]: the operations of single iterations.

pub mod requests;
pub mod sample;
pub mod served;

pub use requests::RequestTotals;
pub use sample::{Sample, TimedOp};
pub use served::{BoundBy, PhaseTotals, Served};

use super::Outcome;
use super::histogram::Histogram;
use super::rejection::Reason;
use super::series::Series;
use super::tables::{IterationRow, RequestRow, Tables};
use super::timeline::Timeline;
use crate::engine::Executor;
use crate::experiment::Experiment;
use crate::machine::Plan;
use crate::network::Network;
use crate::routing::LayerRouting;
use crate::serving::Live;
use moesim_core::{Diag, Picos, Result};
use moesim_traces::Trace;
use moesim_traces::arrivals::Request;
use sample::SoFar;

/// Sums over a run; all public, since they are read once it is over.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Requests and tokens.
    pub requests: RequestTotals,
    /// What operations did.
    pub served: Served,
    /// Largest over mean tokens of an expert group, a layer and iteration, in thousandths.
    pub imbalance: Histogram,
    /// Iterations.
    pub iterations: u64,
    /// KV cache in use over the iterations, bytes x picoseconds, a device of each rank.
    pub kv_time: u128,
    /// Sequences running over the iterations, sequences x picoseconds.
    pub sequence_time: u128,
    /// Picoseconds of iterations.
    pub running_time: u128,
    /// End of the last iteration; once the run is over, its end.
    pub end: Picos,
    /// Utilisation over time: lanes of cores, memory channels, links.
    pub series: Series,
    /// Operations of single iterations.
    pub sample: Sample,
}

/// Collects during a run.
pub struct Recorder {
    totals: Totals,
    tables: Tables,
    unwritten: Option<Diag>,
    /// Sum and number of imbalances of the current iteration's layers.
    imbalance_now: (f64, u32),
}

impl Recorder {
    /// For a run of `plan`.
    pub fn new(plan: &Plan, x: &Experiment, tables: Tables) -> Self {
        let served = Served::new(&plan.machine);
        let totals = Totals {
            requests: RequestTotals::new(x.window, x.slo),
            series: Series::new(served.columns()),
            served,
            imbalance: Histogram::default(),
            iterations: 0,
            kv_time: 0,
            sequence_time: 0,
            running_time: 0,
            end: Picos::ZERO,
            sample: Sample::default(),
        };
        Self { totals, tables, unwritten: None, imbalance_now: (0.0, 0) }
    }

    /// What was collected so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Iterations so far.
    pub fn iterations(&self) -> u64 {
        self.totals.iterations
    }

    /// Keeps operations for a timeline from now on.
    pub fn keep_timeline(&mut self, timeline: Timeline) {
        self.totals.sample.timeline = Some(timeline);
    }

    /// A request came.
    pub fn admit(&mut self) {
        self.totals.requests.admitted += 1;
    }

    /// Rejects `request`, which needs more of something than there can ever be.
    pub fn reject(&mut self, reason: Reason, request: &Request, needed: u64, limit: u64) {
        self.totals.requests.reject(reason, request, needed, limit);
    }

    /// A sequence got one request more (1) or less (-1) in flight.
    pub fn bound(&mut self, sequence: u32, change: i32) {
        self.totals.requests.bound(sequence, change);
    }

    /// Positions were computed again.
    pub fn recomputed(&mut self, positions: u64) {
        self.totals.requests.recomputed += positions;
    }

    /// An output token of `live` appears at `now`.
    pub fn token(&mut self, live: &Live, now: Picos) {
        self.totals.requests.token(live, now);
    }

    /// `live` is done.
    pub fn request(&mut self, live: &Live, rank: usize, trace: &Trace, now: Picos) {
        let l = self.totals.requests.request(live, now);
        let Some(table) = &mut self.tables.requests else { return };
        table.row(&RequestRow {
            id: live.id,
            arrival_s: live.arrival.into(),
            prompt_tokens: live.prompt,
            output_tokens: live.output,
            rank,
            sequence: trace.sequence(live.binding.sequence as usize).id,
            offset: live.binding.offset,
            scheduled_s: live.first_scheduled.unwrap_or(now).into(),
            first_token_s: l.first.into(),
            finished_s: now.into(),
            ttft_ms: l.ttft.millis().into(),
            tpot_ms: l.tpot.map(|t| t.millis().into()),
            e2e_ms: l.e2e.millis().into(),
            preemptions: live.preemptions,
            recomputed_tokens: live.recomputed,
            session: live.turn.map(|t| t.session),
            turn: live.turn.map(|t| t.number),
        });
    }

    /// A layer's loads became known.
    pub fn imbalance(&mut self, routing: &LayerRouting) {
        let (mut most, mut sum) = (0u64, 0u64);
        for g in 0..routing.groups() {
            let load: u64 = routing.group_tokens(g).iter().map(|&n| u64::from(n)).sum();
            most = most.max(load);
            sum += load;
        }
        if sum > 0 {
            let ratio = most as f64 * routing.groups() as f64 / sum as f64;
            self.totals.imbalance.add((ratio * 1000.0).round() as u64);
            self.imbalance_now.0 += ratio;
            self.imbalance_now.1 += 1;
        }
    }

    /// An iteration is done.
    ///
    /// # Errors
    /// A critical path that does not sum to the iteration.
    pub fn iteration(&mut self, executor: &Executor, network: &Network, outcome: &Outcome) -> Result<()> {
        let (g, t) = (&executor.graph, &mut self.totals);
        t.iterations += 1;
        let took = u128::from(outcome.took());
        t.running_time += took;
        t.kv_time += took * u128::from(outcome.kv_used);
        t.sequence_time += took * u128::from(outcome.size.sequences);
        t.served.breakdown.idle += outcome.begin.since(t.end).0;
        t.served.operations(g, outcome);
        let [prompts, decode] = &t.served.phases;
        let so_far = SoFar {
            iterations: t.iterations,
            mostly_prompts: decode.time <= prompts.time,
            sequence_time: t.sequence_time,
            running_time: t.running_time,
        };
        let keep = t.sample.keeps(outcome, &so_far);
        t.sample.clear_path();
        t.served.path(g, outcome, |i| {
            if keep {
                t.sample.on_path(i);
            }
        })?;
        t.series.add(outcome.begin.0, outcome.end.0, t.served.row(network));
        t.sample.keep(g, t.iterations, keep);
        t.end = outcome.end;
        let imbalance = std::mem::take(&mut self.imbalance_now);
        let Some(table) = &mut self.tables.iterations else { return Ok(()) };
        table.row(&IterationRow {
            iteration: t.iterations,
            start_s: outcome.begin.into(),
            end_s: outcome.end.into(),
            sequences: outcome.size.sequences,
            prefill_tokens: outcome.size.prefill_tokens,
            decode_tokens: outcome.size.decode_tokens,
            waiting: outcome.waiting,
            kv_used_bytes: outcome.kv_used,
            imbalance: (imbalance.0 / f64::from(imbalance.1.max(1))).into(),
        });
        Ok(())
    }

    /// Nothing ran from `begin` to `end` but transfers of weights.
    pub fn idle(&mut self, begin: Picos, end: Picos, network: &Network) {
        if end > begin {
            let t = &mut self.totals;
            t.series.add(begin.0, end.0, t.served.idle_row(network));
        }
    }

    /// Why the tables are not whole, once the run is over.
    pub fn unwritten(&self) -> Option<Diag> {
        self.unwritten.clone()
    }

    /// The run is over at `now`: tables are closed, what must hold is checked.
    ///
    /// # Errors
    /// A broken invariant. What of the tables could not be written is said by [`Recorder::unwritten`].
    pub fn end(&mut self, now: Picos, plan: &Plan, network: &Network) -> Result<()> {
        let t = &mut self.totals;
        t.served.breakdown.idle += now.since(t.end).0;
        t.end = now;
        self.unwritten = self.tables.finish().err();
        t.served.check(now, plan, network)
    }
}
