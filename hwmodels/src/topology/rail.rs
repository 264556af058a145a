//! Nodes with a scale-up switch, joined by one rail switch for each device of a node.
//!
//! Routing inside a node: up and down the scale-up switch. Between nodes on one rail: over the rail switch. Between
//! nodes across rails: by default over the scale-up switch to the sender's neighbour on the receiver's rail and then
//! along that rail, as NCCL forwards with PXN; with [`CrossRail::Spine`] along the sender's rail to the spine and down
//! the receiver's.

use super::Plan;
use super::fabric::Loads;
use super::wiring::{LinkKind, Wiring};
use super::{CrossRail, LinkSpec};
use moesim_core::{Diag, Result};

pub(super) fn plan(
    nodes: u32,
    per_node: u32,
    link: &LinkSpec,
    nic: &LinkSpec,
    cross_rail: CrossRail,
    oversubscription: f64,
) -> Result<Plan> {
    if !(1.0..=1e6).contains(&oversubscription) {
        return Err(Diag::input(format!("{oversubscription} is not an oversubscription"))
            .place("topology.spine_oversubscription")
            .cure("write a number of at least 1, as in 2.0; 1 is non-blocking"));
    }
    let devices = nodes * per_node;
    let mut wiring = Wiring::devices(devices as usize);
    let scale_up: Vec<u32> = (0..nodes).map(|n| wiring.switch(format!("node{n}"))).collect();
    let rails: Vec<u32> = (0..per_node).map(|i| wiring.switch(format!("rail{i}"))).collect();
    for d in 0..devices {
        // Ids: 4d up, 4d + 1 down, 4d + 2 out to the rail, 4d + 3 in from it.
        let (node, rail) = (scale_up[(d / per_node) as usize], rails[(d % per_node) as usize]);
        wiring.link(d, node, link, LinkKind::ScaleUp);
        wiring.link(node, d, link, LinkKind::ScaleUp);
        wiring.link(d, rail, nic, LinkKind::ScaleOut);
        wiring.link(rail, d, nic, LinkKind::ScaleOut);
    }
    let first_trunk = 4 * devices;
    if cross_rail == CrossRail::Spine {
        let spine = wiring.switch("spine");
        let width = f64::from(nodes) / oversubscription;
        for &rail in &rails {
            // Ids: first_trunk + 2i up, one more down.
            wiring.trunk(rail, spine, nic, LinkKind::ScaleOut, width);
            wiring.trunk(spine, rail, nic, LinkKind::ScaleOut, width);
        }
    }
    let route = move |src: usize, dst: usize, path: &mut Vec<u32>| {
        let (src, dst) = (src as u32, dst as u32);
        let (node, rail) = (src / per_node, dst % per_node);
        if node == dst / per_node {
            path.extend([4 * src, 4 * dst + 1]);
        } else if src % per_node == rail {
            path.extend([4 * src + 2, 4 * dst + 3]);
        } else if cross_rail == CrossRail::ScaleUp {
            let forwarder = node * per_node + rail;
            path.extend([4 * src, 4 * forwarder + 1, 4 * forwarder + 2, 4 * dst + 3]);
        } else {
            let (up, down) = (first_trunk + 2 * (src % per_node), first_trunk + 2 * rail + 1);
            path.extend([4 * src + 2, up, down, 4 * dst + 3]);
        }
    };
    Ok(Plan { wiring, devices: devices as usize, devices_per_node: per_node as usize, route: Box::new(route) })
}

/// What every link carries: see [`super::Fabric`].
pub(super) fn loads(x: &Loads, cross_rail: CrossRail, mut visit: impl FnMut(usize, [u64; 3])) {
    let devices = x.sent_inside.len();
    for d in 0..devices {
        let (along, other) = (x.sent_along[d], x.sent_across[d] - x.sent_along[d]);
        let from_other = x.received_across[d] - x.received_along[d];
        // What the node sends along the device's rail for others comes to the device over the scale-up switch first.
        let (up, down, out) = match cross_rail {
            CrossRail::ScaleUp => (other, x.relayed[d] - along, x.relayed[d] - along),
            CrossRail::Spine => (0, 0, other),
        };
        visit(4 * d, [x.sent_inside[d], 0, up]);
        visit(4 * d + 1, [x.received_inside[d], 0, down]);
        visit(4 * d + 2, [0, along, out]);
        visit(4 * d + 3, [0, x.received_along[d], from_other]);
    }
    if cross_rail == CrossRail::Spine {
        for rail in 0..x.per_node {
            let on = |across: &[u64], along: &[u64]| -> u64 {
                (rail..devices).step_by(x.per_node).map(|d| across[d] - along[d]).sum()
            };
            visit(4 * devices + 2 * rail, [0, 0, on(x.sent_across, x.sent_along)]);
            visit(4 * devices + 2 * rail + 1, [0, 0, on(x.received_across, x.received_along)]);
        }
    }
}
