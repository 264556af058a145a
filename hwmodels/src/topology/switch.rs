//! One device alone, and a node behind a non-blocking switch. Routing: up, then down.

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
