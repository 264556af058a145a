//! What operations did: amounts served by lanes and channels, and what bound the critical path.

use crate::engine::critical::{self, Breakdown};
use crate::engine::{Bound, Graph, OpKind};
use crate::machine::{Machine, Plan};
use crate::metrics::Outcome;
use crate::network::Network;
use moesim_core::{Diag, Picos, Result};

/// What an iteration's time is bound by: one entry a class of resource, as under `bound_by` of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BoundBy {
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

impl BoundBy {
    /// Every class.
    pub const ALL: [Self; 6] = [Self::Launch, Self::Compute, Self::Memory, Self::Link, Self::Host, Self::HostLink];
    /// Name in files.
    pub fn name(self) -> &'static str {
        ["launch", "compute", "memory", "link", "host", "host-link"][self as usize]
    }

    fn of(kind: OpKind, bound: Bound) -> Self {
        match (kind, bound) {
            (OpKind::Host, _) => Self::Host,
            (OpKind::Load, Bound::Memory) => Self::HostLink,
            (_, Bound::Launch) => Self::Launch,
            (_, Bound::Compute) => Self::Compute,
            (_, Bound::Memory) => Self::Memory,
            (_, Bound::Link) => Self::Link,
        }
    }
}

/// What iterations of one sort did.
#[derive(Clone, Copy, Debug, Default)]
pub struct PhaseTotals {
    /// Iterations.
    pub iterations: u64,
    /// Picoseconds of iterations.
    pub time: u64,
    /// Critical path by binding resource, in picoseconds.
    pub bound_by: [u64; BoundBy::ALL.len()],
    /// Picoseconds that the arithmetic of the devices' own cores would take at peak, over all devices.
    pub at_peak: u64,
    /// Picoseconds that the devices' own cores were busy, over all devices.
    pub busy: u64,
    /// Bytes from and to device memories.
    pub memory_bytes: u128,
}

/// Amounts served.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Critical path.
    pub breakdown: Breakdown,
    /// Iterations with prompt tokens, then those that only decode.
    pub phases: [PhaseTotals; 2],
    /// Per lane: picoseconds x units held.
    pub lane_busy: Vec<u64>,
    /// Per lane: picoseconds that the arithmetic on it would take at the peak rate of its precision.
    pub lane_at_peak: Vec<u64>,
    /// Per channel: bytes moved.
    pub channel_bytes: Vec<u128>,
    /// Per device: operations on its cores and PIM units.
    pub flop: Vec<u128>,
    /// Lanes and channels that are counted.
    lanes: Vec<usize>,
    channels: Vec<usize>,
    /// Lanes of the devices' own cores, and channels of their memories.
    own: [Vec<usize>; 2],
    lane_now: Vec<u64>,
    channel_now: Vec<u64>,
    link_seen: Vec<u64>,
    /// What lanes, channels and links did since the last row.
    row: Vec<f64>,
}

impl Served {
    pub(super) fn new(m: &Machine) -> Self {
        let (lanes, channels) = (m.resources.lanes.len(), m.resources.channels.len());
        Self {
            lane_busy: vec![0; lanes],
            lane_at_peak: vec![0; lanes],
            channel_bytes: vec![0; channels],
            flop: vec![0; m.devices()],
            lanes: m.compute.iter().chain(&m.pim_lane).map(|l| l.0 as usize).collect(),
            channels: m.memory.iter().chain(&m.pim_memory).chain(&m.host_link).map(|c| c.0 as usize).collect(),
            own: [m.compute.iter().map(|l| l.0 as usize).collect(), m.memory.iter().map(|c| c.0 as usize).collect()],
            lane_now: vec![0; lanes],
            channel_now: vec![0; channels],
            link_seen: vec![0; m.topology.links().len()],
            ..Self::default()
        }
    }

    /// Cells of a row.
    pub(super) fn columns(&self) -> usize {
        self.lanes.len() + self.channels.len() + self.link_seen.len()
    }

    /// Counts the operations of an iteration.
    pub(super) fn operations(&mut self, g: &Graph, outcome: &Outcome) {
        self.lane_now.fill(0);
        self.channel_now.fill(0);
        let phase = &mut self.phases[outcome.sort()];
        phase.iterations += 1;
        phase.time += outcome.took();
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
    }

    /// Adds the critical path of an iteration, after its operations; `on_path` is told every operation on it.
    ///
    /// # Errors
    /// A path that does not sum to the iteration.
    pub(super) fn path(&mut self, g: &Graph, outcome: &Outcome, mut on_path: impl FnMut(usize)) -> Result<()> {
        let bound_by = &mut self.phases[outcome.sort()].bound_by;
        let path = critical::path(g, outcome.begin, |i, took| {
            bound_by[BoundBy::of(g.kind(i), g.bound(i)) as usize] += took.0;
            on_path(i);
        });
        if path.total() != outcome.took() {
            return Err(Diag::run("the critical path does not sum to its iteration").cure("report this"));
        }
        self.breakdown.add(&path);
        Ok(())
    }

    /// The row of an iteration whose operations were counted: what lanes, channels and links did.
    pub(super) fn row(&mut self, network: &Network) -> &[f64] {
        self.row.clear();
        for &lane in &self.lanes {
            let total = self.lane_now[lane];
            self.lane_busy[lane] += total;
            self.row.push(total as f64);
        }
        for &c in &self.channels {
            self.channel_bytes[c] += u128::from(self.channel_now[c]);
            self.row.push(self.channel_now[c] as f64);
        }
        self.links(network);
        &self.row
    }

    /// The row of a time in which nothing ran but transfers of weights.
    pub(super) fn idle_row(&mut self, network: &Network) -> &[f64] {
        self.row.clear();
        self.row.resize(self.lanes.len() + self.channels.len(), 0.0);
        self.links(network);
        &self.row
    }

    /// What links carried since the last time, behind the row.
    fn links(&mut self, network: &Network) {
        for (seen, &bytes) in self.link_seen.iter_mut().zip(&network.link_bytes) {
            self.row.push((bytes - *seen) as f64);
            *seen = bytes;
        }
    }

    /// Checks what must hold at the end of a run, at `now`.
    ///
    /// # Errors
    /// What does not.
    pub(super) fn check(&self, now: Picos, plan: &Plan, network: &Network) -> Result<()> {
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
