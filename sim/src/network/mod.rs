//! Collectives on the network, with the bytes that they really move.
//!
//! * [`dispatch`]: how tokens travel to the devices of their experts and back, one file a way.
//! * [`fidelity`]: how finely a collective is simulated.
//! * `summed`: dispatch and combine where links carry sums over devices and nodes; elsewhere `crossing` lists transfers.
//! * `busiest`: what calibrated kernels are asked with.

mod busiest;
mod crossing;
pub mod dispatch;
pub mod fidelity;
mod summed;

pub use dispatch::{Dispatch, Leg, Legs};
pub use fidelity::NetworkFidelity;

use crate::engine::{Bound, Work};
use crate::machine::Plan;
use crate::routing::LayerRouting;
use busiest::Busiest;
use crossing::Crossing;
use moesim_core::Picos;
use moesim_hwmodels::cost::{ExchangeKernels, Exchanged};
use moesim_hwmodels::network::{self, Bottleneck, Collective, Effort, Flow, Links, Phase, Reserve, Ring, Transfer};
use moesim_hwmodels::topology::Topology;
use std::ops::Range;
use summed::Direction;

/// Prices collectives and counts what crosses each link.
#[derive(Debug)]
pub struct Network {
    fidelity: Box<dyn network::TransferModel>,
    /// Rings by their closed form: the bound on each of their steps.
    closed: bool,
    /// Where that fidelity bounds and links carry sums: what prices those in place of transfers one by one.
    summed: Option<Links>,
    transfers: Vec<Transfer>,
    /// How tokens travel.
    way: Box<dyn Dispatch>,
    /// Calibrated kernels: a collective takes what they say, or what its transfers take if that is longer.
    kernels: ExchangeKernels,
    busiest: Busiest,
    /// Start of a kernel, where a collective has no calibrated one.
    launch_s: f64,
    /// Of the last dispatch: the most tokens of a device, and experts of the layer.
    most_tokens: u64,
    experts: u32,
    /// What the last dispatch and its combine send.
    legs: Legs,
    group_rings: Vec<Ring>,
    /// Bytes over each link so far: dispatches, combines and rings.
    pub link_bytes: Vec<u64>,
    /// Bytes that left their device in dispatches.
    pub dispatch_bytes: u64,
    /// Bytes that left their device in combines.
    pub combine_bytes: u64,
    /// Of both, bytes between nodes.
    pub cross_node_bytes: u64,
    /// Of these, those of dispatches.
    pub dispatch_cross_node_bytes: u64,
    /// Bytes of all-reduces and all-gathers, as sent over the edges of their rings.
    pub allreduce_bytes: u64,
    /// Bytes of experts' weights that moved from device to device.
    pub weight_bytes: u64,
    /// Until when weights move, and the part of every link that collectives have until then.
    until: (Picos, f64),
    /// The part that they have now.
    left: f64,
    /// Transfers as they are on a part of their links.
    stretched: Vec<Transfer>,
    /// What was priced since the iteration began, if anybody asks: see [`Network::keep_log`].
    log: Option<Log>,
}

/// Every collective of an iteration, in the order of its operations.
#[derive(Debug, Default)]
struct Log {
    entries: Vec<Sent>,
    /// Bytes over each link before the next entry.
    seen: Vec<u64>,
}

/// A collective: what bound it, and what it sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// The link that bound it.
    pub(crate) link: Option<u32>,
    /// (Link, bytes) of every link that carried any.
    pub(crate) bytes: Vec<(u32, u64)>,
}

impl Network {
    /// For the collectives of `plan`.
    pub fn new(plan: &Plan, fidelity: NetworkFidelity, way: Box<dyn Dispatch>, mut kernels: ExchangeKernels) -> Self {
        let topology = &plan.machine.topology;
        for kernel in [&mut kernels.dispatch, &mut kernels.combine] {
            kernel.take_if(|k| !k.serves(topology.nodes()));
        }
        let bottleneck = Bottleneck::new(topology.clone());
        let group_rings = if plan.ranks.etp > 1 {
            (0..plan.ranks.ep)
                .map(|g| bottleneck.ring(&plan.ranks.group_devices(g).map(|d| d as u32).collect::<Vec<_>>()))
                .collect()
        } else {
            Vec::new()
        };
        Self {
            link_bytes: vec![0; topology.links().len()],
            closed: fidelity == NetworkFidelity::Bottleneck,
            summed: Links::new(topology).filter(|_| fidelity == NetworkFidelity::Bottleneck),
            fidelity: match fidelity {
                NetworkFidelity::Bottleneck => Box::new(bottleneck),
                NetworkFidelity::Flow => Box::new(Flow::new(topology.clone())),
                NetworkFidelity::Reserve => Box::new(Reserve::new(topology.clone(), true)),
                NetworkFidelity::ReserveHeadOfLine => Box::new(Reserve::new(topology.clone(), false)),
            },
            transfers: Vec::new(),
            way,
            kernels,
            busiest: Busiest::default(),
            launch_s: plan.machine.hardware.device.launch.value.seconds(),
            most_tokens: 0,
            experts: 0,
            legs: Legs::default(),
            group_rings,
            dispatch_bytes: 0,
            combine_bytes: 0,
            cross_node_bytes: 0,
            dispatch_cross_node_bytes: 0,
            allreduce_bytes: 0,
            weight_bytes: 0,
            until: (Picos::ZERO, 1.0),
            left: 1.0,
            stretched: Vec::new(),
            log: None,
        }
    }

    /// Keeps, from the next iteration on, what every collective was bound by and sent. An operation that a link binds has an
    /// entry, in their order.
    pub(crate) fn keep_log(&mut self) {
        self.log = Some(Log::default());
    }

    /// An iteration begins at `now`.
    pub(crate) fn begin(&mut self, now: Picos) {
        self.reach(now);
        if let Some(log) = &mut self.log {
            log.entries.clear();
            log.seen.clone_from(&self.link_bytes);
        }
    }

    /// What is appended from now on starts at `now` or later.
    pub(crate) fn reach(&mut self, now: Picos) {
        self.left = if now < self.until.0 { self.until.1 } else { 1.0 };
    }

    /// Collectives that are appended before `until` have the part `left` (above 0, up to 1) of every link's bandwidth.
    pub(crate) fn leave(&mut self, left: f64, until: Picos) {
        self.until = (until, left);
    }

    /// How long weights take from device to device that start together, with the part `share` of every link's bandwidth for
    /// themselves. They count as sent once [`Network::weights_sent`] says so.
    pub(crate) fn weights(&mut self, transfers: &[Transfer], share: f64) -> Picos {
        stretch(transfers, share, &mut self.stretched);
        Picos::from_seconds(self.fidelity.phase(&self.stretched, None).time_s)
    }

    /// Weights have been sent.
    pub(crate) fn weights_sent(&mut self, t: Transfer) {
        self.weight_bytes += t.bytes;
        carry(self.fidelity.topology(), &t, &mut self.link_bytes);
    }

    /// Whether every token goes to every device (see [`Dispatch::everywhere`]).
    pub fn everywhere(&self) -> bool {
        self.way.everywhere()
    }

    /// The calibrated kernels that are in use.
    pub fn kernels(&self) -> &ExchangeKernels {
        &self.kernels
    }

    /// The entries of the iteration; none unless they are kept.
    pub(crate) fn log(&self) -> &[Sent] {
        self.log.as_ref().map_or(&[], |l| &l.entries)
    }

    /// Tokens from their devices to those of their experts. `tokens[d]`: tokens on device d. Nothing if no token leaves its device.
    pub fn dispatch(&mut self, plan: &Plan, routing: &LayerRouting, tokens: &[u64]) -> Option<Work> {
        // Bytes on a part of a link are rounded transfer by transfer.
        let summed = self.summed.is_some() && self.left == 1.0;
        self.legs.clear(summed.then_some(&plan.machine.topology));
        self.way.legs(plan, routing, tokens, &mut self.legs);
        self.legs.done();
        self.most_tokens = tokens.iter().copied().max().unwrap_or(0);
        self.experts = plan.moe(routing.moe_layer).experts;
        if summed {
            return self.by_sums(plan, Direction::Dispatch);
        }
        let (legs, bytes) = (self.legs.of_dispatch(), plan.dispatch_token_bytes);
        let mut transfers = Crossing::new(&mut self.transfers, legs.len());
        for leg in legs {
            transfers.push(leg.src, leg.dst, u64::from(leg.copies) * bytes);
        }
        self.dispatch_bytes += transfers.end();
        let least_s = self.kernels.dispatch.as_ref().map(|kernel| {
            let legs = legs.iter().copied();
            let moved = self.busiest.of(plan, &self.transfers, legs, bytes, self.most_tokens, self.experts);
            kernel.seconds(&on_part(moved, self.left))
        });
        let crossed = self.cross_node_bytes;
        let work = self.phase(plan, least_s);
        self.dispatch_cross_node_bytes += self.cross_node_bytes - crossed;
        work
    }

    /// Expert outputs of the last dispatch back.
    pub fn combine(&mut self, plan: &Plan) -> Option<Work> {
        if self.legs.are_summed() {
            return self.by_sums(plan, Direction::Combine);
        }
        let ((reversed, own), bytes) = (self.legs.of_combine(), plan.combine_token_bytes);
        let mut transfers = Crossing::new(&mut self.transfers, reversed.len() + own.len());
        for leg in reversed {
            transfers.push(leg.dst, leg.src, u64::from(leg.copies) * bytes);
        }
        for leg in own {
            transfers.push(leg.src, leg.dst, u64::from(leg.copies) * bytes);
        }
        self.combine_bytes += transfers.end();
        let least_s = self.kernels.combine.as_ref().map(|kernel| {
            let legs = reversed.iter().map(|l| Leg { src: l.dst, dst: l.src, ..*l }).chain(own.iter().copied());
            let moved = self.busiest.of(plan, &self.transfers, legs, bytes, self.most_tokens, self.experts);
            kernel.seconds(&on_part(moved, self.left))
        });
        self.phase(plan, least_s)
    }

    /// All-reduce of `bytes` on every device of expert group `group`.
    pub fn group_allreduce(&mut self, plan: &Plan, group: usize, bytes: u64) -> Option<Work> {
        let ring = *self.group_rings.get(group)?;
        self.ring(ring, plan.ranks.group_devices(group), 2, bytes)
    }

    /// All-reduce (`rounds` 2) or all-gather (`rounds` 1) of `bytes` over the devices of attention rank `rank`; nothing if it
    /// has only one.
    pub fn rank_ring(&mut self, plan: &Plan, rank: usize, rounds: u64, bytes: u64) -> Option<Work> {
        let ring = *plan.rings.get(rank)?;
        self.ring(ring, plan.ranks.rank_devices(rank), rounds, bytes)
    }

    fn ring(&mut self, ring: Ring, devices: Range<usize>, rounds: u64, bytes: u64) -> Option<Work> {
        self.count_ring(devices.clone(), rounds, bytes);
        let bytes = longer(bytes, self.left);
        let topology = self.fidelity.topology();
        let together = topology.node_of(devices.start) == topology.node_of(devices.end - 1);
        let kernel = if rounds == 2 { &self.kernels.all_reduce } else { &self.kernels.all_gather };
        let phase = match (kernel.as_ref().filter(|_| together && bytes > 0), self.closed, rounds) {
            // The library that was measured takes another algorithm where a ring is slow.
            (Some(kernel), ..) => {
                let (devices, size) = (devices.len() as f64, bytes as f64);
                let time_s = kernel.seconds(&Exchanged { devices, nodes: 1.0, size, ..Exchanged::default() });
                Phase { time_s, link: ring.link }
            }
            (None, true, 2) => later(ring.allreduce(bytes as f64), self.launch_s),
            (None, true, _) => later(ring.allgather(bytes as f64), self.launch_s),
            (None, false, _) => {
                let devices: Vec<u32> = devices.map(|d| d as u32).collect();
                let steps = match rounds {
                    2 => Collective::allreduce_ring(&devices, bytes),
                    _ => Collective::allgather_ring(&devices, bytes),
                };
                later(steps.time(&mut *self.fidelity, Effort::NONE, None), self.launch_s)
            }
        };
        (phase.time_s > 0.0).then(|| self.on_the_clock(phase))
    }

    /// What a ring sends over each link: pieces of 1 / n, n - 1 times a round.
    fn count_ring(&mut self, devices: Range<usize>, rounds: u64, bytes: u64) {
        let n = devices.len() as u64;
        let each = rounds * n.saturating_sub(1) * bytes.div_ceil(n.max(1));
        let topology = self.fidelity.topology().clone();
        for src in devices.clone() {
            let dst = if src + 1 == devices.end { devices.start } else { src + 1 };
            topology.path(src, dst).iter().for_each(|&l| self.link_bytes[l as usize] += each);
        }
        self.allreduce_bytes += n * each;
    }

    fn on_the_clock(&mut self, phase: Phase) -> Work {
        if let Some(log) = &mut self.log {
            log.entries.push(sent(phase, &mut log.seen, &self.link_bytes));
        }
        Work { bound: Bound::Link, ..Work::fixed(Picos::from_seconds(phase.time_s)) }
    }

    /// The transfers as one phase, which takes `least_s` at least: what a calibrated kernel says. Without one, a kernel that sends starts
    /// before them.
    fn phase(&mut self, plan: &Plan, least_s: Option<f64>) -> Option<Work> {
        if self.transfers.is_empty() {
            return None;
        }
        let topology = &plan.machine.topology;
        if topology.nodes() > 1 {
            let crosses = |t: &&Transfer| topology.node_of(t.src as usize) != topology.node_of(t.dst as usize);
            self.cross_node_bytes += self.transfers.iter().filter(crosses).map(|t| t.bytes).sum::<u64>();
        }
        let phase = if self.left < 1.0 {
            self.transfers.iter().for_each(|t| carry(topology, t, &mut self.link_bytes));
            stretch(&self.transfers, self.left, &mut self.stretched);
            self.fidelity.phase(&self.stretched, None)
        } else {
            self.fidelity.phase(&self.transfers, Some(&mut self.link_bytes))
        };
        Some(self.on_the_clock(match least_s {
            Some(least_s) => at_least(phase, least_s),
            None => later(phase, self.launch_s),
        }))
    }
}

/// Adds a transfer to the bytes of its links.
fn carry(topology: &Topology, t: &Transfer, link_bytes: &mut [u64]) {
    topology.path(t.src as usize, t.dst as usize).iter().for_each(|&l| link_bytes[l as usize] += t.bytes);
}

/// Bytes that take the whole of a link as long as `bytes` take the part `part` of it, rounded up.
fn longer(bytes: u64, part: f64) -> u64 {
    if part < 1.0 { (bytes as f64 / part).ceil() as u64 } else { bytes }
}

/// Transfers that take their links as long as `transfers` take the part `part` of every link's bandwidth.
fn stretch(transfers: &[Transfer], part: f64, into: &mut Vec<Transfer>) {
    into.clear();
    into.extend(transfers.iter().map(|t| Transfer { bytes: longer(t.bytes, part), ..*t }));
}

/// What a kernel is asked with that has the part `part` of the links' bandwidth.
fn on_part(x: Exchanged, part: f64) -> Exchanged {
    Exchanged { link_bytes: x.link_bytes / part, nic_bytes: x.nic_bytes / part, ..x }
}

/// A phase that begins once its kernel has started; nothing where nothing is sent.
fn later(phase: Phase, launch_s: f64) -> Phase {
    Phase { time_s: if phase.time_s > 0.0 { phase.time_s + launch_s } else { 0.0 }, ..phase }
}

/// A phase that takes no less than a kernel does.
fn at_least(phase: Phase, least_s: f64) -> Phase {
    Phase { time_s: phase.time_s.max(least_s), ..phase }
}

/// What a phase sent, since `seen`.
fn sent(phase: Phase, seen: &mut [u64], now: &[u64]) -> Sent {
    let mut sent = Sent { link: phase.link, bytes: Vec::new() };
    for (link, (seen, &now)) in seen.iter_mut().zip(now).enumerate().filter(|(_, (seen, now))| *seen != *now) {
        sent.bytes.push((link as u32, now - *seen));
        *seen = now;
    }
    sent
}

#[cfg(test)]
mod tests;
