//! A phase by sums over its transfers, where every link carries a row sum, a column sum or a sum by node.
//!
//! Behind a switch, on planes of switches and on fat trees the bytes of a link follow from what every device sends and
//! receives inside its node, to other nodes, and along its rail. [`Sums`] holds that, in copies of a message; [`Links`]
//! says what [`super::Bottleneck`] would say of the transfers one by one, to the bit.

use super::Phase;
use crate::topology::{Fabric, Loads, PathClass, Topology};
use std::sync::Arc;

/// Pairs of devices whose paths are alike: in one node, on one rail of two nodes, on different rails of two nodes.
pub const CLASSES: usize = 3;

/// Which way copies travel: as they were added, or from their destination to their source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As they were added.
    There = 0,
    /// From destination to source.
    Back = 1,
}

/// The most copies of one transfer, the first added among equals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Most {
    copies: u64,
    pair: [u32; 2],
}

/// Sums of copies from device to device; those that stay on their device are kept apart. Arrays have an entry a device;
/// pairs of arrays are of senders and of receivers.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    per_node: usize,
    /// Rails matter to the links.
    rails: bool,
    inside: [Vec<u64>; 2],
    across: [Vec<u64>; 2],
    /// Of `across`, those to and from devices in the same place of their node.
    along: [Vec<u64>; 2],
    /// Of `across`, by the device of the sender's node in the receiver's place; and of the receiver's in the sender's.
    relayed: [Vec<u64>; 2],
    stays: Vec<u64>,
    most: [Most; CLASSES],
    /// Whole rows of one node's devices, added up by receiver.
    column: Vec<u32>,
    /// Copies in the rows of `column`, and the node.
    pending: (u64, usize),
    total: u64,
}

impl Sums {
    /// Forgets all; for devices of `topology`.
    pub fn clear(&mut self, topology: &Topology) {
        let (devices, nodes) = (topology.devices(), topology.nodes());
        self.per_node = devices / nodes;
        self.rails = topology.fabric().is_some_and(Fabric::has_rails);
        let pairs = [&mut self.inside, &mut self.across, &mut self.along, &mut self.relayed];
        for array in pairs.into_iter().flatten().chain([&mut self.stays]) {
            array.clear();
            array.resize(devices, 0);
        }
        self.column.clear();
        self.column.resize(devices, 0);
        (self.most, self.pending, self.total) = ([Most::default(); CLASSES], (0, 0), 0);
    }

    fn most(&mut self, class: usize, copies: u64, src: usize, dst: usize) {
        if copies > self.most[class].copies {
            self.most[class] = Most { copies, pair: [src as u32, dst as u32] };
        }
    }

    /// Adds a transfer of `copies` messages from device `src` to device `dst`, which may be the same.
    pub fn one(&mut self, src: usize, dst: usize, copies: u32) {
        let n = u64::from(copies);
        if src == dst {
            self.stays[src] += n;
            return;
        }
        self.total += n;
        let (from, to) = (src / self.per_node, dst / self.per_node);
        if from == to {
            self.inside[0][src] += n;
            self.inside[1][dst] += n;
            return self.most(0, n, src, dst);
        }
        self.across[0][src] += n;
        self.across[1][dst] += n;
        let (sender, receiver) = (src % self.per_node, dst % self.per_node);
        self.relayed[0][from * self.per_node + receiver] += n;
        self.relayed[1][to * self.per_node + sender] += n;
        let along = sender == receiver;
        if along {
            self.along[0][src] += n;
            self.along[1][dst] += n;
        }
        self.most(if along { 1 } else { 2 }, n, src, dst);
    }

    /// Adds a transfer from `src` to every device, of `copies[dst]`.
    pub fn row(&mut self, src: usize, copies: &[u32]) {
        if self.rails {
            return (0..copies.len()).filter(|&d| copies[d] > 0).for_each(|dst| self.one(src, dst, copies[dst]));
        }
        let (home, per_node) = (src / self.per_node, self.per_node);
        let all: u64 = copies.iter().map(|&n| u64::from(n)).sum();
        // So that no sum of a column wraps.
        if home != self.pending.1 || self.pending.0 + all > u64::from(u32::MAX) {
            self.settle();
            self.pending.1 = home;
        }
        let own = &copies[home * per_node..(home + 1) * per_node];
        let stays = u64::from(copies[src]);
        let inside = own.iter().map(|&n| u64::from(n)).sum::<u64>() - stays;
        self.stays[src] += stays;
        self.inside[0][src] += inside;
        self.across[0][src] += all - inside - stays;
        self.total += all - stays;
        let place = src % per_node;
        let near = greatest(&own[..place]).max(greatest(&own[place + 1..]));
        let far = greatest(&copies[..home * per_node]).max(greatest(&copies[(home + 1) * per_node..]));
        for (class, n) in [(0, near), (2, far)] {
            if u64::from(n) > self.most[class].copies {
                let is = |d: &usize| copies[*d] == n && *d != src && (d / per_node == home) == (class == 0);
                let dst = (0..copies.len()).find(is).unwrap_or(src);
                self.most(class, n.into(), src, dst);
            }
        }
        // Such a row stands alone.
        if all > u64::from(u32::MAX) {
            return self.receive(home, copies.iter().enumerate().map(|(d, &n)| if d == src { 0 } else { n }));
        }
        self.pending.0 += all;
        self.column.iter_mut().zip(copies).for_each(|(sum, n)| *sum += n);
        self.column[src] -= copies[src];
    }

    /// Every device receives what `copies` says from node `from`.
    fn receive(&mut self, from: usize, mut copies: impl Iterator<Item = u32>) {
        let (start, end, devices) = (from * self.per_node, (from + 1) * self.per_node, self.stays.len());
        for (sums, part) in [(1, 0..start), (0, start..end), (1, end..devices)] {
            let sums = if sums == 0 { &mut self.inside[1] } else { &mut self.across[1] };
            sums[part].iter_mut().zip(&mut copies).for_each(|(sum, n)| *sum += u64::from(n));
        }
    }

    /// Adds the rows that wait in `column`.
    fn settle(&mut self) {
        if self.pending.0 > 0 {
            let column = std::mem::take(&mut self.column);
            self.receive(self.pending.1, column.iter().copied());
            self.column = column;
            self.column.fill(0);
            self.pending.0 = 0;
        }
    }

    /// To be called once all is added, before anything is asked.
    pub fn done(&mut self) {
        self.settle();
    }

    /// Copies that leave their device.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Copies that leave their node.
    pub fn crossing(&self) -> u64 {
        self.across[0].iter().sum()
    }

    /// Of the device with the most, whichever device that is: copies sent or received inside its node, sent or received
    /// between nodes, and sent with those that stay.
    pub fn busiest(&self, way: Way) -> [u64; 3] {
        let most = |sums: &[Vec<u64>; 2]| sums.iter().flatten().copied().max().unwrap_or(0);
        let (way, devices) = (way as usize, 0..self.stays.len());
        let sent = devices.map(|d| self.inside[way][d] + self.across[way][d] + self.stays[d]);
        [most(&self.inside), most(&self.across), sent.max().unwrap_or(0)]
    }

    /// By device, of copies that travel `way`: the sums of [`Loads`].
    fn loads(&self, way: Way) -> Loads<'_> {
        let (out, back) = (way as usize, 1 - way as usize);
        Loads {
            per_node: self.per_node,
            sent_inside: &self.inside[out],
            received_inside: &self.inside[back],
            sent_across: &self.across[out],
            received_across: &self.across[back],
            sent_along: &self.along[out],
            received_along: &self.along[back],
            relayed: &self.relayed[out],
        }
    }
}

fn greatest(of: &[u32]) -> u32 {
    of.iter().copied().fold(0, u32::max)
}

/// Prices [`Sums`] on a topology whose links carry sums.
#[derive(Clone, Debug)]
pub struct Links {
    topology: Arc<Topology>,
    fabric: Fabric,
    s_per_byte: Vec<f64>,
    classes: [PathClass; CLASSES],
}

impl Links {
    /// Nothing where links carry other than sums: meshes, graphs, planes striped by pair, paths around failed links.
    pub fn new(topology: &Arc<Topology>) -> Option<Self> {
        let fabric = *topology.fabric()?;
        let (devices, per_node) = (topology.devices(), topology.devices() / topology.nodes());
        // A pair of every class that there is.
        let other_rail = per_node + usize::from(per_node > 1);
        let of = |dst: usize| topology.class(0, if dst < devices { dst } else { 0 });
        Some(Self {
            fabric,
            s_per_byte: topology.links().iter().map(|l| 1.0 / l.bandwidth_per_s).collect(),
            classes: [of(usize::from(per_node > 1)), of(per_node), of(other_rail)],
            topology: topology.clone(),
        })
    }

    /// The phase of all transfers of `sums`, `bytes` a copy, that travel `way`; `link_bytes`, one entry a link, has
    /// each link's bytes added.
    pub fn phase(&self, sums: &Sums, way: Way, bytes: u64, mut link_bytes: Option<&mut [u64]>) -> Phase {
        let mut phase = Phase { time_s: 0.0, link: None };
        self.fabric.loads(&sums.loads(way), |link, copies| {
            let all = copies.iter().sum::<u64>() * bytes;
            if all == 0 {
                return;
            }
            let least = (0..CLASSES).filter(|&c| copies[c] > 0).map(|c| self.classes[c].latency_s);
            let time_s = all as i64 as f64 * self.s_per_byte[link] + least.fold(f64::INFINITY, f64::min);
            if time_s > phase.time_s {
                phase = Phase { time_s, link: Some(link as u32) };
            }
            if let Some(total) = link_bytes.as_deref_mut() {
                total[link] += all;
            }
        });
        for (most, class) in sums.most.iter().zip(self.classes).filter(|(m, _)| m.copies > 0) {
            let time_s = (most.copies * bytes) as i64 as f64 * class.s_per_byte + class.latency_s;
            if time_s > phase.time_s {
                phase = Phase { time_s, link: self.slowest(most.pair, way) };
            }
        }
        phase
    }

    /// The first among the slowest links between two devices.
    fn slowest(&self, [src, dst]: [u32; 2], way: Way) -> Option<u32> {
        let (src, dst) = if way == Way::There { (src, dst) } else { (dst, src) };
        let at = |l: u32| self.s_per_byte[l as usize];
        let path = self.topology.path(src as usize, dst as usize).iter().copied();
        path.reduce(|a, b| if at(b) > at(a) { b } else { a })
    }
}

#[cfg(test)]
mod tests;
