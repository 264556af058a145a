//! Re-placement: experts move to other devices while the run serves.
//!
//! * **Rounds.** At the first iteration boundary after each interval, once the moves of the round before are done, a placement
//!   method gets the predicted loads: the exponential moving average of what each interval counted.
//! * **Moves.** Layers change one after the other. Every replica that is new on a group comes from a group that holds the expert:
//!   the nearest by path latency, among equals the one that sent least in this layer, then the lowest. All transfers of a layer start
//!   together, on `bandwidth_share` of every link; collectives have the rest if they are appended meanwhile: when their layer's gate (or,
//!   for those before it, the one before) is done.
//! * **Switch.** The layer's old placement serves until the first iteration boundary after its last transfer; there the new one takes
//!   over, and the next layer's transfers start. Where nothing runs, every instant is such a boundary.
//! * **Bytes** count as sent evenly over the time of their move.
//! * **Memory.** Kept from the start on: the slots of the larger of first and later placements, and the most that a device may receive
//!   for one layer.

use self::forecast::Forecast;
use crate::machine::Plan;
use crate::network::Network;
use crate::routing::{Counting, Replay};
use moesim_core::{Bytes, Diag, Picos, Result};
use moesim_hwmodels::network::Transfer;
use moesim_solver::{Curve, Homes, Needs, Placement, Problem, moves};
use serde::Serialize;
use settings::{Interval, place};
use std::collections::VecDeque;
use std::sync::Arc;

pub use settings::Replacement;

mod forecast;
pub mod settings;
#[cfg(test)]
mod tests;

/// What re-placement did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ReplacementReport {
    /// Placements that were sought.
    pub rounds: u64,
    /// Layers that took another placement.
    pub layers_switched: u64,
    /// Replicas that came to a group for them.
    pub moved_replicas: u64,
    /// Bytes of these, over all devices.
    pub moved_bytes: u64,
    /// Time in which weights moved.
    pub moving_s: f64,
    /// Memory of every device that is kept for weights that come.
    pub staging_bytes: u64,
}

/// What the summary says of it.
pub(crate) const APPROXIMATIONS: [&str; 2] = [
    "a collective whose layer is ready while weights move has for its whole time what re-placement leaves of all links, and calibrated \
     kernels are asked for as many bytes as would take all of the links as long; weights never wait for collectives",
    "moved weights take links alone: no memory bandwidth, no processors and no time of the host; finding a placement, and copies \
     inside a device from where weights arrive to their slots, are free",
];

/// Tokens of an expert up to which its cost is looked up; beyond, it goes on as it went.
const MOST_TOKENS: f64 = (1u32 << 24) as f64;

/// Moves experts during a run.
pub(crate) struct Replacer {
    interval: Interval,
    share: f64,
    max_moves: Option<u64>,
    name: String,
    method: Box<dyn Placement>,
    /// All but the loads.
    problem: Problem,
    counting: Counting,
    /// Where the experts are now.
    homes: Homes,
    forecast: Forecast,
    /// When the next round is: picoseconds or iterations.
    due: u64,
    /// Layers that wait for their moves, and where their experts will be.
    queue: VecDeque<(usize, Vec<Vec<u32>>)>,
    under_way: Option<Move>,
    resident: u64,
    moving: Picos,
    report: ReplacementReport,
}

/// A layer's weights on their way.
struct Move {
    layer: usize,
    homes: Vec<Vec<u32>>,
    replicas: u64,
    begin: Picos,
    took: Picos,
    /// What of it has passed.
    passed: Picos,
    transfers: Vec<Transfer>,
    /// Bytes of each so far.
    sent: Vec<u64>,
}

/// A run's machine and where its experts are at the start.
pub(crate) struct Laid<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) homes: &'a Homes,
    /// What is counted over them.
    pub(crate) counting: Counting,
    pub(crate) seed: u64,
}

/// Makes the placement method.
pub(crate) type MakeMethod<'a> = &'a dyn Fn() -> Result<Box<dyn Placement>>;

/// Seconds of an expert's part by its tokens, for so many slots a device and up to so many tokens, and the node of each group.
pub(crate) type Price<'a> = &'a dyn Fn(usize, f64) -> Result<(Curve, Vec<u32>)>;

/// An iteration boundary, or the end of the run.
pub(crate) struct Boundary<'a> {
    pub(crate) now: Picos,
    /// Nothing ran since.
    pub(crate) since: Picos,
    /// Iterations so far.
    pub(crate) iterations: u64,
    /// The run ends here.
    pub(crate) last: bool,
    pub(crate) plan: &'a Plan,
}

impl Replacer {
    /// For a run that asks for re-placement. The method is tried on even loads, so that what it refuses is refused before the run.
    pub(crate) fn new(settings: &Replacement, method: MakeMethod, price: Price, laid: Laid) -> Result<Self> {
        let Laid { plan, homes, counting, seed } = laid;
        let interval = settings.interval()?;
        let name = settings.method.clone();
        let at_method = |d: Diag| Diag { place: Some(place("method")), ..d };
        let method = method().map_err(at_method)?;
        if method.needs() == Needs::Rows {
            return Err(Diag::input(format!("{name} places by rows, and re-placement knows loads alone"))
                .place(place("method"))
                .cure("choose a method that places by loads, as longest-first"));
        }
        let (layers, groups) = (plan.moe_layers.len(), plan.ranks.ep);
        if layers == 0 {
            return Err(Diag::input(format!("{} has no experts to move", plan.model.name))
                .place("policy.replacement")
                .cure("leave it out"));
        }
        let experts = plan.moe(0).experts as usize;
        let unlike = (0..layers).find(|&l| plan.moe(l).experts as usize != experts);
        let common = (0..layers).any(|l| plan.common_parts(l) != (None, None));
        if unlike.is_some() || common {
            let why = if common { "have parts in common" } else { "differ in number from layer to layer" };
            return Err(Diag::input(format!("experts of {} {why}, which re-placement does not move", plan.model.name))
                .place("policy.replacement")
                .cure("leave it out"));
        }
        let redundant = settings.redundant as usize;
        if settings.max_moves.is_some() {
            let replicas = |l: &Vec<Vec<u32>>| l.iter().map(Vec::len).sum::<usize>();
            if let Some(n) = homes.iter().map(replicas).find(|n| *n != experts + redundant) {
                let problem = format!(
                    "a round with max_moves keeps the number of replicas: the run starts with {n} a layer, not {}",
                    experts + redundant
                );
                return Err(Diag::input(problem).place(place("redundant")).cure(format!(
                    "set it to {}, start from a file with as many, or leave max_moves out",
                    n - experts
                )));
            }
        }
        let mut problem = Problem::even(layers, experts, groups).with_redundant(redundant);
        problem.seed = seed;
        problem.check().map_err(|d| Diag { place: Some(place("redundant")), ..d })?;
        if settings.max_moves.is_some() {
            // A group that starts with more may keep them.
            for (l, slots) in problem.slots.iter_mut().enumerate() {
                slots.iter_mut().enumerate().for_each(|(g, n)| *n = (*n).max(on(&homes[l], g).count() as u32));
            }
        }
        let most = (f64::from(plan.deployment.max_batched_tokens) * plan.ranks.dp as f64).min(MOST_TOKENS);
        (problem.curve, problem.node_of) = price(problem.slots[0][0] as usize, most)?;
        let (resident, staging) = memory(plan, homes, &problem, settings.max_moves);
        let mut homes = homes.clone();
        homes.iter_mut().flatten().for_each(|on| on.sort_unstable());
        let mut new = Self {
            interval,
            share: settings.bandwidth_share,
            max_moves: settings.max_moves,
            name,
            method,
            problem,
            counting,
            homes,
            forecast: Forecast::new(settings.smoothing, layers * experts),
            due: 0,
            queue: VecDeque::new(),
            under_way: None,
            resident,
            moving: Picos::ZERO,
            report: ReplacementReport { staging_bytes: staging, ..ReplacementReport::default() },
        };
        new.is_due(Picos::ZERO, 0);
        new.place()?;
        Ok(new)
    }

    /// Bytes that every device needs for experts, those on their way included.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.resident + self.report.staging_bytes
    }

    /// Weights that do not fit, with what re-placement keeps of the memory.
    pub(crate) fn does_not_fit(&self, d: Diag) -> Diag {
        let staging = Bytes(self.report.staging_bytes).gib();
        let problem = format!("{} (re-placement keeps {staging:.2} GiB of them for weights that come)", d.problem);
        let cure = "use more devices, more tensor or expert parallelism, narrower weights, fewer redundant experts or a lower \
                    policy.replacement.max_moves";
        Diag { problem, cure: cure.into(), ..d }
    }

    /// What it did so far.
    pub(crate) fn report(&self) -> ReplacementReport {
        ReplacementReport { moving_s: self.moving.seconds(), ..self.report }
    }

    /// An iteration is about to begin, or the run to end: what has arrived is taken, and rounds that are due begin. `idle` is told
    /// every time in which nothing but weights moved, when the network has counted them.
    pub(crate) fn boundary(
        &mut self,
        at: &Boundary,
        replay: &mut Replay,
        network: &mut Network,
        idle: &mut dyn FnMut(Picos, Picos, &Network),
    ) -> Result<()> {
        let (now, plan) = (at.now, at.plan);
        let mut changed = false;
        // Nothing ran since the last iteration: a layer follows the other as soon as that has arrived.
        let mut reached = at.since;
        while let Some(end) = self.under_way.as_ref().map(|m| m.begin + m.took).filter(|end| *end <= now) {
            self.send(end, network);
            idle(reached, end.max(reached), network);
            reached = end.max(reached);
            if let Some(m) = self.under_way.take() {
                self.report.moved_replicas += m.replicas;
                self.report.moved_bytes += m.sent.iter().sum::<u64>();
                self.switch(m.layer, m.homes);
            }
            self.next(reached, plan, network);
            changed = true;
        }
        self.send(now, network);
        idle(reached, now, network);
        let free = self.under_way.is_none() && self.queue.is_empty();
        if !at.last && free && self.is_due(now, at.iterations) {
            self.round(replay, at.iterations)?;
            changed |= self.next(now, plan, network);
        }
        if changed {
            replay.place(plan.slot_map(&self.homes, &self.counting));
        }
        if let Some(m) = &self.under_way {
            network.leave(1.0 - self.share, m.begin + m.took);
        }
        Ok(())
    }

    /// Counts what has been sent by `now`.
    pub(crate) fn send(&mut self, now: Picos, network: &mut Network) {
        let Some(m) = &mut self.under_way else { return };
        let passed = now.since(m.begin).min(m.took);
        for (t, sent) in m.transfers.iter().zip(&mut m.sent) {
            let by_now = (u128::from(t.bytes) * u128::from(passed.0) / u128::from(m.took.0)) as u64;
            network.weights_sent(Transfer { bytes: by_now - *sent, ..*t });
            *sent = by_now;
        }
        self.moving += passed.since(m.passed);
        m.passed = passed;
    }

    /// Whether a round is due, and when the next one is.
    fn is_due(&mut self, now: Picos, iterations: u64) -> bool {
        let (now, each) = match self.interval {
            Interval::Time(t) => (now.0, t.0),
            Interval::Iterations(n) => (iterations, n),
        };
        let due = now >= self.due;
        if due {
            self.due = (now / each).saturating_add(1).saturating_mul(each);
        }
        due
    }

    /// Where experts should be by what was seen so far.
    fn round(&mut self, replay: &Replay, iterations: u64) -> Result<()> {
        let totals = replay.totals();
        let ids = totals.len() / self.problem.layers;
        // Zero-compute experts come last.
        let counts = totals.chunks_exact(ids).flat_map(|l| &l[..self.problem.experts]).copied().collect();
        if !self.forecast.learn(counts, iterations) {
            return Ok(());
        }
        self.problem.tokens = self.forecast.tokens();
        let wanted = self.place()?;
        self.report.rounds += 1;
        let other = wanted.into_iter().enumerate().filter(|(l, homes)| self.homes[*l] != *homes);
        self.queue.extend(other);
        Ok(())
    }

    fn place(&mut self) -> Result<Homes> {
        let at = |d: Diag| Diag { place: Some(place("method")), ..d };
        self.problem.from = self.max_moves.map(|most| (Arc::new(self.homes.clone()), most));
        let solution = self.method.place(&self.problem);
        self.problem.from = None;
        let mut homes = solution.map_err(at)?.homes;
        homes.iter_mut().flatten().for_each(|on| on.sort_unstable());
        self.problem.check_homes(&homes).map_err(at)?;
        let moved = moves(&self.homes, &homes);
        if let Some(most) = self.max_moves.filter(|most| moved > *most) {
            return Err(Diag::input(format!("{} moves {moved} replicas, and {most} may", self.name))
                .place(place("max_moves"))
                .cure(
                    "choose longest-first, anneal or ilp, which start from the placement there is, or leave it out",
                ));
        }
        Ok(homes)
    }

    /// Starts the moves of the layer whose turn it is; layers without any switch at once, and whether one did.
    fn next(&mut self, now: Picos, plan: &Plan, network: &mut Network) -> bool {
        let mut switched = false;
        while let Some((layer, homes)) = self.queue.pop_front() {
            let (transfers, replicas) = transfers(plan, layer, &self.homes[layer], &homes);
            if replicas > 0 {
                let took = network.weights(&transfers, self.share).max(Picos(1));
                let sent = vec![0; transfers.len()];
                let (begin, passed) = (now, Picos::ZERO);
                self.under_way = Some(Move { layer, homes, replicas, begin, took, passed, transfers, sent });
                break;
            }
            self.switch(layer, homes);
            switched = true;
        }
        switched
    }

    fn switch(&mut self, layer: usize, homes: Vec<Vec<u32>>) {
        self.homes[layer] = homes;
        self.report.layers_switched += 1;
    }
}

/// Experts of a layer that are on group `g`.
fn on(homes: &[Vec<u32>], g: usize) -> impl Iterator<Item = usize> {
    homes.iter().enumerate().filter(move |(_, on)| on.contains(&(g as u32))).map(|(e, _)| e)
}

/// Bytes of experts on the fullest device, whatever the placement, and the most that a device receives for one layer.
fn memory(plan: &Plan, homes: &Homes, p: &Problem, max_moves: Option<u64>) -> (u64, u64) {
    let largest = |l: usize, n: u64| -> u64 {
        let mut bytes: Vec<u64> = (0..p.experts).map(|e| plan.expert_bytes(l, e)).collect();
        bytes.sort_unstable_by(|a, b| b.cmp(a));
        bytes.iter().take(n as usize).sum()
    };
    let (mut resident, mut staging) = (vec![0; p.groups], 0);
    for (l, homes) in homes.iter().enumerate() {
        for (g, (held, &slots)) in resident.iter_mut().zip(&p.slots[l]).enumerate() {
            let first: u64 = on(homes, g).map(|e| plan.expert_bytes(l, e)).sum();
            *held += first.max(largest(l, slots.into()));
            if p.groups > 1 {
                staging = staging.max(largest(l, u64::from(slots).min(max_moves.unwrap_or(u64::MAX))));
            }
        }
    }
    (resident.into_iter().max().unwrap_or(0), staging)
}

/// What brings `new` about in a layer that is at `old`, and how many replicas that are.
fn transfers(plan: &Plan, layer: usize, old: &[Vec<u32>], new: &[Vec<u32>]) -> (Vec<Transfer>, u64) {
    let first = |g: u32| plan.ranks.group_devices(g as usize).start;
    let latency = |from: u32, to: u32| plan.machine.topology.latency_s(first(from), first(to));
    let (mut out, mut replicas, mut sent) = (Vec::new(), 0, vec![0u64; plan.ranks.ep]);
    for (e, (old, new)) in old.iter().zip(new).enumerate() {
        for &to in new.iter().filter(|g| !old.contains(g)) {
            let rank = |g: u32| (latency(g, to), sent[g as usize], g);
            let before = |a: u32, b: u32| {
                let ((x, m, a), (y, n, b)) = (rank(a), rank(b));
                x.total_cmp(&y).then(m.cmp(&n)).then(a.cmp(&b))
            };
            let Some(from) = old.iter().copied().min_by(|a, b| before(*a, *b)) else { continue };
            sent[from as usize] += 1;
            replicas += 1;
            // Each device of a group has its part of the expert.
            let pairs = plan.ranks.group_devices(from as usize).zip(plan.ranks.group_devices(to as usize));
            let bytes = plan.expert_bytes(layer, e);
            out.extend(pairs.map(|(src, dst)| Transfer { src: src as u32, dst: dst as u32, bytes }));
        }
    }
    (out, replicas)
}
