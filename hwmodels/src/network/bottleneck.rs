//! The bottleneck bound on a phase.
//!
//! time = max(L, T), where
//! * L is the largest, over links, of bytes on the link / its bandwidth + the least path latency among the transfers on
//!   it: a link cannot finish its bytes sooner, and whichever transfer it carries last still has its own latency;
//! * T is the largest, over transfers, of bytes / bandwidth of the slowest link on the path + path latency.
//!
//! Both are bounds from below whatever the sharing discipline, and so is their maximum. Bandwidths are the achievable
//! ones; a path's latency includes the per-message cost. More bytes in a transfer that has some never make a phase
//! shorter; a transfer added to a phase may, by its latency alone, where its path is shorter than that of the others.

use super::{Phase, Timed, Transfer, TransferModel, real, up};
use crate::topology::{PathClass, Topology};
use moesim_core::Picos;
use std::sync::Arc;

/// Bounds phases on one topology; keeps its tables between calls, so that a call allocates nothing.
#[derive(Clone, Debug)]
pub struct Bottleneck {
    topology: Arc<Topology>,
    /// Seconds per byte of each link.
    s_per_byte: Vec<f64>,
    /// Bytes on each link; between calls zero.
    bytes: Vec<u64>,
    /// The least class of the paths on each link, the one with the least latency; between calls `ANY`.
    least: Vec<u32>,
    /// The one class of all paths, if there is only one (a switch, a full mesh): then `least` is never written.
    only: Option<u32>,
    /// The links that a call has loaded; as long as `bytes`, and one more that takes writes which do not count.
    touched: Vec<u32>,
}

/// A class that is above every other.
const ANY: u32 = u32::MAX;

impl Bottleneck {
    /// For phases on `topology`.
    pub fn new(topology: Arc<Topology>) -> Self {
        let links = topology.links();
        Self {
            s_per_byte: links.iter().map(|l| 1.0 / l.bandwidth_per_s).collect(),
            bytes: vec![0; links.len()],
            least: vec![ANY; links.len()],
            // Class 0 is that of the paths from a device to itself.
            only: (topology.tables().2.len() == 2).then_some(1),
            touched: vec![0; links.len() + 1],
            topology,
        }
    }

    /// The topology that phases run on.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Bounds the phase of `transfers`, whose devices exist; `link_bytes`, one entry a link, has each link's bytes
    /// added.
    pub fn phase(&mut self, transfers: &[Transfer], mut link_bytes: Option<&mut [u64]>) -> Phase {
        // Where the transfers touch most links anyway, looking at all of them is cheaper than remembering which.
        let few = self.bytes.len() > 4 * transfers.len();
        let (slowest_s, count) = match (few, self.only.is_some()) {
            (true, true) => self.load::<true, true>(transfers),
            (true, false) => self.load::<true, false>(transfers),
            (false, true) => self.load::<false, true>(transfers),
            (false, false) => self.load::<false, false>(transfers),
        };
        let mut phase = Phase { time_s: 0.0, link: None };
        let Self { topology, s_per_byte, bytes, least, only, touched } = self;
        let (_, _, classes) = topology.tables();
        let mut take = |link: usize| {
            let bytes = std::mem::take(&mut bytes[link]);
            if bytes == 0 {
                return;
            }
            let class = only.unwrap_or_else(|| std::mem::replace(&mut least[link], ANY));
            let time_s = bytes as i64 as f64 * s_per_byte[link] + classes[class as usize].latency_s;
            if time_s > phase.time_s {
                phase = Phase { time_s, link: Some(link as u32) };
            }
            if let Some(total) = link_bytes.as_deref_mut() {
                total[link] += bytes;
            }
        };
        if few {
            touched[..count].iter().for_each(|&link| take(link as usize));
        } else {
            (0..s_per_byte.len()).for_each(take);
        }
        if slowest_s > phase.time_s {
            phase = Phase { time_s: slowest_s, link: self.slowest_link(transfers, slowest_s) };
        }
        phase
    }

    /// Puts every transfer on its links. Gives the time of the slowest alone, and with `TRACK` the number of
    /// links in `touched`. `ONE`: all paths are of one class.
    fn load<const TRACK: bool, const ONE: bool>(&mut self, transfers: &[Transfer]) -> (f64, usize) {
        let (routes, hops, classes) = self.topology.tables();
        let devices = self.topology.devices();
        let (bytes, least, touched) = (&mut self.bytes[..], &mut self.least[..], &mut self.touched[..]);
        let last = classes[classes.len() - 1];
        let (mut slowest_s, mut count) = (0.0, 0);
        for t in transfers {
            if t.bytes == 0 || t.src == t.dst {
                continue;
            }
            debug_assert!((t.src as usize) < devices && (t.dst as usize) < devices, "{t:?} of {devices} devices");
            let pair = t.src as usize * devices + t.dst as usize;
            let (route, end) = (routes[pair], routes[pair + 1].start);
            let class = if ONE { last } else { classes[route.class as usize] };
            let alone_s = alone_s(t.bytes, class);
            if alone_s > slowest_s {
                slowest_s = alone_s;
            }
            for &link in &hops[route.start as usize..end as usize] {
                let link = link as usize;
                if TRACK {
                    // Without a branch: the write counts only if the link was empty.
                    touched[count] = link as u32;
                    count += usize::from(bytes[link] == 0);
                }
                bytes[link] += t.bytes;
                if !ONE {
                    least[link] = least[link].min(route.class);
                }
            }
        }
        (slowest_s, count)
    }

    /// The first among the slowest links of the first transfer that takes `slowest_s` alone.
    fn slowest_link(&self, transfers: &[Transfer], slowest_s: f64) -> Option<u32> {
        let class = |t: &Transfer| self.topology.class(t.src as usize, t.dst as usize);
        let t = transfers.iter().filter(|t| real(t)).find(|t| alone_s(t.bytes, class(t)) == slowest_s)?;
        let at = |l: u32| self.s_per_byte[l as usize];
        let path = self.topology.path(t.src as usize, t.dst as usize);
        path.iter().copied().reduce(|a, b| if at(b) > at(a) { b } else { a })
    }
}

impl TransferModel for Bottleneck {
    fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    fn phase(&mut self, transfers: &[Transfer], link_bytes: Option<&mut [u64]>) -> Phase {
        Self::phase(self, transfers, link_bytes)
    }

    /// Each as if it were alone: a bound from below.
    fn schedule(&mut self, transfers: &[Timed], ends: &mut Vec<Picos>, mut link_bytes: Option<&mut [u64]>) {
        ends.clear();
        for Timed { start, transfer: t, .. } in transfers {
            let (src, dst) = (t.src as usize, t.dst as usize);
            let alone_s = if real(t) { alone_s(t.bytes, self.topology.class(src, dst)) } else { 0.0 };
            ends.push(*start + Picos(up(alone_s * 1e12)));
            if let Some(total) = link_bytes.as_deref_mut() {
                self.topology.path(src, dst).iter().for_each(|&l| total[l as usize] += t.bytes);
            }
        }
    }
}

/// The time of one transfer that shares nothing. The bytes are converted as signed, which is one instruction.
fn alone_s(bytes: u64, class: PathClass) -> f64 {
    bytes as i64 as f64 * class.s_per_byte + class.latency_s
}
