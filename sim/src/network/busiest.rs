//! What the busiest device of a collective moves: what calibrated kernels are asked with.

use super::dispatch::Leg;
use crate::machine::Plan;
use moesim_hwmodels::cost::Exchanged;
use moesim_hwmodels::network::Transfer;

/// Sums by device, kept between calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Busiest {
    /// Per device: bytes sent and received inside its node, sent and received between nodes, copied.
    sums: Vec<[u64; 5]>,
}

impl Busiest {
    /// Of `transfers`, which are those of `legs` (legs that stay on their device are copied too, of `bytes` each copy); `size`:
    /// the most tokens of a device; `experts`: of the layer.
    pub(super) fn of(
        &mut self,
        plan: &Plan,
        transfers: &[Transfer],
        legs: impl Iterator<Item = Leg>,
        bytes: u64,
        size: u64,
        experts: u32,
    ) -> Exchanged {
        let topology = &plan.machine.topology;
        self.sums.clear();
        self.sums.resize(topology.devices(), [0; 5]);
        for t in transfers {
            let (src, dst) = (t.src as usize, t.dst as usize);
            let across = 2 * usize::from(topology.node_of(src) != topology.node_of(dst));
            self.sums[src][across] += t.bytes;
            self.sums[dst][across + 1] += t.bytes;
        }
        for leg in legs {
            self.sums[leg.src as usize][4] += u64::from(leg.copies) * bytes;
        }
        let most = |i: usize| self.sums.iter().map(|s| s[i]).max().unwrap_or(0) as f64;
        let moved = [most(0).max(most(1)), most(2).max(most(3)), most(4)];
        exchanged(plan, moved, bytes, size, experts)
    }
}

/// What kernels are asked with where the busiest device sends or receives so many bytes inside its node and between
/// nodes, and copies so many: for messages of `bytes`, with `size` tokens on the device with the most and `experts` in
/// the layer.
pub(super) fn exchanged(plan: &Plan, moved: [f64; 3], bytes: u64, size: u64, experts: u32) -> Exchanged {
    let topology = &plan.machine.topology;
    let nodes = topology.nodes() as f64;
    let [link_bytes, nic_bytes, copied_bytes] = moved;
    Exchanged {
        devices: topology.devices() as f64,
        nodes,
        link_bytes,
        nic_bytes,
        copied_bytes,
        message_bytes: bytes as f64,
        flags: f64::from(experts) * (nodes - 1.0) / nodes,
        experts: f64::from(experts),
        size: size as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Deployment, Machine};
    use moesim_hwmodels::Hardware;
    use moesim_traces::Model;

    #[test]
    fn the_most_sent_or_received_counts() {
        let machine = Machine::new(Hardware::load("h800-2x8").unwrap()).unwrap();
        let plan = Plan::new(Model::load("gpt-oss-20b").unwrap(), machine, Deployment::default()).unwrap();
        let t = |src, dst, bytes| Transfer { src, dst, bytes };
        // Device 1 receives 50 inside its node, 0 sends 30 and keeps 10; 9 receives 7 from the other node.
        let transfers = [t(0, 1, 30), t(2, 1, 20), t(3, 9, 7)];
        let legs = [(0, 1, 3), (0, 0, 1), (2, 1, 2)].map(|(src, dst, copies)| Leg { src, dst, copies });
        let x = Busiest::default().of(&plan, &transfers, legs.into_iter(), 10, 5, 32);
        assert_eq!((x.link_bytes, x.nic_bytes, x.copied_bytes), (50.0, 7.0, 40.0));
        assert_eq!((x.devices, x.nodes, x.flags, x.message_bytes, x.size), (16.0, 2.0, 16.0, 10.0, 5.0));
    }
}
