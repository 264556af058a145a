//! All-reduce, all-gather and reduce-scatter.

use super::Collective;
use crate::network::Transfer;
use crate::topology::Topology;

/// Each device sends `bytes` to the next, the last to the first.
fn round(devices: &[u32], bytes: u64) -> impl Iterator<Item = Transfer> {
    let next = devices.iter().cycle().skip(1);
    devices.iter().zip(next).map(move |(&src, &dst)| Transfer { src, dst, bytes })
}

fn steps(devices: &[u32]) -> u32 {
    devices.len().saturating_sub(1) as u32
}

impl Collective {
    /// All-reduce of `bytes` on every device over a ring: 2 (n - 1) steps with pieces of 1 / n of the bytes (Patarasuk
    /// and Yuan, Bandwidth optimal all-reduce algorithms, JPDC 2009).
    pub fn allreduce_ring(devices: &[u32], bytes: u64) -> Self {
        let piece = bytes.div_ceil(devices.len().max(1) as u64);
        Self::default().then(2 * steps(devices), round(devices, piece))
    }

    /// All-gather over a ring that leaves `bytes` on every device: n - 1 steps with pieces of 1 / n.
    pub fn allgather_ring(devices: &[u32], bytes: u64) -> Self {
        let piece = bytes.div_ceil(devices.len().max(1) as u64);
        Self::default().then(steps(devices), round(devices, piece))
    }

    /// Reduce-scatter over a ring from `bytes` on every device: the steps of an all-gather.
    pub fn reduce_scatter_ring(devices: &[u32], bytes: u64) -> Self {
        Self::allgather_ring(devices, bytes)
    }

    /// All-reduce of `bytes` on every device over two binary trees at once, each with half of the bytes in `chunks`
    /// chunks (Sanders, Speck and Traff, Two-tree algorithms for full bandwidth broadcast, reduction and scan, Parallel
    /// Computing 2009). What is inside one tree is a leaf of the other (but for one device of an odd number). Chunks
    /// follow each other up and down: with depth d there are 2 d - 1 + `chunks` steps.
    pub fn allreduce_double_tree(devices: &[u32], bytes: u64, chunks: u32) -> Self {
        let (n, chunks) = (devices.len(), chunks.max(1));
        if n < 2 {
            return Self::default();
        }
        let piece = bytes.div_ceil(2 * u64::from(chunks));
        // Devices in the order of a heap, the other tree from the end: place p is below (p - 1) / 2.
        let depth = |p: usize| (p + 1).ilog2();
        let deepest = depth(n - 1);
        let mut edges: Vec<(u32, Transfer)> = Vec::new();
        for p in 1..n {
            let above = (p - 1) / 2;
            for (child, parent) in [(devices[p], devices[above]), (devices[n - 1 - p], devices[n - 1 - above])] {
                edges.push((deepest - depth(p), Transfer { src: child, dst: parent, bytes: piece }));
                edges.push((deepest + depth(p) - 1, Transfer { src: parent, dst: child, bytes: piece }));
            }
        }
        (0..2 * deepest - 1 + chunks).fold(Self::default(), |c, step| {
            let active = |stage: u32| stage <= step && step < stage + chunks;
            c.then(1, edges.iter().filter(|e| active(e.0)).map(|e| e.1))
        })
    }

    /// All-reduce of `bytes` on every device inside the switch that joins them, as NVLink SHARP does: a device fetches
    /// its share, reduced on the way from all, and has the switch copy it to all. Sums and copies overlap, so that each
    /// link up and down carries the bytes once and one share more; two latencies. None where the devices have no switch
    /// in common.
    pub fn allreduce_in_switch(topology: &Topology, devices: &[u32], bytes: u64) -> Option<Self> {
        let share = bytes.div_ceil(devices.len().max(1) as u64);
        let mut switches = round(devices, 0).map(|t| match topology.path(t.src as usize, t.dst as usize) {
            [up, _] => Some(topology.links()[*up as usize].to),
            _ => None,
        });
        let first = switches.next()??;
        // What a device sends to the next loads its own link up and the other's link down.
        (first as usize >= topology.devices() && switches.all(|s| s == Some(first)))
            .then(|| Self::default().then(2, round(devices, (bytes + share).div_ceil(2))))
    }
}
