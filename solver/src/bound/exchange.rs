//! The exchanges of batches, bounded from below by the copies that no placement spares.

use super::traffic::copies;
use crate::Problem;
use crate::time::Batches;
use crate::traffic::{Mode, Way};

/// No placement's exchanges take less, all layers together, by copies that no placement spares.
pub(super) fn exchanges(p: &Problem, batches: &Batches) -> f64 {
    let x = &*batches.traffic;
    let (groups, nodes) = (x.groups() as f64, batches.nodes() as f64);
    let per_node = groups / nodes;
    let each = batches.scale / batches.batches as f64;
    let layer = |l: usize| {
        let least = copies(p, x, l);
        (0..2)
            .map(|way| match x.mode {
                Mode::TokenFollows => {
                    // The least of the larger of both, however copies are split.
                    let copies = if way == 0 { least.followed_out } else { least.followed_back };
                    let cost = match (x.inside[way], x.across[way]) {
                        (a, b) if nodes > 1.0 && a > 0.0 && b > 0.0 => 1.0 / (1.0 / a + 1.0 / b),
                        (a, _) if nodes == 1.0 => a,
                        _ => 0.0,
                    };
                    copies / groups * cost
                }
                Mode::ReturnHome if x.way == Way::Hierarchical => {
                    let rails = least.nodes / nodes * (1.0 - 1.0 / nodes) / per_node * x.across[way];
                    rails.max(least.groups / groups * (1.0 - 1.0 / per_node) * x.inside[way])
                }
                Mode::ReturnHome => {
                    let sent = if x.way == Way::PerSelection { least.selections } else { least.groups };
                    let (away, inside) = (1.0 - 1.0 / nodes, (per_node - 1.0) / groups);
                    sent / groups * (away * x.across[way]).max(inside * x.inside[way])
                }
            })
            .sum::<f64>()
    };
    (0..p.layers).map(layer).sum::<f64>() * each
}
