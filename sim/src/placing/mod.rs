//! What there is to place in an experiment: a [`Problem`] out of its model, hardware, deployment and trace.
//!
//! * Load is seconds: what the experts' kernel, as a run prices it, takes for the tokens that an iteration brings in the mean, the
//!   numbers spread as Poisson has them. An expert's part is that of a kernel in which all experts of a device have as many.
//! * Traffic is seconds: bytes of copies over the rate of a device's link inside its node, or of its link to other nodes, as an even
//!   all-to-all shows them; the sum over devices, over their number.
//! * Time is both in batches of rows: see [`moesim_solver::time`].

use crate::costs::{Calibrated, compute_share};
use crate::experiment::Resolved;
use crate::machine::{Machine, Plan};
use crate::network::Dispatch;
use crate::registry::Registry;
use moesim_core::{Diag, Result};
use moesim_hwmodels::cost::{Kernels, grouped_mlp};
use moesim_hwmodels::network::{Bottleneck, Transfer};
use moesim_solver::time::Batches;
use moesim_solver::traffic::{Mode, Rows, Traffic, Way};
use moesim_solver::{Curve, Problem};
use moesim_traces::Trace;
use moesim_traces::counts::ExpertCounts;
use std::ops::Range;
use std::sync::Arc;

mod homes;

pub use homes::PlacementReport;
#[cfg(test)]
pub(crate) use homes::place;
pub(crate) use homes::placement;

/// The model of a run, laid out on the run's machine with these kernels.
///
/// # Errors
/// What the deployment or this version does not support.
pub(crate) fn plan(resolved: &Resolved, kernels: Kernels, way: &dyn Dispatch) -> Result<Plan> {
    let machine = Machine::calibrated(resolved.hardware.clone(), kernels, compute_share(resolved)?)?;
    let plan = Plan::new(resolved.model.clone(), machine, resolved.experiment.deployment.clone())?;
    Ok(plan.with_habits(resolved.habits(), way.everywhere()))
}

/// The model laid out on the machine, and how tokens travel.
pub struct Site {
    /// The layout.
    pub plan: Plan,
    /// Where each operation's cost comes from.
    pub costs: std::collections::BTreeMap<&'static str, String>,
    way: Box<dyn Dispatch>,
}

impl Site {
    /// Lays an experiment out.
    ///
    /// # Errors
    /// What a run would refuse; experts of several sizes or numbers, which no placement method knows.
    pub fn new(resolved: &Resolved, registry: &Registry) -> Result<Self> {
        let way = registry.dispatch(&resolved.experiment.policy)?.policy;
        let costs = Calibrated::new(resolved, &*way)?;
        let plan = plan(resolved, costs.kernels, &*way)?;
        way.check(&plan)?;
        let moe = |l: usize| plan.moe(l);
        let differs = (1..plan.moe_layers.len()).find(|&l| moe(l).experts != moe(0).experts);
        if let Some(l) = differs {
            return Err(Diag::input(format!(
                "MoE layer {l} of {} has {} experts, the first {}",
                plan.model.name,
                moe(l).experts,
                moe(0).experts
            ))
            .place("model")
            .cure("place models whose layers have as many experts each"));
        }
        Ok(Self { plan, costs: costs.words, way })
    }

    /// Experts of a layer.
    pub fn experts(&self) -> usize {
        self.plan.moe(0).experts as usize
    }

    /// How a dispatch sends, in the solver's words.
    pub fn way(&self) -> Way {
        match self.way.counting(&self.plan) {
            crate::routing::Counting::Groups => Way::Flat,
            crate::routing::Counting::Selections => Way::PerSelection,
            crate::routing::Counting::Nodes { .. } => Way::Hierarchical,
        }
    }

    /// Node of each expert-parallel group.
    pub fn node_of(&self) -> Vec<u32> {
        let node = |g: usize| self.plan.machine.topology.node_of(self.plan.ranks.group_devices(g).start) as u32;
        (0..self.plan.ranks.ep).map(node).collect()
    }

    /// Bytes that a device has for experts: what weights of other kinds leave, without any room for a KV cache.
    pub fn expert_room(&self) -> u64 {
        self.plan.machine.hardware.usable_memory().get().saturating_sub(self.plan.common_weight_bytes())
    }

    /// Bytes of one expert of each layer on a device.
    pub fn expert_bytes(&self) -> Vec<u64> {
        let largest = |l: usize| (0..self.experts()).map(|e| self.plan.expert_bytes(l, e)).max().unwrap_or(0);
        (0..self.plan.moe_layers.len()).map(largest).collect()
    }

    /// Seconds of an expert's part by its tokens; `slots` experts on a device, `most` tokens at most.
    pub fn curve(&self, slots: usize, most: f64) -> Curve {
        Curve::expected(self.part(slots), most)
    }

    /// Seconds of an expert's part by exactly so many tokens; `slots` experts on a device.
    pub fn kernel(&self, slots: usize) -> Curve {
        let part = self.part(slots);
        let mut knots: Vec<(f64, f64)> = (0..64).map(|n| (f64::from(n), part(n))).collect();
        let mut n = 64.0f64;
        while n < 1e6 {
            knots.push((n, part(n as u32)));
            n = (n * 1.25).ceil();
        }
        for i in 1..knots.len() {
            // Kernels that were measured are not always monotone.
            knots[i].1 = knots[i].1.max(knots[i - 1].1);
        }
        Curve::through(knots)
    }

    fn part(&self, slots: usize) -> impl Fn(u32) -> f64 + use<'_> {
        let (mlp, slots) = (self.plan.experts(0), slots.max(1));
        move |n: u32| {
            let cost = grouped_mlp(&self.plan.machine.gpu, &mlp, &vec![n; slots]);
            (cost.time_s() - cost.launch_s) / slots as f64
        }
    }

    /// Seconds that a byte takes on a device's link, inside its node and to other nodes: what an even exchange shows. Meshes have
    /// no such links; there it is what the busiest link makes of it.
    pub fn exchange_rates(&self) -> [f64; 2] {
        let topology = &self.plan.machine.topology;
        let mut network = Bottleneck::new(topology.clone());
        let devices = topology.devices();
        let mut rate = |across: bool| {
            let pairs: Vec<(u32, u32)> = (0..devices)
                .flat_map(|a| (0..devices).map(move |b| (a, b)))
                .filter(|(a, b)| a != b && (topology.node_of(*a) != topology.node_of(*b)) == across)
                .map(|(a, b)| (a as u32, b as u32))
                .collect();
            let mut time = |bytes: u64| {
                let all: Vec<Transfer> = pairs.iter().map(|&(src, dst)| Transfer { src, dst, bytes }).collect();
                network.phase(&all, None).time_s
            };
            // The slope alone: latencies and costs of messages are there wherever experts are.
            let (small, large) = (1u64 << 24, 1u64 << 26);
            // Every device sends to so many others.
            let each = pairs.len() as f64 / devices as f64;
            if pairs.is_empty() { 0.0 } else { (time(large) - time(small)) / ((large - small) as f64 * each) }
        };
        [rate(false), rate(true)]
    }

    /// What the ways of tokens cost, for the rows of a training part; a copy costs what it takes on a link, over `devices`.
    pub fn traffic(&self, rows: Rows, iteration_tokens: f64, devices: f64) -> Traffic {
        let [inside, across] = self.exchange_rates();
        let etp = self.plan.ranks.etp as f64;
        let bytes = [self.plan.dispatch_token_bytes as f64 * etp, self.plan.combine_token_bytes as f64];
        let scale = iteration_tokens / (rows.tokens().max(1)) as f64;
        Traffic {
            mode: self.plan.deployment.tokens,
            way: self.way(),
            inside: bytes.map(|b| b * inside / devices),
            across: bytes.map(|b| b * across / devices),
            node_of: self.node_of(),
            rows,
            scale,
        }
    }

    /// Refuses what the solver's traffic would count otherwise than a run.
    ///
    /// # Errors
    /// Ways that are not counted alike.
    pub fn check(&self) -> Result<()> {
        if self.plan.ranks.replicated() || self.way.everywhere() {
            return Err(Diag::input("every token is on every device, so that a placement changes no traffic")
                .place("deployment")
                .cure(
                    "place for load, or set deployment.layout to \"sequence-parallel\" and policy.dispatch to \"flat\"",
                ));
        }
        if self.plan.deployment.tokens == Mode::TokenFollows && !self.way.follows() {
            return Err(Diag::input("tokens that follow have no hierarchical dispatch")
                .place("policy.dispatch")
                .cure("set it to \"flat\" or \"per-selection\""));
        }
        Ok(())
    }
}

/// How often each expert of each layer was selected in some sequences, and in how many rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loads {
    /// Selections, `layers x experts`.
    pub counts: Vec<u64>,
    /// Rows, by what is known of them.
    pub rows: f64,
}

impl Loads {
    /// Of the sequences `range` of `trace`; ids beyond `experts` compute nothing and are not counted.
    ///
    /// # Errors
    /// A sequence with an id that the trace does not have.
    pub fn of_trace(trace: &Trace, range: Range<usize>, experts: usize) -> Result<Self> {
        let (layers, k) = (trace.layers(), trace.k());
        let mut out = Self { counts: vec![0; layers * experts], rows: 0.0 };
        for i in range {
            trace.check_sequence(i)?;
            let s = trace.sequence(i);
            for row in s.prefill.chunks_exact(trace.width()).chain(s.decode.chunks_exact(trace.width())) {
                out.rows += 1.0;
                for (l, ids) in row.chunks_exact(k).enumerate() {
                    for &id in ids.iter().filter(|id| usize::from(**id) < experts) {
                        out.counts[l * experts + usize::from(id)] += 1;
                    }
                }
            }
        }
        Ok(out)
    }

    /// Of a table of counts, its first `layers`; a row selects `k` experts.
    pub fn of_counts(counts: &ExpertCounts, layers: usize, k: usize) -> Self {
        let experts = counts.experts as usize;
        let counts = counts.counts[..layers * experts].to_vec();
        let rows = counts.iter().sum::<u64>() as f64 / (layers * k.max(1)) as f64;
        Self { counts, rows }
    }

    /// Adds others of the same shape.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.rows += other.rows;
    }

    /// Tokens of each expert in an iteration of `tokens` tokens.
    pub fn tokens(&self, tokens: f64) -> Vec<f64> {
        let each = if self.rows > 0.0 { tokens / self.rows } else { 0.0 };
        self.counts.iter().map(|n| *n as f64 * each).collect()
    }
}

/// The problem of placing `loads` on `groups` groups, in seconds if there is a site, in tokens otherwise; without limits but even
/// slots.
pub fn problem(
    site: Option<&Site>,
    experts: usize,
    groups: usize,
    redundant: usize,
    loads: &Loads,
    iteration_tokens: f64,
) -> Problem {
    let layers = loads.counts.len() / experts;
    let mut p = Problem::even(layers, experts, groups).with_redundant(redundant);
    p.tokens = loads.tokens(iteration_tokens);
    if let Some(site) = site {
        p.node_of = site.node_of();
        let most = p.tokens.iter().copied().fold(1.0, f64::max);
        p.curve = site.curve(p.slots[0][0] as usize, most);
    }
    p
}

/// At most so many rows are looked at again and again: for copies, and for batches, of which there are eight at least if these
/// do.
pub const SAMPLE: usize = 16_384;
const BATCHED: usize = 4_096;

/// The rows of a training part that the search sees.
///
/// # Errors
/// As [`Rows::sample`].
pub fn sample(site: &Site, trace: &Trace, range: Range<usize>, iteration_tokens: f64) -> Result<Arc<Traffic>> {
    let devices = site.plan.machine.devices() as f64;
    Ok(Arc::new(site.traffic(Rows::sample(trace, range, SAMPLE)?, iteration_tokens, devices)))
}

/// Batches of a part's rows, `more` times as many as the search sees.
///
/// # Errors
/// As [`Rows::sample`].
pub fn batches(
    site: &Site,
    trace: &Trace,
    range: Range<usize>,
    iteration_tokens: f64,
    slots: usize,
    more: usize,
) -> Result<Arc<Batches>> {
    let rows = (8.0 * iteration_tokens).clamp(BATCHED as f64, SAMPLE as f64) as usize * more;
    let traffic = site.traffic(Rows::sample(trace, range, rows)?, iteration_tokens, 1.0);
    Ok(Arc::new(Batches::new(Arc::new(traffic), iteration_tokens, site.experts(), site.kernel(slots))))
}

#[cfg(test)]
mod tests;
