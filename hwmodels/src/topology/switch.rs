//! One device alone, and a node behind a non-blocking switch. Routing: up, then down.

use super::fabric::Loads;
use super::wiring::{LinkKind, Wiring};
use super::{LinkSpec, Plan};

pub(super) fn single() -> Plan {
    Plan { wiring: Wiring::devices(1), devices: 1, devices_per_node: 1, route: Box::new(|_, _, _| {}) }
}

pub(super) fn plan(devices: u32, link: &LinkSpec) -> Plan {
    let mut wiring = Wiring::devices(devices as usize);
    let switch = wiring.switch("switch");
    for d in 0..devices {
        // Ids: 2d up, 2d + 1 down.
        wiring.link(d, switch, link, LinkKind::ScaleUp);
        wiring.link(switch, d, link, LinkKind::ScaleUp);
    }
    let route = |src: usize, dst: usize, path: &mut Vec<u32>| path.extend([2 * src as u32, 2 * dst as u32 + 1]);
    Plan { wiring, devices: devices as usize, devices_per_node: devices as usize, route: Box::new(route) }
}

/// What every link carries: see [`super::Fabric`].
pub(super) fn loads(x: &Loads, mut visit: impl FnMut(usize, [u64; 3])) {
    for (d, (&sent, &received)) in x.sent_inside.iter().zip(x.received_inside).enumerate() {
        visit(2 * d, [sent, 0, 0]);
        visit(2 * d + 1, [received, 0, 0]);
    }
}
