//! Planes of switches, as in CloudMatrix384 (arXiv 2506.12708, section 3.3) and NVL72. Routing: up to the node's
//! level-1 switch, over level 2 where the other device is in another node, and down, all in one plane.
//!
//! Striped evenly, planes carry the same bytes and are built as one with the sum of the bandwidths; the level-2
//! switches of a plane, over which its bytes are spread evenly, are always built as one. Bytes of a link are those of
//! all the links that it stands for.

use super::fabric::Loads;
use super::wiring::{LinkKind, Wiring};
use super::{LinkSpec, Striping};
use super::{MAX_LINKS, Plan, limit};
use moesim_core::{Diag, Result};

/// What is above the level-1 switches.
pub(super) struct Above<'a> {
    pub(super) l2_switches: u32,
    pub(super) uplink: Option<&'a LinkSpec>,
}

/// More planes, or level-2 switches of a plane, than any machine has.
const MAX_WIDTH: u32 = 4096;

pub(super) fn plan(
    nodes: u32,
    per_node: u32,
    planes: u32,
    link: &LinkSpec,
    above: Above,
    striping: Striping,
) -> Result<Plan> {
    for (key, count) in [("planes", planes), ("l2_switches", above.l2_switches)] {
        if count > MAX_WIDTH || count == 0 && (key == "planes" || nodes > 1) {
            return Err(Diag::input(format!("{count} is not a number of {key}"))
                .place(format!("topology.{key}"))
                .cure(format!("write a number from 1 to {MAX_WIDTH}")));
        }
    }
    let uplink = match above.uplink {
        None if nodes > 1 => {
            return Err(Diag::input("level-1 switches of several nodes have no uplink")
                .place("topology.uplink")
                .cure("describe the link of a level-1 to a level-2 switch, as `link` is described"));
        }
        uplink => uplink.filter(|_| nodes > 1),
    };
    // Planes built, and how many of them each stands for.
    let (built, width) = if striping == Striping::Even { (1, planes) } else { (planes, 1) };
    let devices = nodes * per_node;
    let count = 2 * (devices as usize + nodes as usize) * built as usize;
    limit("links", "", count, MAX_LINKS)?;
    let mut wiring = Wiring::devices(devices as usize);
    for plane in 0..built {
        let named = |what: &str| if built == 1 { what.to_string() } else { format!("{what}.plane{plane}") };
        let l1: Vec<u32> = (0..nodes).map(|n| wiring.switch(named(&format!("node{n}")))).collect();
        for d in 0..devices {
            // Ids from the plane's first: 2d up, 2d + 1 down.
            let switch = l1[(d / per_node) as usize];
            wiring.trunk(d, switch, link, LinkKind::ScaleUp, f64::from(width));
            wiring.trunk(switch, d, link, LinkKind::ScaleUp, f64::from(width));
        }
        let Some(uplink) = uplink else { continue };
        let l2 = wiring.switch(named("l2"));
        let width = f64::from(width) * f64::from(above.l2_switches);
        for &switch in &l1 {
            // Then, for each node, one up and one down.
            wiring.trunk(switch, l2, uplink, LinkKind::ScaleUp, width);
            wiring.trunk(l2, switch, uplink, LinkKind::ScaleUp, width);
        }
    }
    let a_plane = 2 * (devices + if uplink.is_some() { nodes } else { 0 });
    let route = move |src: usize, dst: usize, path: &mut Vec<u32>| {
        let (src, dst) = (src as u32, dst as u32);
        let first = (src + dst) % built * a_plane;
        let (from, to) = (src / per_node, dst / per_node);
        path.push(first + 2 * src);
        if from != to {
            path.extend([first + 2 * (devices + from), first + 2 * (devices + to) + 1]);
        }
        path.push(first + 2 * dst + 1);
    };
    Ok(Plan { wiring, devices: devices as usize, devices_per_node: per_node as usize, route: Box::new(route) })
}

/// What every link carries, striped evenly: see [`super::Fabric`].
pub(super) fn loads(x: &Loads, mut visit: impl FnMut(usize, [u64; 3])) {
    let devices = x.sent_inside.len();
    for d in 0..devices {
        visit(2 * d, [x.sent_inside[d], 0, x.sent_across[d]]);
        visit(2 * d + 1, [x.received_inside[d], 0, x.received_across[d]]);
    }
    if x.per_node == devices {
        return;
    }
    let nodes = x.sent_across.chunks(x.per_node).zip(x.received_across.chunks(x.per_node));
    for (n, (sent, received)) in nodes.enumerate() {
        visit(2 * (devices + n), [0, 0, sent.iter().sum()]);
        visit(2 * (devices + n) + 1, [0, 0, received.iter().sum()]);
    }
}
