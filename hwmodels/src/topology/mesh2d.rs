//! A two-dimensional mesh, as on a wafer. Routing: dimension order, along the row (x) first, then the column (y).

use super::wiring::{LinkKind, Wiring};
use super::{LinkSpec, Plan};

/// Directions in which a die can have a neighbour.
const EAST: usize = 0;
const WEST: usize = 1;
const SOUTH: usize = 2;
const NORTH: usize = 3;

pub(super) fn plan(x: u32, y: u32, link: &LinkSpec) -> Plan {
    let (x, y) = (x as usize, y as usize);
    let mut wiring = Wiring::devices(x * y);
    // The link of each die in each direction; u32::MAX where the mesh ends.
    let mut out = vec![[u32::MAX; 4]; x * y];
    for (die, out) in out.iter_mut().enumerate() {
        let (column, row) = (die % x, die / x);
        let neighbours = [
            (EAST, column + 1 < x, die + 1),
            (WEST, column > 0, die.wrapping_sub(1)),
            (SOUTH, row + 1 < y, die + x),
            (NORTH, row > 0, die.wrapping_sub(x)),
        ];
        for (direction, _, next) in neighbours.into_iter().filter(|n| n.1) {
            out[direction] = wiring.link(die as u32, next as u32, link, LinkKind::ScaleUp);
        }
    }
    let route = move |src: usize, dst: usize, path: &mut Vec<u32>| {
        let mut at = src;
        while at % x != dst % x {
            let (direction, next) = if at % x < dst % x { (EAST, at + 1) } else { (WEST, at - 1) };
            path.push(out[at][direction]);
            at = next;
        }
        while at != dst {
            let (direction, next) = if at < dst { (SOUTH, at + x) } else { (NORTH, at - x) };
            path.push(out[at][direction]);
            at = next;
        }
    };
    Plan { wiring, devices: x * y, devices_per_node: x * y, route: Box::new(route) }
}
