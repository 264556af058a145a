//! Every device joined to every other; with more dimensions, to every other along each of them. Routing: the direct
//! link of each dimension in which the devices differ, in the order of the dimensions.

use super::wiring::{LinkKind, Wiring};
use super::{LinkSpec, MAX_LINKS, Plan, check_dims, limit};
use moesim_core::{Diag, Result};

pub(super) fn plan(dims: &[u32], links: &[LinkSpec]) -> Result<Plan> {
    check_dims(dims)?;
    if links.len() != dims.len() {
        return Err(Diag::input(format!("has {} links for {} dimensions", links.len(), dims.len()))
            .place("topology.links")
            .cure("write one link for each number in `dims`"));
    }
    let dims: Vec<usize> = dims.iter().map(|&d| d as usize).collect();
    let n: usize = dims.iter().product();
    // Links that leave a device.
    let degree: usize = dims.iter().map(|d| d - 1).sum();
    limit("links", "", (n * degree).max(1), MAX_LINKS)?;
    let mut wiring = Wiring::devices(n);
    for src in 0..n {
        let mut stride = 1;
        for (&d, link) in dims.iter().zip(links) {
            let own = src / stride % d;
            for other in (0..d).filter(|&c| c != own) {
                wiring.link(src as u32, (src - own * stride + other * stride) as u32, link, LinkKind::ScaleUp);
            }
            stride *= d;
        }
    }
    // A row of links for each device, in it d - 1 for each dimension, the device's own coordinate left out.
    let route = move |src: usize, dst: usize, path: &mut Vec<u32>| {
        let (mut at, mut stride, mut offset) = (src, 1, 0);
        for &d in &dims {
            let (from, to) = (at / stride % d, dst / stride % d);
            if from != to {
                path.push((at * degree + offset + to - usize::from(to > from)) as u32);
                at = at - from * stride + to * stride;
            }
            (stride, offset) = (stride * d, offset + d - 1);
        }
    };
    Ok(Plan { wiring, devices: n, devices_per_node: n, route: Box::new(route) })
}
