//! DeepSeek's expert-parallel load balancer (github.com/deepseek-ai/EPLB, `eplb.py`).
//!
//! Items are packed by descending weight, each into the lightest pack that has room for another, all packs with as many items.
//! A redundant slot goes to the expert with the largest weight over replicas. Hierarchical, if groups of experts divide by
//! nodes: groups to nodes, replicas inside each node, then replicas to its devices; else globally, as one group on one node.
//!
//! Where it packs two replicas of an expert on one device, they are one here, which serves the expert with one replica less
//! and leaves a slot empty.

use crate::{Needs, Placement, Problem, Solution};
use moesim_core::Result;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Eplb {
    /// Groups of experts to nodes first, wherever they divide.
    pub hierarchical: bool,
}

impl Placement for Eplb {
    fn place(&self, p: &Problem) -> Result<Solution> {
        if !p.equal_slots() {
            return Err(p.refuse("eplb", "needs as many slots on every device"));
        }
        let (nodes, asked) = (p.nodes(), if p.expert_groups > 0 { p.expert_groups } else { p.nodes() });
        let fits = asked.is_multiple_of(nodes) && p.experts.is_multiple_of(asked) && p.replicas().is_multiple_of(nodes);
        let (groups, nodes) = if self.hierarchical && fits { (asked, nodes) } else { (1, 1) };
        Ok((0..p.layers).map(|l| layer(p, l, groups, nodes)).collect::<Vec<_>>().into())
    }
    fn needs(&self) -> Needs {
        Needs::Loads
    }
}

fn layer(p: &Problem, l: usize, groups: usize, nodes: usize) -> Vec<Vec<u32>> {
    let weights = &p.tokens[l * p.experts..(l + 1) * p.experts];
    let each = p.experts / groups;
    let sums: Vec<f64> = weights.chunks(each).map(|w| w.iter().sum()).collect();
    let node_of = pack(&sums, nodes);
    let mut homes = vec![Vec::new(); p.experts];
    for node in 0..nodes {
        let mine: Vec<usize> = (0..p.experts).filter(|e| node_of[e / each] == node).collect();
        let w: Vec<f64> = mine.iter().map(|&e| weights[e]).collect();
        let slots = replicate(&w, p.replicas() / nodes);
        let mut count = vec![0.0; w.len()];
        slots.iter().for_each(|&i| count[i] += 1.0);
        let shares: Vec<f64> = slots.iter().map(|&i| w[i] / count[i]).collect();
        let devices: Vec<usize> = match nodes {
            1 => (0..p.groups).collect(),
            _ => (0..p.groups).filter(|&g| p.node_of[g] as usize == node).collect(),
        };
        for (slot, pack) in pack(&shares, devices.len()).into_iter().enumerate() {
            let (on, g) = (&mut homes[mine[slots[slot]]], devices[pack] as u32);
            if !on.contains(&g) {
                on.push(g);
            }
        }
    }
    homes.iter_mut().for_each(|on| on.sort_unstable());
    homes
}

/// The pack of each item.
fn pack(weights: &[f64], packs: usize) -> Vec<usize> {
    let each = weights.len() / packs;
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let (mut sum, mut items, mut of) = (vec![0.0; packs], vec![0; packs], vec![0; weights.len()]);
    for i in order {
        let open = (0..packs).filter(|&k| items[k] < each);
        let k = open.reduce(|a, b| if sum[b] < sum[a] { b } else { a }).unwrap_or(0);
        of[i] = k;
        sum[k] += weights[i];
        items[k] += 1;
    }
    of
}

/// The expert in each of `slots` slots.
fn replicate(weights: &[f64], slots: usize) -> Vec<usize> {
    let mut of: Vec<usize> = (0..weights.len()).collect();
    let mut count = vec![1.0; weights.len()];
    while of.len() < slots {
        let share = |i: usize| weights[i] / count[i];
        let best = (0..weights.len()).reduce(|a, b| if share(b) > share(a) { b } else { a }).unwrap_or(0);
        of.push(best);
        count[best] += 1.0;
    }
    of
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One layer of twelve experts on two nodes of four devices, four more replicas, four groups of experts: the loads of the example in EPLB's
    /// README, first layer; the placement worked out by hand from the rule.
    #[test]
    fn the_rule_by_hand() {
        let tokens = vec![90.0, 132.0, 40.0, 61.0, 104.0, 165.0, 39.0, 4.0, 73.0, 56.0, 183.0, 86.0];
        let mut p = Problem { tokens, expert_groups: 4, ..Problem::even(1, 12, 8) }.with_redundant(4);
        p.node_of = vec![0, 0, 0, 0, 1, 1, 1, 1];
        let homes = Eplb { hierarchical: true }.place(&p).unwrap().homes;
        // Groups weigh 262, 330, 116, 325: 330 and 116 on one node, 325 and 262 on the other.
        let node = |e: usize| homes[0][e][0] / 4;
        assert!((3..9).all(|e| node(e) == 0) && (0..3).chain(9..12).all(|e| node(e) == 1));
        // First node: 165 (82.5 each) and 104 (52 each) get a second replica; second: 183 and 132.
        let counts: Vec<usize> = homes[0].iter().map(Vec::len).collect();
        assert_eq!(counts, [1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1]);
        // Packed: 82.5, 82.5, 73, 61, then 52 to 61, 52 to 73, 39 to 82.5, 4 to the other 82.5.
        let mut times = p.times(0, &homes[0]);
        times[..4].sort_by(f64::total_cmp);
        assert_eq!(times[..4], [86.5, 113.0, 121.5, 125.0]);
    }
}
