//! Collects what a run does, iteration by iteration.

use crate::engine::critical::{self, Breakdown};
use crate::engine::{Bound, Executor, LaneId, OpKind};
use crate::experiment::{Experiment, Slo, Window};
use crate::machine::Plan;
use crate::metrics::histogram::Histogram;
use crate::metrics::rejection::{Reason, Rejection};
use crate::metrics::series::Series;
use crate::metrics::tables::Tables;
use crate::network::Network;
use crate::routing::LayerRouting;
use crate::serving::Live;
use crate::simulation::Shape;
use moesim_core::{Diag, Picos, Result};
use moesim_traces::Trace;

/// What can bind: one entry a class of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Binding {
    /// Kernel launches.
    Launch,
    /// Arithmetic of the device's cores.
    Compute,
    /// Device memory bandwidth.
    Memory,
    /// Links between devices.
    Link,
    /// The host's iteration overhead.
    Host,
    /// The link to host memory.
    HostLink,
}

impl Binding {
    /// Every class.
    pub const ALL: [Self; 6] = [Self::Launch, Self::Compute, Self::Memory, Self::Link, Self::Host, Self::HostLink];
    /// Name in files.
    pub fn name(self) -> &'static str {
        ["launch", "compute", "memory", "link", "host", "host-link"][self as usize]
    }
}

/// One operation of the iteration kept for the plots.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Index in the iteration.
    pub operation: u32,
    /// Kind.
    pub kind: OpKind,
    /// Model layer.
    pub layer: u16,
    /// Device, or [`crate::engine::NO_DEVICE`].
    pub device: u32,
    /// The first lane that it holds; none for collectives.
    pub lane: Option<LaneId>,
    /// Start.
    pub start: Picos,
    /// End.
    pub end: Picos,
    /// Binding term.
    pub bound: Bound,
    /// It is on the critical path.
    pub critical: bool,
}

/// What iterations of one sort did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phase {
    /// Iterations.
    pub iterations: u64,
    /// Picoseconds of iterations.
    pub time: u64,
    /// Critical path by binding resource, in picoseconds.
    pub bindings: [u64; Binding::ALL.len()],
    /// Picoseconds that the arithmetic of the devices' own cores would take at peak, over all devices.
    pub at_peak: u64,
    /// Picoseconds that the devices' own cores were busy, over all devices.
    pub busy: u64,
    /// Bytes from and to device memories.
    pub memory_bytes: u128,
}

/// Collects during a run.
pub struct Recorder {
    window: Window,
    slo: Option<Slo>,
    tables: Tables,
    unwritten: Option<Diag>,
    /// Requests that came.
    pub admitted: u64,
    /// Requests that are done.
    pub finished: u64,
    /// Requests that could never be served.
    pub rejected: u64,
    /// Why, by reason.
    pub rejections: Vec<Rejection>,
    /// Positions computed again after preemptions.
    pub recomputed: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Prompt and output tokens of finished requests.
    pub tokens: [u64; 2],
    /// The same inside the window: prompt tokens by first token, output tokens as they appear.
    pub window_tokens: [u64; 2],
    /// Requests finished in the window.
    pub window_finished: u64,
    /// Of the requests that arrived in the window, those that met the SLO.
    pub window_good: u64,
    /// Time to first token.
    pub ttft: Histogram,
    /// Time per output token after the first.
    pub tpot: Histogram,
    /// Time between output tokens.
    pub itl: Histogram,
    /// Arrival to last token.
    pub e2e: Histogram,
    /// Largest over mean tokens of an expert group, a layer and iteration, in thousandths.
    pub imbalance: Histogram,
    /// Critical path.
    pub breakdown: Breakdown,
    /// Iterations with prompt tokens, then those that only decode.
    pub phases: [Phase; 2],
    /// Per lane: picoseconds x units held.
    pub lane_busy: Vec<u64>,
    /// Per lane: picoseconds that the arithmetic on it would take at the peak rate of its precision.
    pub lane_at_peak: Vec<u64>,
    /// Per channel: bytes moved.
    pub channel_bytes: Vec<u128>,
    /// Per device: operations on its cores and PIM units.
    pub flop: Vec<u128>,
    /// Iterations.
    pub iterations: u64,
    /// KV cache in use over the iterations, bytes x picoseconds, a device of each rank.
    pub kv_time: u128,
    /// Sequences running over the iterations, sequences x picoseconds.
    pub sequence_time: u128,
    /// Picoseconds of iterations.
    pub running_time: u128,
    /// End of the run.
    pub end: Picos,
    /// Requests in flight per sequence, and the most ever.
    in_flight: Vec<u32>,
    /// Most requests in flight on one sequence.
    pub multiplicity: u32,
    /// Operations of a typical iteration (see [`Recorder::keeps`]).
    pub kept: Vec<Kept>,
    /// Number of that iteration, from 1.
    pub kept_iteration: u64,
    /// The most operations that `timeline.json` gets.
    pub timeline: Option<super::timeline::Timeline>,
    /// Utilisation over time: lanes of cores, memory channels, links.
    pub series: Series,
    lanes: Vec<usize>,
    channels: Vec<usize>,
    link_seen: Vec<u64>,
    lane_now: Vec<u64>,
    /// Lanes of the devices' own cores, and channels of their memories.
    own: [Vec<usize>; 2],
    channel_now: Vec<u64>,
    row: Vec<f64>,
    imbalance_now: (f64, u32),
    on_path: Vec<u32>,
}

impl Recorder {
    /// For a run of `plan`.
    ///
    /// # Errors
    /// None so far.
    pub fn new(plan: &Plan, x: &Experiment, tables: Tables) -> Result<Self> {
        let m = &plan.machine;
        let lanes: Vec<usize> = m.compute.iter().chain(&m.pim_lane).map(|l| l.0 as usize).collect();
        let channels: Vec<usize> =
            m.memory.iter().chain(&m.pim_memory).chain(&m.host_link).map(|c| c.0 as usize).collect();
        let links = m.topology.links().len();
        Ok(Self {
            window: x.window,
            slo: x.slo,
            tables,
            admitted: 0,
            finished: 0,
            rejected: 0,
            rejections: Vec::new(),
            unwritten: None,
            recomputed: 0,
            preemptions: 0,
            tokens: [0; 2],
            window_tokens: [0; 2],
            window_finished: 0,
            window_good: 0,
            ttft: Histogram::default(),
            tpot: Histogram::default(),
            itl: Histogram::default(),
            e2e: Histogram::default(),
            imbalance: Histogram::default(),
            breakdown: Breakdown::default(),
            phases: Default::default(),
            lane_busy: vec![0; m.resources.lanes.len()],
            lane_at_peak: vec![0; m.resources.lanes.len()],
            channel_bytes: vec![0; m.resources.channels.len()],
            flop: vec![0; m.devices()],
            iterations: 0,
            kv_time: 0,
            sequence_time: 0,
            running_time: 0,
            end: Picos::ZERO,
            in_flight: Vec::new(),
            multiplicity: 0,
            kept: Vec::new(),
            kept_iteration: 0,
            timeline: None,
            series: Series::new(lanes.len() + channels.len() + links),
            row: Vec::with_capacity(lanes.len() + channels.len() + links),
            lanes,
            channels,
            link_seen: vec![0; links],
            lane_now: vec![0; m.resources.lanes.len()],
            own: [m.compute.iter().map(|l| l.0 as usize).collect(), m.memory.iter().map(|c| c.0 as usize).collect()],
            channel_now: vec![0; m.resources.channels.len()],
            imbalance_now: (0.0, 0),
            on_path: Vec::new(),
        })
    }

    fn in_window(&self, t: Picos) -> bool {
        t >= self.window.start && self.window.end.is_none_or(|end| t < end)
    }

    /// A sequence got one request more (1) or less (-1) in flight.
    pub fn bound(&mut self, sequence: u32, change: i32) {
        let at = sequence as usize;
        if at >= self.in_flight.len() {
            self.in_flight.resize(at + 1, 0);
        }
        self.in_flight[at] = self.in_flight[at].wrapping_add_signed(change);
        self.multiplicity = self.multiplicity.max(self.in_flight[at]);
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
            self.imbalance.add((ratio * 1000.0).round() as u64);
            self.imbalance_now.0 += ratio;
            self.imbalance_now.1 += 1;
        }
    }

    /// An output token of `live` appears at `now`.
    pub fn token(&mut self, live: &Live, now: Picos) {
        if self.in_window(now) {
            self.window_tokens[1] += 1;
            if live.first_token.is_none() {
                self.window_tokens[0] += u64::from(live.prompt);
            }
        }
        if live.first_token.is_some() && self.in_window(live.arrival) {
            self.itl.add(now.since(live.last_token).0);
        }
    }

    /// `live` is done.
    pub fn request(&mut self, live: &Live, rank: usize, trace: &Trace, now: Picos) {
        self.finished += 1;
        self.tokens[0] += u64::from(live.prompt);
        self.tokens[1] += u64::from(live.output);
        self.preemptions += u64::from(live.preemptions);
        let first = live.first_token.unwrap_or(now);
        let ttft = first.since(live.arrival);
        let e2e = now.since(live.arrival);
        let tpot = (live.output > 1).then(|| Picos(now.since(first).0 / u64::from(live.output - 1)));
        self.window_finished += u64::from(self.in_window(now));
        if self.in_window(live.arrival) {
            self.ttft.add(ttft.0);
            self.e2e.add(e2e.0);
            if let Some(t) = tpot {
                self.tpot.add(t.0);
            }
            let met = |limit: Option<Picos>, t: Option<Picos>| limit.zip(t).is_none_or(|(l, t)| t <= l);
            if self.slo.is_some_and(|s| met(s.ttft, Some(ttft)) && met(s.tpot, tpot)) {
                self.window_good += 1;
            }
        }
        let Some(t) = &mut self.tables.requests else { return };
        t.cell(live.id);
        t.seconds(live.arrival);
        t.cell(live.prompt);
        t.cell(live.output);
        t.cell(rank);
        t.cell(trace.sequence(live.binding.sequence as usize).id);
        t.cell(live.binding.offset);
        t.seconds(live.first_scheduled.unwrap_or(now));
        t.seconds(first);
        t.seconds(now);
        t.cell(ttft.millis());
        match tpot {
            Some(p) => t.cell(p.millis()),
            None => t.cell(""),
        }
        t.cell(e2e.millis());
        t.cell(live.preemptions);
        t.cell(live.recomputed);
        match live.turn {
            Some(turn) => {
                t.cell(turn.session);
                t.cell(turn.number);
            }
            None => {
                t.cell("");
                t.cell("");
            }
        }
        t.end_row();
    }

    /// An iteration is done.
    ///
    /// # Errors
    /// A critical path that does not sum to the iteration.
    #[expect(clippy::too_many_arguments, reason = "what an iteration is, in plain numbers")]
    pub(crate) fn iteration(
        &mut self,
        executor: &Executor,
        network: &Network,
        begin: Picos,
        end: Picos,
        shape: &Shape,
        waiting: usize,
        kv_used: u64,
    ) -> Result<()> {
        let g = &executor.graph;
        self.iterations += 1;
        let took = u128::from(end.since(begin).0);
        self.running_time += took;
        self.kv_time += took * u128::from(kv_used);
        self.sequence_time += took * u128::from(shape.sequences);
        self.breakdown.idle += begin.since(self.end).0;
        self.lane_now.fill(0);
        self.channel_now.fill(0);
        let phase = &mut self.phases[usize::from(shape.prefill_tokens == 0)];
        phase.iterations += 1;
        phase.time += end.since(begin).0;
        let before: u64 = self.own[0].iter().map(|&l| self.lane_at_peak[l]).sum();
        for i in 0..g.len() {
            let took = g.held(i).0;
            if let Some(h) = g.holds(i).first() {
                self.lane_at_peak[h.lane.0 as usize] += g.at_peak(i).0;
            }
            for h in g.holds(i) {
                self.lane_now[h.lane.0 as usize] += took * u64::from(h.units);
            }
            for d in g.demands(i) {
                self.channel_now[d.channel.0 as usize] += d.amount;
            }
            if let Some(f) = self.flop.get_mut(g.device(i) as usize) {
                *f += u128::from(g.flop(i));
            }
        }
        phase.at_peak += self.own[0].iter().map(|&l| self.lane_at_peak[l]).sum::<u64>() - before;
        phase.busy += self.own[0].iter().map(|&l| self.lane_now[l]).sum::<u64>();
        phase.memory_bytes += self.own[1].iter().map(|&c| u128::from(self.channel_now[c])).sum::<u128>();
        let keep = self.keeps(shape);
        self.on_path.clear();
        let phase = &mut self.phases[usize::from(shape.prefill_tokens == 0)];
        let (bindings, on_path) = (&mut phase.bindings, &mut self.on_path);
        let path = critical::path(g, begin, |i, took| {
            let class = match (g.kind(i), g.bound(i)) {
                (OpKind::Host, _) => Binding::Host,
                (OpKind::Load, Bound::Memory) => Binding::HostLink,
                (_, Bound::Launch) => Binding::Launch,
                (_, Bound::Compute) => Binding::Compute,
                (_, Bound::Memory) => Binding::Memory,
                (_, Bound::Link) => Binding::Link,
            };
            bindings[class as usize] += took.0;
            if keep {
                on_path.push(i as u32);
            }
        });
        if path.total() != end.since(begin).0 {
            return Err(Diag::run("the critical path does not sum to its iteration").cure("report this"));
        }
        self.breakdown.add(&path);
        self.row.clear();
        for (&lane, total) in self.lanes.iter().map(|l| (l, self.lane_now[*l])) {
            self.lane_busy[lane] += total;
            self.row.push(total as f64);
        }
        for &c in &self.channels {
            self.channel_bytes[c] += u128::from(self.channel_now[c]);
            self.row.push(self.channel_now[c] as f64);
        }
        self.links(network);
        self.series.add(begin.0, end.0, &self.row);
        if keep || self.timeline.is_some() {
            self.keep(executor, keep);
        }
        self.end = end;
        let imbalance = std::mem::take(&mut self.imbalance_now);
        let Some(t) = &mut self.tables.iterations else { return Ok(()) };
        t.cell(self.iterations);
        t.seconds(begin);
        t.seconds(end);
        t.cell(shape.sequences);
        t.cell(shape.prefill_tokens);
        t.cell(shape.decode_tokens);
        t.cell(waiting);
        t.cell(kv_used);
        let mean = imbalance.0 / f64::from(imbalance.1.max(1));
        t.cell(format_args!("{mean:.4}"));
        t.end_row();
        Ok(())
    }

    /// Nothing ran from `begin` to `end` but transfers of weights.
    pub(crate) fn idle(&mut self, begin: Picos, end: Picos, network: &Network) {
        if end > begin {
            self.row.clear();
            self.row.resize(self.lanes.len() + self.channels.len(), 0.0);
            self.links(network);
            self.series.add(begin.0, end.0, &self.row);
        }
    }

    /// What links carried since the last time, behind the row.
    fn links(&mut self, network: &Network) {
        for (seen, &bytes) in self.link_seen.iter_mut().zip(&network.link_bytes) {
            self.row.push((bytes - *seen) as f64);
            *seen = bytes;
        }
    }

    /// Whether the iteration just counted is kept for the picture. The first is; later ones at least double the number of the
    /// one kept before, so that the picture is of an advanced run, and have at least as many sequences as iterations have in
    /// the mean over time, so that neither the drain nor a lull stands for the run. Iterations that only decode go first
    /// where they are most of the time.
    fn keeps(&self, shape: &Shape) -> bool {
        let [prompts, decode] = &self.phases;
        let sort = usize::from(shape.prefill_tokens == 0) == usize::from(decode.time > prompts.time);
        let full = u128::from(shape.sequences) * self.running_time >= self.sequence_time;
        self.iterations == 1 || (self.iterations >= 2 * self.kept_iteration && full && sort)
    }

    fn keep(&mut self, executor: &Executor, whole: bool) {
        let g = &executor.graph;
        let kept = (0..g.len()).filter(|&i| g.kind(i) != OpKind::Join).map(|i| Kept {
            operation: i as u32,
            kind: g.kind(i),
            layer: g.layer(i),
            device: g.device(i),
            lane: g.holds(i).first().map(|h| h.lane),
            start: g.start(i),
            end: g.end(i).unwrap_or_default(),
            bound: g.bound(i),
            critical: false,
        });
        if let Some(timeline) = &mut self.timeline {
            timeline.add(self.iterations, kept.clone());
        }
        if whole {
            self.kept_iteration = self.iterations;
            self.kept.clear();
            self.kept.extend(kept);
            // Not in the order of appending where one waited for another that was appended later.
            self.on_path.sort_unstable();
            for k in &mut self.kept {
                k.critical = self.on_path.binary_search(&k.operation).is_ok();
            }
        }
    }

    /// Rejects `request`, which needs more of something than there can ever be.
    pub(crate) fn reject(
        &mut self,
        reason: Reason,
        request: &moesim_traces::arrivals::Request,
        needed: u64,
        limit: u64,
    ) {
        self.rejected += 1;
        Rejection::count(&mut self.rejections, reason, request, needed, limit);
    }

    /// Why the tables are not whole, once the run is over.
    pub(crate) fn unwritten(&self) -> Option<Diag> {
        self.unwritten.clone()
    }

    /// The run is over at `now`: tables are closed, what must hold is checked.
    ///
    /// # Errors
    /// A broken invariant. What of the tables could not be written is said by [`Recorder::unwritten`].
    pub fn end(&mut self, now: Picos, plan: &Plan, network: &Network) -> Result<()> {
        self.breakdown.idle += now.since(self.end).0;
        self.end = now;
        self.unwritten = self.tables.finish().err();
        let broken = |what: String| Err(Diag::run(what).cure("report this with the experiment"));
        if self.breakdown.total() != now.0 {
            return broken("the critical path does not sum to the simulated time".into());
        }
        let r = &plan.machine.resources;
        for (lane, &busy) in r.lanes.iter().zip(&self.lane_busy) {
            if u128::from(busy) > u128::from(now.0) * u128::from(lane.units) {
                return broken(format!("{} was held longer than the run", lane.name));
            }
        }
        // Ends are rounded to a picosecond: allow one a transfer, which 1e-6 of the total covers many times.
        for (c, &bytes) in r.channels.iter().zip(&self.channel_bytes) {
            if bytes as f64 > c.per_second * now.seconds() * (1.0 + 1e-6) + 1.0 {
                return broken(format!("{} moved more than its capacity", c.name));
            }
        }
        let sent = |outgoing: bool| -> u64 {
            // Links that leave or reach a device.
            plan.machine.topology.links().iter().zip(&network.link_bytes).fold(0, |sum, (l, &b)| {
                let end = if outgoing { l.from } else { l.to };
                sum + if (end as usize) < plan.machine.devices() { b } else { 0 }
            })
        };
        if sent(true) != sent(false) {
            return broken("bytes sent and received differ".into());
        }
        Ok(())
    }
}
