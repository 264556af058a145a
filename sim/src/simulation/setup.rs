//! Setting up a run: everything is checked and laid out before the routing is drawn.

use super::arrivals::Line;
use super::pass::Pass;
use super::trace::check_trace;
use super::{Simulation, in_arrivals};
use crate::costs::Calibrated;
use crate::engine::Executor;
use crate::experiment::{Experiment, Policies, Resolved};
use crate::machine::Plan;
use crate::metrics::tables::Tables;
use crate::metrics::{Outcome, Recorder};
use crate::network::{Dispatch, Network};
use crate::placing::{self, Site};
use crate::policy::ExecutionPolicy;
use crate::registry::Registry;
use crate::replacement::{Laid, Replacer};
use crate::routing::{Binder, Counting, Replay, SlotMap, Source};
use crate::serving::{Batch, Rank};
use moesim_core::{Diag, Picos, Result};
use moesim_solver::Homes;
use moesim_solver::traffic::Mode;
use moesim_traces::Trace;
use std::sync::Arc;

impl Simulation {
    /// Sets up a run of `resolved`. Its routing trace comes from `open` ([`open_trace`](super::open_trace), or one that points of a
    /// sweep share), which is asked last, because routing may have to be drawn: what does not fit is refused at once.
    ///
    /// # Errors
    /// Wrong input: what does not fit, does not match, or cannot be read.
    pub fn new(
        resolved: &Resolved,
        registry: &Registry,
        open: impl FnOnce() -> Result<Arc<Trace>>,
        tables: Tables,
    ) -> Result<Self> {
        let made = registry.make(&resolved.experiment.policy)?;
        let experiment = Experiment { policy: made.settled, ..resolved.experiment.clone() };
        let x = &experiment;
        let costs = Calibrated::new(resolved, &*made.dispatch)?;
        let plan = placing::plan(resolved, costs.kernels, &*made.dispatch)?;
        check(&*made.dispatch, &plan, &x.policy)?;
        let placed = placing::placement(&plan, resolved, registry)?;
        let counting = made.dispatch.counting(&plan);
        let map = plan.slot_map(&placed.homes, &counting);
        made.execution.check(&plan)?;
        let replacement = replacer(resolved, registry, &plan, &placed.homes, counting)?;
        let room = Room::new(&plan, &map, &*made.execution, replacement.as_ref(), &x.policy)?;
        let trace = open()?;
        check_trace(&plan, &trace)?;
        let binder = Binder::new(rows(&trace), x.seed);
        let source = Source::new(trace, x.workload.routing.missing(), x.seed);
        let limits = limits(&plan);
        let front_end = resolved.engine.as_ref().and_then(|e| e.front_end.as_ref()).map_or(Picos::ZERO, |t| t.value);
        Ok(Self {
            executor: Executor::new(plan.machine.resources.clone(), x.fidelity.execution),
            network: Network::new(&plan, x.fidelity.network, made.dispatch, costs.exchange),
            recorder: Recorder::new(&plan, x, tables),
            scheduler: made.scheduler,
            balancer: made.balancer,
            ranks: (0..plan.ranks.dp).map(|_| Rank::new(room.kv)).collect(),
            binder,
            line: x
                .workload
                .arrivals
                .open(x.seed, &resolved.base)
                .and_then(|a| Line::new(a, front_end))
                .map_err(in_arrivals)?,
            batch: Batch::new(plan.ranks.dp),
            pass: Pass::new(&plan, [resolved.host_time(), resolved.eager_kernel()]),
            last: Outcome::default(),
            queued: Vec::new(),
            checked: vec![limits.is_empty(); source.trace().sequences()],
            limits,
            replay: Replay::new(map),
            source,
            policy: made.execution,
            costs: costs.words,
            errors: costs.errors,
            engine: resolved.engine.clone(),
            receive_interval: resolved.engine.as_ref().map_or(1, |e| e.receive_interval.value),
            unread: u32::MAX,
            placement: placed.report,
            replacement,
            weight_bytes: room.weights,
            offloads: room.offloads,
            notes: made.notes,
            plan,
            experiment,
        })
    }
}

fn check(way: &dyn Dispatch, plan: &Plan, p: &Policies) -> Result<()> {
    way.check(plan)?;
    if plan.deployment.tokens == Mode::TokenFollows && !way.follows() {
        return Err(Diag::input(format!("policy.dispatch \"{}\" has no rule for tokens that follow", p.dispatch))
            .place("deployment.tokens")
            .cure("set policy.dispatch to \"flat\" or \"per-selection\""));
    }
    Ok(())
}

/// What moves experts of an experiment, if they move.
fn replacer(
    resolved: &Resolved,
    registry: &Registry,
    plan: &Plan,
    homes: &Homes,
    counting: Counting,
) -> Result<Option<Replacer>> {
    let Some(settings) = &resolved.experiment.policy.replacement else { return Ok(None) };
    let method = || registry.placement(&settings.method);
    // Costs of a site of its own, so that what is asked here is not counted among the calls of the run.
    let price = |slots: usize, most: f64| {
        let site = Site::new(resolved, registry)?;
        Ok((site.curve(slots, most), site.node_of()))
    };
    let laid = Laid { plan, homes, counting, seed: resolved.experiment.seed };
    Replacer::new(settings, &method, &price, laid).map(Some)
}

/// Bytes of a device.
struct Room {
    /// Of all weights on the fullest.
    weights: u64,
    /// Of the KV cache.
    kv: u64,
    /// The execution policy keeps experts elsewhere than on devices.
    offloads: bool,
}

impl Room {
    fn new(
        plan: &Plan,
        map: &SlotMap,
        execution: &dyn ExecutionPolicy,
        replacement: Option<&Replacer>,
        p: &Policies,
    ) -> Result<Self> {
        let resident = execution.resident_expert_bytes(plan, map);
        let offloads = resident != plan.all_resident(map);
        if replacement.is_some() && offloads {
            return Err(Diag::input(format!("{} keeps experts elsewhere than on devices", p.execution))
                .place("policy.replacement")
                .cure("set policy.execution to \"expert-parallel\", or leave policy.replacement out"));
        }
        let held = resident.into_iter().zip(plan.common_part_bytes(map)).map(|(own, common)| own + common);
        let held = replacement.map_or_else(|| held.max().unwrap_or(0), Replacer::resident_bytes);
        let weights = plan.common_weight_bytes() + held;
        let kv = plan.kv_room(weights).map_err(|d| match replacement {
            Some(r) => r.does_not_fit(d),
            None if offloads => {
                let keys = p.execution.settings.keys().map(|k| format!("policy.execution.{k}"));
                let settings: Vec<String> = keys.collect();
                let less = match settings.is_empty() {
                    true => "choose another policy.execution".to_string(),
                    false => format!("have {} keep less on devices ({})", p.execution, settings.join(", ")),
                };
                Diag { cure: format!("{less}, use more devices, or narrower weights"), ..d.place("policy.execution") }
            }
            None if !plan.machine.copy.is_empty() && !plan.moe_layers.is_empty() => {
                let cure = format!("{}, or keep experts in host memory: policy.execution = \"on-demand\"", d.cure);
                Diag { cure, ..d }
            }
            None => d,
        })?;
        Ok(Self { weights, kv, offloads })
    }
}

/// Rows of each sequence: decode rows, or prompt rows where it has no others.
fn rows(trace: &Trace) -> Vec<u32> {
    let of = |i| {
        let s = trace.sequence(i);
        (if s.decode.is_empty() { s.prefill.len() } else { s.decode.len() } / trace.width()) as u32
    };
    (0..trace.sequences()).map(of).collect()
}

/// Ids and top_k of each MoE layer; empty if they are the same in all.
fn limits(plan: &Plan) -> Vec<(u32, u32)> {
    let of = |l: usize| (plan.moe(l).ids(), plan.moe(l).top_k);
    let limits: Vec<_> = (0..plan.moe_layers.len()).map(of).collect();
    if limits.windows(2).all(|l| l[0] == l[1]) { Vec::new() } else { limits }
}
