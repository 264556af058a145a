//! The bottleneck bound on a phase.
//!
//! time = max(L, T), where
//! * L is the largest, over links, of bytes on the link / its bandwidth + the least path latency among the transfers on
//!   it: a link cannot finish its bytes sooner, and whichever transfer it carries last still has its own latency;
//! * T is the largest, over transfers, of bytes / bandwidth of the slowest link on the path + path latency.
//!
//! Both are bounds from below whatever the sharing discipline, and so is their maximum. Bandwidths are the achievable
//! ones; a path's latency includes the per-message cost. More bytes in a transfer never make a phase shorter.

use super::{Phase, Transfer};
use crate::topology::Topology;
use std::sync::Arc;

/// Bounds phases on one topology; keeps its tables between calls, so that a call allocates nothing.
#[derive(Clone, Debug)]
pub struct Bottleneck {
    topology: Arc<Topology>,
    /// Seconds per byte of each link.
    s_per_byte: Vec<f64>,
    /// Between calls every link has the empty load.
    loads: Vec<Load>,
    /// The links that a call has loaded; as long as `loads`, and one more that takes writes which do not count.
    touched: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Load {
    bytes: u64,
    least_latency_s: f64,
}

const EMPTY: Load = Load { bytes: 0, least_latency_s: f64::INFINITY };

impl Bottleneck {
    /// For phases on `topology`.
    pub fn new(topology: Arc<Topology>) -> Self {
        let links = topology.links();
        Self {
            s_per_byte: links.iter().map(|l| 1.0 / l.bandwidth_per_s).collect(),
            loads: vec![EMPTY; links.len()],
            touched: vec![0; links.len() + 1],
            topology,
        }
    }

    /// The topology that phases run on.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Bounds the phase of `transfers`, whose devices exist; `link_bytes`, one entry a link, has each link's bytes added.
    pub fn phase(&mut self, transfers: &[Transfer], link_bytes: Option<&mut [u64]>) -> Phase {
        let (routes, hops, classes) = self.topology.tables();
        let devices = self.topology.devices();
        let (loads, touched) = (&mut self.loads[..], &mut self.touched[..]);
        let mut count = 0;
        let (mut slowest_s, mut slowest) = (0.0, None);
        for t in transfers {
            if t.bytes == 0 || t.src == t.dst {
                continue;
            }
            debug_assert!((t.src as usize) < devices && (t.dst as usize) < devices, "{t:?} of {devices} devices");
            let pair = t.src as usize * devices + t.dst as usize;
            let (route, end) = (routes[pair], routes[pair + 1].start);
            let class = classes[route.class as usize];
            // Signed, since that conversion is one instruction.
            let alone_s = t.bytes as i64 as f64 * class.s_per_byte + class.latency_s;
            if alone_s > slowest_s {
                (slowest_s, slowest) = (alone_s, Some((t.src, t.dst)));
            }
            for &link in &hops[route.start as usize..end as usize] {
                let load = &mut loads[link as usize];
                // Without a branch: the write counts only if the link was empty.
                touched[count] = link;
                count += usize::from(load.bytes == 0);
                load.bytes += t.bytes;
                load.least_latency_s = load.least_latency_s.min(class.latency_s);
            }
        }
        let mut phase = Phase { time_s: 0.0, link: None };
        let mut link_bytes = link_bytes;
        for &link in &touched[..count] {
            let load = std::mem::replace(&mut loads[link as usize], EMPTY);
            let time_s = load.bytes as i64 as f64 * self.s_per_byte[link as usize] + load.least_latency_s;
            if time_s > phase.time_s {
                phase = Phase { time_s, link: Some(link) };
            }
            if let Some(total) = link_bytes.as_deref_mut() {
                total[link as usize] += load.bytes;
            }
        }
        match slowest {
            Some((src, dst)) if slowest_s > phase.time_s => {
                Phase { time_s: slowest_s, link: self.slowest_link(src as usize, dst as usize) }
            }
            _ => phase,
        }
    }

    /// The first among the slowest links from `src` to `dst`.
    fn slowest_link(&self, src: usize, dst: usize) -> Option<u32> {
        let at = |l: u32| self.s_per_byte[l as usize];
        self.topology.path(src, dst).iter().copied().reduce(|a, b| if at(b) > at(a) { b } else { a })
    }
}
