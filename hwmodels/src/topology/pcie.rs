//! Devices behind PCIe switches under one root complex. Routing: up to the switch, over the root complex where the
//! other device is behind another switch, and down (peer to peer).

use super::wiring::{LinkKind, Wiring};
use super::{LinkSpec, Plan};

pub(super) fn plan(switches: u32, per_switch: u32, link: &LinkSpec, uplink: &LinkSpec) -> Plan {
    let devices = switches * per_switch;
    let mut wiring = Wiring::devices(devices as usize);
    let groups: Vec<u32> = (0..switches).map(|s| wiring.switch(format!("pcie{s}"))).collect();
    for d in 0..devices {
        // Ids: 2d up, 2d + 1 down.
        let switch = groups[(d / per_switch) as usize];
        wiring.link(d, switch, link, LinkKind::ScaleUp);
        wiring.link(switch, d, link, LinkKind::ScaleUp);
    }
    if switches > 1 {
        let root = wiring.switch("root");
        for &switch in &groups {
            // Ids: 2 devices + 2s up, one more down.
            wiring.link(switch, root, uplink, LinkKind::ScaleUp);
            wiring.link(root, switch, uplink, LinkKind::ScaleUp);
        }
    }
    let route = move |src: usize, dst: usize, path: &mut Vec<u32>| {
        let (src, dst) = (src as u32, dst as u32);
        let (from, to) = (src / per_switch, dst / per_switch);
        path.push(2 * src);
        if from != to {
            path.extend([2 * (devices + from), 2 * (devices + to) + 1]);
        }
        path.push(2 * dst + 1);
    };
    let devices = devices as usize;
    Plan { wiring, devices, devices_per_node: devices, route: Box::new(route) }
}
