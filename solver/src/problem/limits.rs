//! Limits of a placement: what cannot be placed is refused before, what was placed wrongly after.

use crate::{Homes, Problem};
use moesim_core::{Diag, Result};

/// Slots of each (layer, group) that memory allows. Layers take theirs in turn, from the groups with the most room left: if
/// experts are of one size, this finds room whenever there is any.
pub(super) fn quotas(p: &Problem, bytes: &[u64], room: &[u64]) -> Result<Vec<Vec<u32>>> {
    let fits_all = |g: usize| (0..p.layers).map(|l| u64::from(p.slots[l][g]) * bytes[l]).sum::<u64>() <= room[g];
    if (0..p.groups).all(fits_all) {
        return Ok(p.slots.clone());
    }
    let mut left = room.to_vec();
    let mut slots = vec![vec![0u32; p.groups]; p.layers];
    for l in 0..p.layers {
        for _ in 0..p.replicas() {
            let free = |g: &usize| slots[l][*g] < p.slots[l][*g] && left[*g] >= bytes[l];
            let Some(g) = (0..p.groups).filter(free).max_by_key(|&g| (left[g], std::cmp::Reverse(g))) else {
                let needed: u128 = (0..p.layers).map(|l| u128::from(bytes[l]) * p.replicas() as u128).sum();
                let there: u128 = room.iter().map(|r| u128::from(*r)).sum();
                let why = match needed.checked_sub(there) {
                    Some(missing) if missing > 0 => format!("{missing} bytes are missing"),
                    _ => format!("layer {l} finds no slot with room"),
                };
                return Err(Diag::does_not_fit(format!(
                    "{} replicas a layer do not fit into {there} bytes for experts on {} groups: {why}",
                    p.replicas(),
                    p.groups
                ))
                .place("memory")
                .cure("use more devices, fewer redundant experts, or narrower weights"));
            };
            slots[l][g] += 1;
            left[g] -= bytes[l];
        }
    }
    Ok(slots)
}

pub(super) fn check(p: &Problem) -> Result<()> {
    let wrong = |problem: String, place: &str, cure: &str| Err(Diag::input(problem).place(place).cure(cure));
    if p.layers == 0 || p.experts == 0 || p.groups == 0 {
        return wrong("there is nothing to place, or nowhere".into(), "problem", "name a model with MoE layers");
    }
    if p.tokens.iter().any(|t| !(t.is_finite() && *t >= 0.0)) {
        return wrong("a load is negative or not a number".into(), "loads", "give counts");
    }
    if p.redundant > p.experts.saturating_mul(p.groups - 1) {
        let most = p.experts * (p.groups - 1);
        let problem = format!("{} redundant experts, but {most} put every expert everywhere", p.redundant);
        return wrong(problem, "--redundant", "ask for fewer");
    }
    for (l, slots) in p.slots.iter().enumerate() {
        let all: usize = slots.iter().map(|s| (*s as usize).min(p.experts)).sum();
        if all < p.replicas() {
            let problem = format!("layer {l} has {} replicas and {all} slots", p.replicas());
            return wrong(problem, "slots", "allow more slots, or fewer redundant experts");
        }
    }
    if p.expert_groups > 0 {
        let (q, nodes) = (p.expert_groups, p.nodes());
        if !p.experts.is_multiple_of(q) || !q.is_multiple_of(nodes) {
            let problem = format!("{q} groups of {} experts cannot be dealt out to {nodes} nodes", p.experts);
            return wrong(problem, "expert groups", "choose a number that the nodes and the experts divide by");
        }
    }
    for pin in &p.pins {
        if pin.layer >= p.layers || pin.expert >= p.experts || pin.group >= p.groups {
            let problem = format!("layer {}, expert {}, device {} does not exist", pin.layer, pin.expert, pin.group);
            return wrong(problem, "pins", "name what exists, counted from 0");
        }
        let same = p.pins.iter().filter(|q| q.layer == pin.layer && q.group == pin.group).count();
        if same > p.slots[pin.layer][pin.group] as usize {
            let problem = format!("{same} experts of layer {} are pinned to device {}", pin.layer, pin.group);
            return wrong(problem, "pins", "pin no more than its slots");
        }
    }
    Ok(())
}

pub(super) fn check_homes(p: &Problem, homes: &Homes) -> Result<()> {
    let wrong = |l: usize, problem: String| {
        Err(Diag::input(problem).place(format!("layer {l}")).cure("mend the placement, or choose another"))
    };
    if homes.len() != p.layers {
        return wrong(homes.len(), format!("the placement has {} layers, not {}", homes.len(), p.layers));
    }
    for (l, layer) in homes.iter().enumerate() {
        if layer.len() != p.experts {
            return wrong(l, format!("{} experts are placed, not {}", layer.len(), p.experts));
        }
        let mut used = vec![0u32; p.groups];
        for (e, on) in layer.iter().enumerate() {
            if on.is_empty() {
                return wrong(l, format!("expert {e} has no home"));
            }
            for (i, &g) in on.iter().enumerate() {
                match used.get_mut(g as usize) {
                    None => return wrong(l, format!("expert {e} is on device {g}, which does not exist")),
                    Some(_) if on[..i].contains(&g) => return wrong(l, format!("expert {e} is twice on device {g}")),
                    Some(n) => *n += 1,
                }
            }
        }
        if let Some(g) = (0..p.groups).find(|&g| used[g] > p.slots[l][g]) {
            return wrong(l, format!("device {g} has {} experts and {} slots", used[g], p.slots[l][g]));
        }
        // Without groups, one chunk that may be anywhere.
        for (q, group) in layer.chunks(p.experts.div_ceil(p.expert_groups.max(1))).enumerate() {
            let mut nodes = group.iter().flatten().map(|g| p.node_of[*g as usize]);
            let first = nodes.next();
            if p.expert_groups > 0 && nodes.any(|n| Some(n) != first) {
                return wrong(l, format!("group {q} of experts is on several nodes"));
            }
        }
    }
    if let Some(pin) = p.pins.iter().find(|q| !homes[q.layer][q.expert].contains(&(q.group as u32))) {
        return wrong(pin.layer, format!("expert {} is not on device {}, where it is pinned", pin.expert, pin.group));
    }
    if let Some((from, most)) = &p.from {
        let moved = crate::moves(from, homes);
        if moved > *most {
            return wrong(0, format!("{moved} replicas moved, {most} allowed"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two devices with room for 6 and 2 of 2 x 4 experts: six and two slots over both layers.
    #[test]
    fn memory_of_different_devices_is_shared_by_the_layers() {
        let mut p = Problem::even(2, 4, 2);
        p.slots = vec![vec![4, 4]; 2];
        let p = p.within_memory(&[10, 10], &[60, 25]).unwrap();
        let sum = |g: usize| p.slots.iter().map(|l| l[g]).sum::<u32>();
        assert_eq!((sum(0), sum(1)), (6, 2));
        assert!(p.slots.iter().all(|l| l.iter().sum::<u32>() == 4));
        let e = Problem::even(2, 4, 2).within_memory(&[10, 10], &[40, 39]).unwrap_err();
        assert!(e.to_string().contains("1 bytes are missing"), "{e}");
    }
}
