//! Dispatch and combine on the network, with the bytes that they really move.

use crate::engine::{Bound, Work};
use crate::experiment::NetworkFidelity;
use crate::machine::Plan;
use crate::routing::LayerRouting;
use moesim_core::Picos;
use moesim_hwmodels::network::{self, Bottleneck, Collective, Effort, Flow, Phase, Reserve, Ring, Transfer};
use std::ops::Range;

/// Prices collectives and counts what crosses each link.
#[derive(Debug)]
pub struct Network {
    fidelity: Box<dyn network::Network>,
    /// Rings by their closed form: the bound on each of their steps.
    closed: bool,
    transfers: Vec<Transfer>,
    /// (source device, group, tokens) of the last dispatch: the combine goes the same ways back.
    ways: Vec<(u32, u32, u32)>,
    group_rings: Vec<Ring>,
    /// Bytes over each link so far: dispatches, combines and rings.
    pub link_bytes: Vec<u64>,
    /// Bytes that left their device in dispatches.
    pub dispatch_bytes: u64,
    /// Bytes that left their device in combines.
    pub combine_bytes: u64,
    /// Of both, bytes between nodes.
    pub cross_node_bytes: u64,
    /// Bytes of all-reduces and all-gathers, as sent over the edges of their rings.
    pub allreduce_bytes: u64,
}

impl Network {
    /// For the collectives of `plan`.
    pub fn new(plan: &Plan, fidelity: NetworkFidelity) -> Self {
        let topology = &plan.machine.topology;
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
            fidelity: match fidelity {
                NetworkFidelity::Bottleneck => Box::new(bottleneck),
                NetworkFidelity::Flow => Box::new(Flow::new(topology.clone())),
                NetworkFidelity::Reserve => Box::new(Reserve::new(topology.clone(), true)),
                NetworkFidelity::ReserveHeadOfLine => Box::new(Reserve::new(topology.clone(), false)),
            },
            transfers: Vec::new(),
            ways: Vec::new(),
            group_rings,
            dispatch_bytes: 0,
            combine_bytes: 0,
            cross_node_bytes: 0,
            allreduce_bytes: 0,
        }
    }

    /// Tokens from their devices to the groups of their experts: one copy a token and group, to each device of the group.
    /// `tokens[d]`: tokens on device d. Nothing if no token leaves its device.
    pub fn dispatch(&mut self, plan: &Plan, routing: &LayerRouting, tokens: &[u64]) -> Option<Work> {
        self.ways.clear();
        let etp = plan.ranks.etp as u32;
        for source in (0..routing.sources()).filter(|&s| tokens[s] > 0) {
            let copies = routing.copies(source);
            let mut kept = self.ways.len();
            self.ways.resize(kept + copies.len(), (0, 0, 0));
            for (group, &n) in copies.iter().enumerate() {
                // Without a branch, which would be mispredicted in small batches: the next write covers what is not kept.
                self.ways[kept] = (source as u32, group as u32, n);
                kept += usize::from(n > 0);
            }
            self.ways.truncate(kept);
        }
        let mut transfers = Kept::new(&mut self.transfers, self.ways.len() * plan.ranks.etp);
        for &(src, group, copies) in &self.ways {
            for dst in group * etp..(group + 1) * etp {
                transfers.push(src, dst, u64::from(copies) * plan.dispatch_token_bytes);
            }
        }
        self.dispatch_bytes += transfers.end();
        self.phase(plan)
    }

    /// Expert outputs of the last dispatch back: one partial sum a token and group, from one device of the group (taken in
    /// turn by source).
    pub fn combine(&mut self, plan: &Plan) -> Option<Work> {
        let etp = plan.ranks.etp as u32;
        let mut transfers = Kept::new(&mut self.transfers, self.ways.len());
        for &(source, group, copies) in &self.ways {
            let device = if etp == 1 { group } else { group * etp + source % etp };
            transfers.push(device, source, u64::from(copies) * plan.combine_token_bytes);
        }
        self.combine_bytes += transfers.end();
        self.phase(plan)
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
        let n = ring.devices as u64;
        // Each edge of the ring carries all pieces but one a round; pieces are rounded up, as [`Collective`] does.
        let edge = rounds * n.saturating_sub(1) * bytes.div_ceil(n.max(1));
        self.allreduce_bytes += n * edge;
        let topology = self.fidelity.topology();
        for (src, dst) in devices.clone().zip(devices.clone().cycle().skip(1)).filter(|_| edge > 0) {
            topology.path(src, dst).iter().for_each(|&l| self.link_bytes[l as usize] += edge);
        }
        let phase = match (self.closed, rounds) {
            (true, 2) => ring.allreduce(bytes as f64),
            (true, _) => ring.allgather(bytes as f64),
            (false, _) => {
                let devices: Vec<u32> = devices.map(|d| d as u32).collect();
                let steps = match rounds {
                    2 => Collective::allreduce_ring(&devices, bytes),
                    _ => Collective::allgather_ring(&devices, bytes),
                };
                steps.time(&mut *self.fidelity, Effort::NONE, None)
            }
        };
        (phase.time_s > 0.0).then(|| on_the_clock(phase))
    }

    fn phase(&mut self, plan: &Plan) -> Option<Work> {
        if self.transfers.is_empty() {
            return None;
        }
        let topology = &plan.machine.topology;
        if topology.nodes() > 1 {
            let crosses = |t: &&Transfer| topology.node_of(t.src as usize) != topology.node_of(t.dst as usize);
            self.cross_node_bytes += self.transfers.iter().filter(crosses).map(|t| t.bytes).sum::<u64>();
        }
        Some(on_the_clock(self.fidelity.phase(&self.transfers, Some(&mut self.link_bytes))))
    }
}

/// Writes transfers one after the other, those that stay on their device left out without a branch.
struct Kept<'a> {
    transfers: &'a mut Vec<Transfer>,
    len: usize,
    bytes: u64,
}

impl<'a> Kept<'a> {
    /// Instead of what is in `transfers`, at most `most` others.
    fn new(transfers: &'a mut Vec<Transfer>, most: usize) -> Self {
        transfers.resize(most, Transfer { src: 0, dst: 0, bytes: 0 });
        Self { transfers, len: 0, bytes: 0 }
    }
    #[inline]
    fn push(&mut self, src: u32, dst: u32, bytes: u64) {
        self.transfers[self.len] = Transfer { src, dst, bytes };
        self.len += usize::from(src != dst);
        self.bytes += u64::from(src != dst) * bytes;
    }
    /// Bytes of all of them.
    fn end(self) -> u64 {
        self.transfers.truncate(self.len);
        self.bytes
    }
}

fn on_the_clock(phase: Phase) -> Work {
    Work { launch: Picos::from_seconds(phase.time_s), body: Picos::ZERO, flop: 0, bound: Bound::Link }
}
