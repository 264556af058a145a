//! Ring collectives, as tensor parallelism uses them.

use super::{Bottleneck, Phase};

/// A ring of devices: each sends to the next one, the last to the first.
///
/// One step moves one piece over every edge of the ring at once; an all-reduce of n devices is 2 (n - 1) steps with
/// pieces of 1/n of the bytes (Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms, JPDC 2009).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ring {
    /// Number of devices.
    pub devices: usize,
    /// Seconds per byte of a piece on the link that binds, with the ring's own edges sharing it.
    pub s_per_byte: f64,
    /// The largest path latency of an edge of the ring.
    pub latency_s: f64,
    /// The link that binds.
    pub link: Option<u32>,
}

impl Ring {
    /// The time of an all-reduce of `bytes` on every device.
    pub fn allreduce(&self, bytes: f64) -> Phase {
        self.steps(2.0, bytes)
    }

    /// The time of an all-gather that leaves `bytes` on every device, or of a reduce-scatter that starts from as many.
    pub fn allgather(&self, bytes: f64) -> Phase {
        self.steps(1.0, bytes)
    }

    fn steps(&self, rounds: f64, bytes: f64) -> Phase {
        if self.devices < 2 || bytes <= 0.0 {
            return Phase::default();
        }
        let n = self.devices as f64;
        let steps = rounds * (n - 1.0);
        Phase { time_s: steps / n * bytes * self.s_per_byte + steps * self.latency_s, link: self.link }
    }
}

impl Bottleneck {
    /// The ring through `devices` in this order. Where edges of the ring share a link they share its bandwidth.
    pub fn ring(&self, devices: &[u32]) -> Ring {
        let mut ring = Ring { devices: devices.len(), s_per_byte: 0.0, latency_s: 0.0, link: None };
        let mut links = Vec::new();
        for (i, &src) in devices.iter().enumerate() {
            let (src, dst) = (src as usize, devices[(i + 1) % devices.len()] as usize);
            links.extend_from_slice(self.topology().path(src, dst));
            ring.latency_s = ring.latency_s.max(self.topology().latency_s(src, dst));
        }
        links.sort_unstable();
        for same in links.chunk_by(|a, b| a == b) {
            let s_per_byte = same.len() as f64 / self.topology().links()[same[0] as usize].bandwidth_per_s;
            if s_per_byte > ring.s_per_byte {
                (ring.s_per_byte, ring.link) = (s_per_byte, Some(same[0]));
            }
        }
        ring
    }

    /// A ring all-reduce of `bytes` over `devices`: 2 (n - 1) / n of the bytes over the slowest link, and 2 (n - 1)
    /// latencies. Where one ring is used often, keep the [`Ring`].
    pub fn allreduce_ring(&self, devices: &[u32], bytes: f64) -> Phase {
        self.ring(devices).allreduce(bytes)
    }
}
