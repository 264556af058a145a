//! Rings: one, or one along every row of every dimension of a grid. Routing: dimension order, the shorter way round;
//! where both ways are as long, upwards from even coordinates and downwards from odd ones, which loads both alike.

use super::wiring::{LinkKind, Wiring};
use super::{LinkSpec, Plan, check_dims};
use moesim_core::Result;

pub(super) fn plan(dims: &[u32], link: &LinkSpec) -> Result<Plan> {
    check_dims(dims)?;
    let dims: Vec<usize> = dims.iter().map(|&d| d as usize).collect();
    let n: usize = dims.iter().product();
    let mut wiring = Wiring::devices(n);
    // The links of each device, up and down along each dimension. Along one of two devices both are the same.
    let mut out = vec![[u32::MAX; 2]; n * dims.len()];
    for device in 0..n {
        let mut stride = 1;
        for (i, &d) in dims.iter().enumerate() {
            let own = device / stride % d;
            let to = |c: usize| (device - own * stride + c * stride) as u32;
            if d > 1 {
                let up = wiring.link(device as u32, to((own + 1) % d), link, LinkKind::ScaleUp);
                let down =
                    if d > 2 { wiring.link(device as u32, to((own + d - 1) % d), link, LinkKind::ScaleUp) } else { up };
                out[device * dims.len() + i] = [up, down];
            }
            stride *= d;
        }
    }
    let route = move |src: usize, dst: usize, path: &mut Vec<u32>| {
        let (mut at, mut stride) = (src, 1);
        for (i, &d) in dims.iter().enumerate() {
            let (from, to) = (at / stride % d, dst / stride % d);
            let up = (to + d - from) % d;
            let upwards = 2 * up < d || (2 * up == d && from % 2 == 0);
            let mut c = from;
            while c != to {
                path.push(out[at * dims.len() + i][usize::from(!upwards)]);
                let next = if upwards { (c + 1) % d } else { (c + d - 1) % d };
                at = at - c * stride + next * stride;
                c = next;
            }
            stride *= d;
        }
    };
    Ok(Plan { wiring, devices: n, devices_per_node: n, route: Box::new(route) })
}
