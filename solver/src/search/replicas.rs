//! How many replicas each expert gets, and which node each group of experts.

use crate::Problem;

/// One replica for each expert, each of `redundant` others for the expert whose replicas cost most, none more than there are groups it
/// may be on, and no fewer than are pinned.
pub(crate) fn most_loaded_first(p: &Problem, layer: usize, redundant: usize) -> Vec<usize> {
    let mut n = vec![1usize; p.experts];
    for (e, n) in n.iter_mut().enumerate() {
        *n = p.pins.iter().filter(|q| q.layer == layer && q.expert == e).count().max(1);
    }
    let most = if p.expert_groups > 0 { p.groups / p.nodes() } else { p.groups };
    let mut left = (p.experts + redundant).saturating_sub(n.iter().sum());
    let mut cost: Vec<f64> = (0..p.experts).map(|e| p.cost(layer, e, n[e])).collect();
    while left > 0 {
        // Of equals the first, so that the same loads give the same placement.
        let best = (0..p.experts).filter(|&e| n[e] < most).reduce(|a, b| if cost[b] > cost[a] { b } else { a });
        let Some(best) = best else { break };
        n[best] += 1;
        cost[best] = p.cost(layer, best, n[best]);
        left -= 1;
    }
    n
}

/// The node of each group of experts: the heaviest first, to the lightest node that takes another.
pub(crate) fn node_of_groups(p: &Problem, layer: usize) -> Vec<u32> {
    let (q, nodes) = (p.expert_groups, p.nodes());
    let each = p.experts / q.max(1);
    let load = |i: usize| (i * each..(i + 1) * each).map(|e| p.cost(layer, e, 1)).sum::<f64>();
    let mut order: Vec<(usize, f64)> = (0..q).map(|i| (i, load(i))).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (mut sums, mut free, mut of) = (vec![0.0; nodes], vec![q / nodes; nodes], vec![0; q]);
    for pin in p.pins.iter().filter(|pin| pin.layer == layer) {
        // Pins decide for their whole group.
        let i = pin.expert / each;
        if let Some(at) = order.iter().position(|o| o.0 == i) {
            let node = p.node_of[pin.group] as usize;
            of[i] = node as u32;
            sums[node] += order.remove(at).1;
            free[node] = free[node].saturating_sub(1);
        }
    }
    for (i, load) in order {
        let open = (0..nodes).filter(|n| free[*n] > 0);
        let node = open.min_by(|a, b| sums[*a].total_cmp(&sums[*b])).unwrap_or(0);
        of[i] = node as u32;
        sums[node] += load;
        free[node] = free[node].saturating_sub(1);
    }
    of
}
