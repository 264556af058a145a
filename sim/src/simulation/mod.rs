//! One run: requests arrive, ranks form batches, iterations are lowered and executed, everything is recorded.

mod arrivals;
mod pass;
mod setup;
mod trace;

use crate::engine::Executor;
use crate::experiment::Experiment;
use crate::framework::Framework;
use crate::machine::Plan;
use crate::metrics::rejection::Reason;
use crate::metrics::summary::Sessions;
use crate::metrics::{Ended, Outcome, Recorder};
use crate::network::Network;
use crate::placing::PlacementReport;
use crate::policy::{ExecutionPolicy, Report};
use crate::replacement::{Boundary, Replacer};
use crate::routing::{Binder, Replay, Source};
use crate::serving::{Batch, LoadBalancer, Rank, Scheduler, Step};
use arrivals::Line;
use moesim_core::{Diag, Picos, Result};
use pass::{Begin, Parts, Pass};
use std::collections::BTreeMap;
pub(crate) use trace::check_trace;
pub use trace::open_trace;

/// Called after every iteration, which may take microseconds or seconds; false stops the run.
pub type Watch<'a> = &'a mut dyn FnMut(&Progress) -> bool;

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Simulated time.
    pub now: Picos,
    /// Requests that came.
    pub admitted: u64,
    /// Requests that are done.
    pub finished: u64,
    /// Iterations.
    pub iterations: u64,
}

/// A run that is set up.
pub struct Simulation {
    /// What is simulated, with the settings of policies as they are, defaults included.
    pub(crate) experiment: Experiment,
    pub(crate) plan: Plan,
    pub(crate) executor: Executor,
    pub(crate) replay: Replay,
    pub(crate) source: Source,
    pub(crate) network: Network,
    policy: Box<dyn ExecutionPolicy>,
    pub(crate) recorder: Recorder,
    /// Bytes of weights on the fullest device.
    weight_bytes: u64,
    /// The execution policy keeps experts elsewhere than on devices.
    offloads: bool,
    /// Where the costs of operations come from.
    pub(crate) costs: BTreeMap<&'static str, String>,
    /// Their mean relative errors, where they are known.
    pub(crate) errors: BTreeMap<&'static str, f64>,
    /// The serving engine, if the experiment has one.
    pub(crate) engine: Option<Framework>,
    /// Iterations without prompts from one look for new requests to the next.
    receive_interval: u32,
    /// Iterations without prompts since the last look; the most where one is due.
    unread: u32,
    /// Where the placement comes from, if from a file.
    placement: Option<PlacementReport>,
    /// What moves experts, if they move.
    pub(crate) replacement: Option<Replacer>,
    scheduler: Box<dyn Scheduler>,
    balancer: Box<dyn LoadBalancer>,
    pub(crate) ranks: Vec<Rank>,
    binder: Binder,
    line: Line,
    pub(crate) batch: Batch,
    pass: Pass,
    /// What came of the last iteration.
    pub(crate) last: Outcome,
    queued: Vec<u32>,
    /// Ids and top_k of each MoE layer, if they differ; sequences that were checked against them.
    limits: Vec<(u32, u32)>,
    checked: Vec<bool>,
    /// How settings were read, where the user should know.
    notes: Vec<String>,
}

/// Where the clock ends, 106 days: half of what 64 bits of picoseconds hold, so that sums on the way do not wrap.
const CLOCK: Picos = Picos(1 << 63);

impl Simulation {
    /// Runs to the end of the last request.
    ///
    /// # Errors
    /// Input found wrong on the way, a table that cannot be written, a broken invariant, or a stop by `watch`.
    pub fn run(&mut self, watch: Watch) -> Result<()> {
        let mut now = Picos::ZERO;
        while self.step(&mut now)? {
            if !watch(&self.progress(now)) {
                return Err(Diag::run("interrupted").cure("run it again; nothing was written"));
            }
        }
        self.finish(now)?;
        watch(&self.progress(now));
        Ok(())
    }

    /// Users of a closed loop send no more; what they have sent is served.
    pub(crate) fn close(&mut self) {
        self.line.close();
    }

    /// After the last [`Simulation::step`], which ended at `now`: checks what must hold.
    pub(crate) fn finish(&mut self, now: Picos) -> Result<()> {
        self.executor.begin();
        self.replace(now, true)?;
        let r = &self.recorder.totals().requests;
        if r.admitted != r.finished + r.rejected {
            return Err(Diag::run("requests are not conserved").cure("report this with the experiment"));
        }
        self.recorder.end(now, &self.plan, &self.network)
    }

    /// One iteration from `now` on, which then is its end; false if there is nothing left to do. The operations stay in the
    /// executor's graph until the next one.
    pub(crate) fn step(&mut self, now: &mut Picos) -> Result<bool> {
        loop {
            if self.receives() {
                self.admit(*now)?;
                self.unread = 0;
            }
            if self.batch.schedule(&mut *self.scheduler, &self.plan, &mut self.ranks) {
                break;
            }
            match self.line.next_arrival() {
                Some(at) => {
                    *now = (*now).max(at);
                    self.unread = u32::MAX;
                    on_the_clock(*now)?;
                }
                None if self.ranks.iter().any(|r| r.load() > 0) => {
                    return Err(Diag::run("requests wait and the scheduler gives them nothing to do")
                        .cure("mend the scheduler: with nothing running it must admit a request"));
                }
                None => return Ok(false),
            }
        }
        self.replace(*now, false)?;
        self.batch.gather(&self.plan, &self.ranks);
        self.queued.clear();
        self.queued.extend(self.ranks.iter().map(|r| r.load() as u32));
        let begin = Begin { now: *now, batch: &self.batch, ranks: &self.ranks, queued: &self.queued };
        let mut parts = Parts {
            plan: &self.plan,
            executor: &mut self.executor,
            network: &mut self.network,
            replay: &mut self.replay,
            source: &self.source,
            policy: &mut *self.policy,
            recorder: &mut self.recorder,
        };
        self.last = self.pass.run(&begin, &mut parts)?;
        let end = self.last.end;
        on_the_clock(end)?;
        self.replacement.iter_mut().for_each(|r| r.send(end, &mut self.network));
        self.unread = if self.batch.size.prefill_tokens > 0 { u32::MAX } else { self.unread.saturating_add(1) };
        self.complete()?;
        self.recorder.iteration(&self.executor, &self.network, &self.last)?;
        *now = end;
        Ok(true)
    }

    /// Whether the scheduler looks for new requests before this iteration: after one with prompts, after as many without as the engine
    /// says, or where it has nothing to do.
    fn receives(&self) -> bool {
        self.unread >= self.receive_interval || self.ranks.iter().all(|r| r.load() == 0)
    }

    /// Experts that have arrived by `now` are taken, at an iteration boundary or at the end of the run.
    fn replace(&mut self, now: Picos, last: bool) -> Result<()> {
        let Some(r) = &mut self.replacement else { return Ok(()) };
        let (iterations, since) = (self.recorder.iterations(), self.recorder.totals().end);
        let at = Boundary { now, since, iterations, last, plan: &self.plan };
        r.boundary(&at, &mut self.replay, &mut self.network, &mut |from, to, network| {
            self.recorder.idle(from, to, network);
        })
    }

    fn progress(&self, now: Picos) -> Progress {
        let r = &self.recorder.totals().requests;
        Progress { now, admitted: r.admitted, finished: r.finished, iterations: self.recorder.iterations() }
    }

    /// How settings were read, where the user should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The run as its outputs read it, once it is over.
    pub fn ended(&self) -> Ended<'_> {
        let mut report = Report::default();
        self.policy.report(&mut report);
        Ended {
            experiment: self.experiment.clone(),
            plan: &self.plan,
            totals: self.recorder.totals(),
            network: &self.network,
            replay: &self.replay,
            trace: self.source.trace(),
            provenance: self.pass.provenance,
            selections: self.pass.selections,
            costs: &self.costs,
            errors: &self.errors,
            engine: self.engine.as_ref(),
            oracle: self.policy.oracle(),
            offloads: self.offloads,
            report,
            placement: self.placement.as_ref(),
            replacement: self.replacement.as_ref().map(Replacer::report),
            sessions: self.line.sessions().map(Sessions::from),
            arrival_notes: self.line.notes(),
            operations: self.executor.operations(),
            weight_bytes: self.weight_bytes,
            ranks: &self.ranks,
        }
    }

    /// Takes in every request that has arrived by `now`.
    fn admit(&mut self, now: Picos) -> Result<()> {
        while let Some(request) = self.line.take(now).map_err(in_arrivals)? {
            self.recorder.admit();
            // A session's turns have their history in common, and so their routing.
            let binding = self.binder.bind(request.turn.map_or(request.id, |t| t.session));
            // Positions computed: the last output token is never fed back.
            let longest = request.prompt_tokens.checked_add(request.output_tokens - 1).ok_or_else(|| {
                Diag::input(format!("request {} is longer than 2^32 tokens", request.id)).cure("shorten it")
            })?;
            let (needed, room) = (self.plan.kv_peak_bytes(longest), self.ranks[0].kv.capacity());
            let (all, context) = (u64::from(longest) + 1, self.plan.model.context.map_or(u64::MAX, u64::from));
            if all > context || needed > room {
                match all > context {
                    true => self.recorder.reject(Reason::Context, &request, all, context),
                    false => self.recorder.reject(Reason::KvCache, &request, needed, room),
                }
                self.line.release(now, request.turn, true).map_err(in_arrivals)?;
                continue;
            }
            if !std::mem::replace(&mut self.checked[binding.sequence as usize], true) {
                self.source.check_layers(binding.sequence as usize, &self.limits)?;
            }
            if !self.plan.moe_layers.is_empty() {
                self.source.admit(request.id, binding, request.prompt_tokens, request.output_tokens)?;
                self.recorder.bound(binding.sequence, 1);
            }
            self.queued.clear();
            self.queued.extend(self.ranks.iter().map(|r| r.load() as u32));
            let rank = self.balancer.choose(&self.queued).min(self.ranks.len() - 1);
            self.ranks[rank].waiting.push_back(crate::serving::Live {
                id: request.id,
                arrival: request.arrival,
                prompt: request.prompt_tokens,
                output: request.output_tokens,
                turn: request.turn,
                binding,
                generated: 0,
                computed: 0,
                high_water: 0,
                recomputed: 0,
                kv_bytes: 0,
                first_scheduled: None,
                first_token: None,
                last_token: Picos::ZERO,
                preemptions: 0,
            });
        }
        Ok(())
    }

    /// The iteration ended: positions are computed, tokens sampled, requests done.
    fn complete(&mut self) -> Result<()> {
        let end = self.last.end;
        for (r, (rank, steps)) in self.ranks.iter_mut().zip(&self.batch.steps).enumerate() {
            let mut done = false;
            for &Step { index, count } in steps {
                let live = &mut rank.running[index as usize];
                let again = live.high_water.saturating_sub(live.computed).min(count);
                live.recomputed += again;
                self.recorder.recomputed(u64::from(again));
                live.computed += count;
                live.high_water = live.high_water.max(live.computed);
                live.first_scheduled.get_or_insert(self.last.begin);
                if live.computed == live.target() {
                    self.recorder.token(live, end);
                    live.generated += 1;
                    live.first_token.get_or_insert(end);
                    live.last_token = end;
                    done |= live.generated == live.output;
                }
            }
            if done {
                let mut kept = 0;
                for i in 0..rank.running.len() {
                    if rank.running[i].generated == rank.running[i].output {
                        let live = &rank.running[i];
                        rank.kv.give(live.kv_bytes);
                        self.recorder.request(live, r, self.source.trace(), end);
                        if !self.plan.moe_layers.is_empty() {
                            self.recorder.bound(live.binding.sequence, -1);
                        }
                        self.line.release(end, live.turn, false).map_err(in_arrivals)?;
                    } else {
                        rank.running.swap(kept, i);
                        kept += 1;
                    }
                }
                rank.running.truncate(kept);
            }
        }
        Ok(())
    }
}

fn on_the_clock(at: Picos) -> Result<()> {
    if at < CLOCK {
        return Ok(());
    }
    Err(Diag::input("the run passes 106 days of simulated time, where the clock ends")
        .place("workload")
        .cure("shorten the workload or raise its rate; if it is short, look for a slow rate in the hardware"))
}

/// Keys of the arrivals are relative to their table; what is in their file has its name.
fn in_arrivals(d: Diag) -> Diag {
    match (&d.file, &d.place) {
        (None, Some(key)) => Diag { place: Some(format!("workload.arrivals.{key}")), ..d },
        _ => d,
    }
}

#[cfg(test)]
mod tests;
