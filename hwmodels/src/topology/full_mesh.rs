//! Every device joined to every other. Routing: the direct link.

use super::wiring::{LinkKind, Wiring};
use super::{MAX_LINKS, Plan, limit};
use crate::hardware::LinkSpec;
use moesim_core::Result;

pub(super) fn plan(devices: u32, link: &LinkSpec) -> Result<Plan> {
    let n = devices as usize;
    limit("links", "", (n * (n - 1)).max(1), MAX_LINKS)?;
    let mut wiring = Wiring::devices(n);
    for src in 0..devices {
        for dst in (0..devices).filter(|&dst| dst != src) {
            wiring.link(src, dst, link, LinkKind::ScaleUp);
        }
    }
    // Row src has n - 1 links and skips the diagonal.
    let route = move |src: usize, dst: usize, path: &mut Vec<u32>| {
        path.push((src * (n - 1) + dst - usize::from(dst > src)) as u32);
    };
    Ok(Plan { wiring, devices: n, devices_per_node: n, route: Box::new(route) })
}
