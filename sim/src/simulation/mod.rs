//! One run: requests arrive, ranks form batches, iterations are lowered and executed, everything is recorded.

mod arrivals;
mod pass;
mod trace;

use crate::costs::{Calibrated, compute_share};
use crate::engine::Executor;
use crate::experiment::{Fidelity, Resolved};
use crate::machine::{Machine, Plan};
use crate::metrics::recorder::Recorder;
use crate::metrics::rejection::Reason;
use crate::metrics::tables::Tables;
use crate::network::Network;
use crate::placing;
use crate::policy::{Executing, all_resident};
use crate::registry::Registry;
use crate::replacement::Replacer;
use crate::routing::{Binder, Provenance, Replay, Selections, Source};
use crate::serving::{LoadBalancer, Rank, Scheduler, Step};
use arrivals::Line;
pub(crate) use arrivals::SessionCounts;
use moesim_core::{Diag, Picos, Result};
use moesim_solver::traffic::Mode;
use moesim_traces::Trace;
use pass::Iteration;
pub(crate) use pass::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;
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
    pub(crate) plan: Plan,
    pub(crate) executor: Executor,
    pub(crate) replay: Replay,
    pub(crate) source: Source,
    pub(crate) network: Network,
    pub(crate) policy: Executing,
    pub(crate) recorder: Recorder,
    /// Bytes of weights on the fullest device.
    pub(crate) weight_bytes: u64,
    /// Where the costs of operations come from.
    pub(crate) costs: BTreeMap<&'static str, String>,
    pub(crate) fidelity: Fidelity,
    /// Where the placement comes from, if from a file.
    pub(crate) placement: Option<placing::PlacementReport>,
    /// What moves experts, if they move.
    pub(crate) replacement: Option<Replacer>,
    scheduler: Box<dyn Scheduler>,
    balancer: Box<dyn LoadBalancer>,
    pub(crate) ranks: Vec<Rank>,
    binder: Binder,
    line: Line,
    iteration: Iteration,
    queued: Vec<u32>,
    /// Ids and top_k of each MoE layer, if they differ; sequences that were checked against them.
    limits: Vec<(u32, u32)>,
    checked: Vec<bool>,
}

/// Where the clock ends, 106 days: half of what 64 bits of picoseconds hold, so that sums on the way do not wrap.
const CLOCK: Picos = Picos(1 << 63);

impl Simulation {
    /// Sets up a run of `resolved`. Its routing trace comes from `open` ([`open_trace`], or one that points of a sweep share), which
    /// is asked last, because routing may have to be drawn: what does not fit is refused at once.
    ///
    /// # Errors
    /// Wrong input: what does not fit, does not match, or cannot be read.
    pub fn new(
        resolved: &Resolved,
        registry: &Registry,
        open: impl FnOnce() -> Result<Arc<Trace>>,
        tables: Tables,
    ) -> Result<Self> {
        let x = &resolved.experiment;
        let way = registry.dispatch(&x.policy)?;
        let costs = Calibrated::new(resolved, &*way)?;
        let machine = Machine::calibrated(resolved.hardware.clone(), costs.kernels, compute_share(resolved)?)?;
        let plan = Plan::new(resolved.model.clone(), machine, x.deployment.clone())?;
        way.check(&plan)?;
        if plan.deployment.tokens == Mode::TokenFollows && !way.follows() {
            return Err(Diag::input(format!(
                "policy.dispatch {:?} has no rule for tokens that follow",
                x.policy.dispatch
            ))
            .place("deployment.tokens")
            .cure("set policy.dispatch to \"flat\" or \"per-selection\""));
        }
        let placed = placing::placement(&plan, resolved, registry)?;
        let counting = way.counting(&plan);
        let map = plan.slot_map(&placed.homes, &counting);
        let policy = registry.execution(&x.policy)?;
        policy.check(&plan)?;
        let resident = policy.resident_expert_bytes(&plan, &map);
        let replacement = Replacer::new(resolved, registry, &plan, &placed.homes, counting)?;
        let elsewhere = resident != all_resident(&plan, &map);
        if replacement.is_some() && elsewhere {
            return Err(Diag::input(format!("{} keeps experts elsewhere than on devices", x.policy.execution))
                .place("policy.replacement")
                .cure("set policy.execution to \"expert-parallel\", or leave policy.replacement out"));
        }
        let held = resident.into_iter().zip(plan.common_part_bytes(&map)).map(|(own, common)| own + common);
        let held = replacement.as_ref().map_or_else(|| held.max().unwrap_or(0), Replacer::resident_bytes);
        let weight_bytes = plan.common_weight_bytes() + held;
        let kv = plan.kv_room(weight_bytes);
        let kv = kv.map_err(|d| match &replacement {
            Some(r) => r.does_not_fit(d),
            None if elsewhere => Diag {
                cure: "set policy.cache_fraction lower or to \"auto\", use more devices, or narrower weights".into(),
                ..d.place("policy.cache_fraction")
            },
            None if !plan.machine.copy.is_empty() && !plan.moe_layers.is_empty() => {
                let cure = format!("{}, or keep experts in host memory: policy.execution = \"on-demand\"", d.cure);
                Diag { cure, ..d }
            }
            None => d,
        })?;
        let trace = open()?;
        check_trace(&plan, &trace)?;
        let width = trace.width();
        let rows = (0..trace.sequences())
            .map(|i| {
                let s = trace.sequence(i);
                (if s.decode.is_empty() { s.prefill.len() } else { s.decode.len() } / width) as u32
            })
            .collect();
        let source = Source::new(trace, x.workload.routing.missing(), x.seed);
        let limits = plan.moe_layers.iter().filter_map(|&l| plan.model.decoder[l].moe().map(|m| (m.ids(), m.top_k)));
        let mut limits: Vec<(u32, u32)> = limits.collect();
        if limits.windows(2).all(|l| l[0] == l[1]) {
            limits.clear();
        }
        let executor = Executor::new(plan.machine.resources.clone(), x.fidelity.execution);
        Ok(Self {
            network: Network::new(&plan, x.fidelity.network, way, costs.exchange),
            recorder: Recorder::new(&plan, x, tables)?,
            scheduler: registry.scheduler(&x.policy)?,
            balancer: registry.balancer(&x.policy)?,
            ranks: (0..plan.ranks.dp).map(|_| Rank::new(kv)).collect(),
            binder: Binder::new(rows, x.seed),
            line: x.workload.arrivals.open(x.seed, &resolved.base).and_then(Line::new).map_err(in_arrivals)?,
            iteration: Iteration::new(&plan),
            queued: Vec::new(),
            checked: vec![limits.is_empty(); source.trace().sequences()],
            limits,
            replay: Replay::new(map),
            executor,
            source,
            policy,
            costs: costs.words,
            fidelity: x.fidelity,
            placement: placed.report,
            replacement,
            weight_bytes,
            plan,
        })
    }

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
        self.executor.begin();
        self.replace(now, true)?;
        let r = &self.recorder;
        if r.admitted != r.finished + r.rejected {
            return Err(Diag::run("requests are not conserved").cure("report this with the experiment"));
        }
        self.recorder.end(now, &self.plan, &self.network)?;
        watch(&self.progress(now));
        Ok(())
    }

    /// One iteration from `now` on, which then is its end; false if there is nothing left to do. The operations stay in the
    /// executor's graph until the next one.
    pub(crate) fn step(&mut self, now: &mut Picos) -> Result<bool> {
        loop {
            self.admit(*now)?;
            if self.batch() {
                break;
            }
            match self.line.next_arrival() {
                Some(at) => {
                    *now = (*now).max(at);
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
        self.queued.clear();
        self.queued.extend(self.ranks.iter().map(|r| r.load() as u32));
        let end = self.iteration.run(
            *now,
            self.recorder.iterations,
            &self.plan,
            &mut self.executor,
            &mut self.replay,
            &self.source,
            &mut self.network,
            &mut self.policy,
            &mut self.recorder,
            &self.ranks,
            &self.queued,
        )?;
        on_the_clock(end)?;
        self.replacement.iter_mut().for_each(|r| r.send(end, &mut self.network));
        let waiting = self.ranks.iter().map(|r| r.waiting.len()).sum();
        // Before requests that are done give theirs back.
        let kv = self.ranks.iter().map(|r| r.kv.used()).sum();
        self.complete(end)?;
        self.recorder.iteration(&self.executor, &self.network, *now, end, &self.iteration.shape(), waiting, kv)?;
        *now = end;
        Ok(true)
    }

    /// Experts that have arrived by `now` are taken, at an iteration boundary or at the end of the run.
    fn replace(&mut self, now: Picos, last: bool) -> Result<()> {
        let Some(r) = &mut self.replacement else { return Ok(()) };
        r.boundary(now, last, &self.plan, &mut self.replay, &mut self.network, &mut self.recorder)
    }

    /// What the last iteration computed, and when it began.
    pub(crate) fn last_iteration(&self) -> (Shape, Picos) {
        (self.iteration.shape(), self.iteration.begin)
    }

    fn progress(&self, now: Picos) -> Progress {
        let r = &self.recorder;
        Progress { now, admitted: r.admitted, finished: r.finished, iterations: r.iterations }
    }

    /// Where assignments came from so far.
    pub fn provenance(&self) -> &Provenance {
        &self.iteration.provenance
    }

    /// What became of them.
    pub fn selections(&self) -> &Selections {
        &self.iteration.selections
    }

    /// What the reader of the summary should know of the requests that came.
    pub fn arrival_notes(&self) -> Vec<String> {
        self.line.notes()
    }

    pub(crate) fn sessions(&self) -> Option<SessionCounts> {
        self.line.sessions()
    }

    /// Takes in every request that has arrived by `now`.
    fn admit(&mut self, now: Picos) -> Result<()> {
        while let Some(request) = self.line.take(now).map_err(in_arrivals)? {
            self.recorder.admitted += 1;
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

    /// Forms the batch of every rank; whether there is anything to compute.
    fn batch(&mut self) -> bool {
        let mut any = false;
        for (rank, steps) in self.ranks.iter_mut().zip(&mut self.iteration.steps) {
            steps.clear();
            if rank.load() > 0 {
                self.scheduler.plan(&self.plan, rank, steps);
                any |= !steps.is_empty();
            }
        }
        any
    }

    /// The iteration ended: positions are computed, tokens sampled, requests done.
    fn complete(&mut self, end: Picos) -> Result<()> {
        for (r, (rank, steps)) in self.ranks.iter_mut().zip(&self.iteration.steps).enumerate() {
            let mut done = false;
            for &Step { index, count } in steps {
                let live = &mut rank.running[index as usize];
                let again = live.high_water.saturating_sub(live.computed).min(count);
                live.recomputed += again;
                self.recorder.recomputed += u64::from(again);
                live.computed += count;
                live.high_water = live.high_water.max(live.computed);
                live.first_scheduled.get_or_insert(self.iteration.begin);
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
