//! Copies, bounded from below.
//!
//! A token's k experts lie on m groups only if enough pairs of them share one: at least the pairs of k dealt evenly to m. How
//! many pairs of all tokens can share a group is limited: an expert shares its group with at most s - 1 others, at best those
//! that it was selected with most often. The fewest groups as a function of shared pairs, made convex, gives the bound by
//! Jensen's inequality. Nodes are bounded alike, with the slots of a node.
//!
//! Where tokens follow, a copy is spared if an expert of the next layer is where the token is: of those, at most s of the next
//! layer share the group of the first expert of this one.
//!
//! With redundant experts each may share a group with more: any of its replicas with s - 1 others.

use crate::Problem;
use crate::traffic::{Mode, Traffic, Way};
use rayon::prelude::*;

/// No placement's traffic costs less, on the rows that the search sees; 0 without rows.
pub fn traffic(p: &Problem) -> f64 {
    let Some(t) = &p.traffic else { return 0.0 };
    let layers: Vec<f64> = (0..p.layers).into_par_iter().map(|l| layer(p, t, l)).collect();
    layers.into_iter().sum::<f64>() * t.scale
}

/// Slots that one expert's replicas can share: at most `slots` on each of at most `1 + redundant` groups.
fn partners(p: &Problem, slots: usize) -> usize {
    (slots - 1).saturating_mul(1 + p.redundant).min(p.experts - 1)
}

/// What no placement of a layer spares, over all rows.
pub(super) struct Least {
    /// Groups of each token's experts, or nodes of them, or the experts.
    pub(super) groups: f64,
    pub(super) nodes: f64,
    pub(super) selections: f64,
    /// Copies sent where tokens follow, and partial results sent back.
    pub(super) followed_out: f64,
    pub(super) followed_back: f64,
}

pub(super) fn copies(p: &Problem, t: &Traffic, l: usize) -> Least {
    let nodes = p.nodes();
    let most_slots = p.slots[l].iter().copied().max().unwrap_or(1) as usize;
    let node_slots = |n: usize| -> usize {
        (0..p.groups).filter(|&g| p.node_of[g] as usize == n).map(|g| p.slots[l][g] as usize).sum()
    };
    let most_node_slots = (0..nodes).map(node_slots).max().unwrap_or(1);
    let pairs = t.rows.pairs(l);
    let counted = fewest(p, t, l, &pairs, most_slots, p.groups);
    let groups = super::partition::fewest_groups(p, &t.rows, l).map_or(counted, |b| b.max(counted));
    let tokens = present(p, t, l);
    let mut least = Least {
        groups,
        nodes: if nodes > 1 { fewest(p, t, l, &pairs, most_node_slots, nodes) } else { tokens },
        selections: selections(p, t, l),
        followed_out: 0.0,
        // The outputs are collected on one of the groups.
        followed_back: (groups - tokens).max(0.0),
    };
    if t.mode == Mode::TokenFollows {
        let spared = if l == 0 {
            tokens
        } else {
            let next = t.rows.next(l - 1);
            let width = t.rows.experts();
            let most = most_slots.saturating_mul(1 + p.redundant).min(p.experts);
            let best: f64 = (0..p.experts).map(|e| largest(&next[e * width..e * width + p.experts], most)).sum();
            let flow =
                || (0..p.experts).flat_map(|e| next[e * width..e * width + p.experts].to_vec()).collect::<Vec<_>>();
            let columns = super::partition::most_stays(p, &flow()).unwrap_or(f64::INFINITY);
            best.min(tokens).min(columns)
        };
        least.followed_out = (groups - spared).max(0.0);
    }
    least
}

fn layer(p: &Problem, t: &Traffic, l: usize) -> f64 {
    let (both, nodes) = (|c: [f64; 2]| c[0] + c[1], p.nodes() as f64);
    let least = copies(p, t, l);
    let (groups, per_node) = (p.groups as f64, p.groups as f64 / nodes);
    let each = ((per_node - 1.0) * both(t.inside) + (groups - per_node) * both(t.across)) / groups;
    match (t.mode, t.way) {
        (Mode::ReturnHome, Way::PerSelection) => least.selections * each,
        (Mode::ReturnHome, Way::Flat) => least.groups * each,
        (Mode::ReturnHome, Way::Hierarchical) => {
            let away = least.nodes * (1.0 - 1.0 / nodes) * both(t.across);
            away + least.groups * (1.0 - 1.0 / per_node) * both(t.inside)
        }
        (Mode::TokenFollows, _) => {
            // Every copy is at least as cheap as the cheaper of the two kinds of links.
            let cheap = |way: usize| if nodes > 1.0 { t.inside[way].min(t.across[way]) } else { t.inside[way] };
            least.followed_out * cheap(0) + least.followed_back * cheap(1)
        }
    }
}

/// Tokens with any expert of the layer.
fn present(p: &Problem, t: &Traffic, l: usize) -> f64 {
    let some = |token: usize| t.rows.ids(token, l).iter().any(|e| usize::from(*e) < p.experts);
    (0..t.rows.tokens()).filter(|&token| some(token)).count() as f64
}

fn selections(p: &Problem, t: &Traffic, l: usize) -> f64 {
    let of = |token: usize| t.rows.ids(token, l).iter().filter(|e| usize::from(**e) < p.experts).count();
    (0..t.rows.tokens()).map(of).sum::<usize>() as f64
}

fn largest(values: &[f64], n: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted.iter().take(n).sum()
}

/// Fewest groups that all tokens' experts lie on, summed over tokens, with `slots` experts on a group of `groups`.
fn fewest(p: &Problem, t: &Traffic, l: usize, pairs: &[f64], slots: usize, groups: usize) -> f64 {
    let width = t.rows.experts();
    // Pairs that share a group, at most; each is seen from both sides.
    let mut shared = 0.0;
    let most = partners(p, slots);
    for e in 0..p.experts {
        let mut row = pairs[e * width..e * width + p.experts].to_vec();
        row[e] = 0.0;
        shared += largest(&row, most);
    }
    shared /= 2.0;
    // Tokens by how many experts they selected.
    let mut by_k = vec![0usize; t.rows.k + 1];
    for token in 0..t.rows.tokens() {
        by_k[t.rows.ids(token, l).iter().filter(|e| usize::from(**e) < p.experts).count()] += 1;
    }
    // The most that shared pairs can spare, best rates first: convexity makes this the optimum of the relaxation.
    let mut rates: Vec<(f64, f64)> = Vec::new();
    let mut total = 0.0;
    for (k, &n) in by_k.iter().enumerate().filter(|(k, n)| *k > 0 && **n > 0) {
        let hull = hull(k, groups, slots);
        let (m0, c0) = hull[0];
        total += n as f64 * m0;
        shared -= n as f64 * c0;
        for w in hull.windows(2) {
            let ((m0, c0), (m1, c1)) = (w[0], w[1]);
            rates.push(((m0 - m1) / (c1 - c0), n as f64 * (c1 - c0)));
        }
    }
    rates.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (rate, room) in rates {
        let used = room.min(shared.max(0.0));
        total -= rate * used;
        shared -= used;
    }
    total
}

/// (Groups, pairs that share one at least) of k experts, from the most groups to the fewest, and only where groups as a
/// function of pairs are convex.
fn hull(k: usize, groups: usize, slots: usize) -> Vec<(f64, f64)> {
    let fewest = k.div_ceil(slots.max(1)).max(1);
    let even = |m: usize| {
        let (each, more) = (k / m, k % m);
        (more * (each + 1) * each + (m - more) * each * each.saturating_sub(1)) as f64 / 2.0
    };
    let mut hull: Vec<(f64, f64)> = Vec::new();
    for m in (fewest..=k.min(groups)).rev() {
        let point = (m as f64, even(m));
        while hull.len() > 1 {
            let (a, b) = (hull[hull.len() - 2], hull[hull.len() - 1]);
            // Steeper further on: the middle one lies above the line.
            if (a.0 - b.0) * (point.1 - a.1) < (a.0 - point.0) * (b.1 - a.1) {
                hull.pop();
            } else {
                break;
            }
        }
        hull.push(point);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four of 4 experts: alone on four groups, two pairs on two, all six on one.
    #[test]
    fn the_hull_of_four() {
        assert_eq!(hull(4, 8, 4), [(4.0, 0.0), (3.0, 1.0), (2.0, 2.0), (1.0, 6.0)]);
        assert_eq!(hull(4, 2, 16), [(2.0, 2.0), (1.0, 6.0)]);
        assert_eq!(hull(4, 8, 2), [(4.0, 0.0), (3.0, 1.0), (2.0, 2.0)]);
    }
}
