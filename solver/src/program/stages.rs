//! Two stages, after MoETuner (arXiv 2502.06643, sections of the two programs).
//!
//! 1. Layer by layer, experts into as many clusters as groups: the least sum of the clusters' distances from the mean load, each
//!    cluster with an expert at least. A program up to 2,000 variables, else longest first with swaps.
//! 2. Clusters to groups, so that the sum over layers of the slowest pair of groups is least, where a pair takes what goes from the
//!    one's cluster to the other's in the next layer over the bandwidth between them. The paper solves one program for all layers;
//!    here each layer's is solved, as a bottleneck assignment after the layer before, and then clusters change places as long as
//!    the sum gets less.
//!
//! Within a layer groups may hold unequal numbers of experts if the slots allow it; over all layers each keeps its share. Where the
//! layers before have left no room for that, a layer's largest cluster goes to the group with the most room, so that shares are as
//! even as that allows.

use crate::linear::{LinearProgram, Rule};
use crate::method::sweep;
use crate::search::{Layer, most_loaded_first};
use crate::traffic::Traffic;
use crate::{Effort, Homes, Needs, Placement, Problem, Solution};
use moesim_core::Result;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct TwoStage;

/// Programs of more variables are not tried.
const MOST: usize = 2_000;
/// Nor second stages of more groups.
const GROUPS: usize = 64;

impl Placement for TwoStage {
    fn place(&self, p: &Problem) -> Result<Solution> {
        if p.redundant > 0 || !p.pins.is_empty() || p.expert_groups > 0 || p.from.is_some() {
            return Err(p.refuse("two-stage", "has no rule for redundant, pinned, grouped or given experts"));
        }
        if p.groups > GROUPS {
            return Err(p.refuse("two-stage", "has too large a second stage for more than 64 devices"));
        }
        let Some(t) = &p.traffic else { return Err(p.refuse("two-stage", "needs rows: give it a trace")) };
        let mut clusters = Vec::new();
        let mut cut = false;
        for l in 0..p.layers {
            let (of, was_cut) = cluster(p, l)?;
            cut |= was_cut;
            clusters.push(of);
        }
        let group_of = assign(p, t, &clusters)?;
        let layer = |(of, groups): (&Vec<usize>, &Vec<usize>)| of.iter().map(|&c| vec![groups[c] as u32]).collect();
        let homes: Homes = clusters.iter().zip(&group_of).map(layer).collect();
        let variables = p.experts * p.groups;
        let why = match (variables > MOST, p.experts < p.groups) {
            (true, _) => Some(format!("{variables} variables a layer")),
            (_, true) => Some("fewer experts than devices".to_string()),
            _ => None,
        };
        let ran = why.map(|w| format!("first stage longest-first: no program, {w}"));
        Ok(Solution { cut, ran, ..homes.into() })
    }
    fn needs(&self) -> Needs {
        Needs::Rows
    }
}

/// The cluster of each expert.
fn cluster(p: &Problem, l: usize) -> Result<(Vec<usize>, bool)> {
    let mut state = Layer::empty(p, l);
    if !state.deal(&most_loaded_first(p, l, p.redundant)) {
        return Err(p.refuse("two-stage", "found no slot for an expert"));
    }
    state.improve(p.effort.steps);
    let start: Vec<usize> = state.homes.iter().map(|on| on[0] as usize).collect();
    if p.experts * p.groups > MOST || p.experts < p.groups {
        return Ok((start, false));
    }
    let load = |e: usize| p.cost(l, e, 1);
    let sum: f64 = (0..p.experts).map(load).sum();
    if sum == 0.0 {
        return Ok((start, false));
    }
    let mean = sum / p.groups as f64;
    let mut m = LinearProgram::default();
    let x: Vec<Vec<usize>> = (0..p.experts)
        .map(|e| {
            let each = |c: usize| {
                let v = m.choice(0.0);
                m.start(v, f64::from(u8::from(start[e] == c)));
                v
            };
            (0..p.groups).map(each).collect()
        })
        .collect();
    for of in &x {
        m.row(of.iter().map(|v| (*v, 1.0)).collect(), Rule::Exactly, 1.0);
    }
    for c in 0..p.groups {
        let held: f64 = (0..p.experts).filter(|&e| start[e] == c).map(load).sum();
        let off = m.amount(1.0, f64::INFINITY);
        m.start(off, (held / mean - 1.0).abs());
        // Loads in units of the mean.
        for sign in [1.0, -1.0] {
            let mut row: Vec<_> = x.iter().enumerate().map(|(e, of)| (of[c], sign * load(e) / mean)).collect();
            row.push((off, -1.0));
            m.row(row, Rule::AtMost, sign);
        }
        let here = || x.iter().map(|of| of[c]);
        m.row(here().map(|v| (v, -1.0)).collect(), Rule::AtMost, -1.0);
        m.row(here().map(|v| (v, 1.0)).collect(), Rule::AtMost, p.slots[l][c].into());
    }
    let effort = Effort { steps: 200, gap: p.effort.gap.max(0.025), until: share(p, l) };
    let Some(found) = m.solve(&effort)? else { return Ok((start, effort.over())) };
    let of = |e: usize| (0..p.groups).find(|&c| found.is(x[e][c])).unwrap_or(start[e]);
    Ok(((0..p.experts).map(of).collect(), found.cut))
}

/// A layer's share of what is left of the clock.
fn share(p: &Problem, l: usize) -> Option<std::time::Instant> {
    let now = std::time::Instant::now();
    p.effort.until.map(|u| now + u.saturating_duration_since(now) / (p.layers - l) as u32)
}

/// What goes from cluster to cluster of the next layer: from every expert of a token to every expert of it there.
fn flows(p: &Problem, t: &Traffic, l: usize, clusters: &[Vec<usize>]) -> Vec<f64> {
    let mut sum = vec![0.0; p.groups * p.groups];
    let placed = |e: &&u16| usize::from(**e) < p.experts;
    for token in 0..t.rows.tokens() {
        for &a in t.rows.ids(token, l).iter().filter(placed) {
            for &b in t.rows.ids(token, l + 1).iter().filter(placed) {
                sum[clusters[l][usize::from(a)] * p.groups + clusters[l + 1][usize::from(b)]] += 1.0;
            }
        }
    }
    sum
}

/// The group of each (layer, cluster).
fn assign(p: &Problem, t: &Traffic, clusters: &[Vec<usize>]) -> Result<Vec<Vec<usize>>> {
    let g = p.groups;
    let between = |a: usize, b: usize| match (a == b, p.node_of[a] == p.node_of[b]) {
        (true, _) => 0.0,
        (_, true) => t.inside[0],
        _ => t.across[0],
    };
    let flow: Vec<Vec<f64>> = (0..p.layers - 1).map(|l| flows(p, t, l, clusters)).collect();
    let sizes = |l: usize| (0..g).map(move |c| clusters[l].iter().filter(|x| **x == c).count()).collect::<Vec<_>>();
    // What each group may still take: its share of all layers, or what its slots allow if that is all there is.
    let share = (p.layers * p.experts).div_ceil(g);
    let mut left: Vec<usize> = (0..g).map(|i| share.min(p.slots.iter().map(|s| s[i] as usize).sum())).collect();
    let mut of: Vec<Vec<usize>> = Vec::new();
    for l in 0..p.layers {
        let size = sizes(l);
        let cost = |c: usize, to: usize| {
            let Some(before) = of.last() else { return 0.0 };
            (0..g).map(|b| flow[l - 1][b * g + c] * between(before[b], to)).fold(0.0, f64::max)
        };
        let costs: Vec<f64> = (0..g * g).map(|i| cost(i / g, i % g)).collect();
        let chosen = match bottleneck(p, l, &costs, &size, &left) {
            Some(chosen) => chosen,
            None => by_room(p, l, &size, &left)?,
        };
        (0..g).for_each(|c| left[chosen[c]] = left[chosen[c]].saturating_sub(size[c]));
        of.push(chosen);
    }
    let slowest = |of: &[Vec<usize>], l: usize| {
        let pair = |i: usize| flow[l][i] * between(of[l][i / g], of[l + 1][i % g]);
        (0..g * g).map(pair).fold(0.0, f64::max)
    };
    // Clusters of as many experts change places, which keeps every limit.
    loop {
        let mut better = false;
        for l in 0..p.layers {
            let size = sizes(l);
            let near = |of: &[Vec<usize>]| {
                let before = if l > 0 { slowest(of, l - 1) } else { 0.0 };
                before + if l + 1 < p.layers { slowest(of, l) } else { 0.0 }
            };
            for a in 0..g {
                for b in (a + 1..g).filter(|&b| size[a] == size[b]) {
                    let was = near(&of);
                    of[l].swap(a, b);
                    if near(&of) < was * (1.0 - 1e-12) {
                        better = true;
                    } else {
                        of[l].swap(a, b);
                    }
                }
            }
        }
        if !better || p.effort.over() {
            return Ok(of);
        }
    }
}

/// Clusters to groups, one each, with the least largest cost, and the least sum among those: the smallest threshold that an
/// assignment can keep, found by halving, each time by the Hungarian method.
fn bottleneck(p: &Problem, l: usize, costs: &[f64], size: &[usize], left: &[usize]) -> Option<Vec<usize>> {
    let g = p.groups;
    let fits = |c: usize, to: usize| size[c] <= left[to] && size[c] <= p.slots[l][to] as usize;
    let mut steps = costs.to_vec();
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    let never = 1.0 + costs.iter().sum::<f64>();
    let under = |most: f64| {
        let of =
            sweep::assign(g, |c, to| if fits(c, to) && costs[c * g + to] <= most { costs[c * g + to] } else { never });
        of.iter().enumerate().all(|(c, &to)| fits(c, to) && costs[c * g + to] <= most).then_some(of)
    };
    let mut best = steps.last().and_then(|most| under(*most))?;
    let (mut low, mut high) = (0, steps.len() - 1);
    while low < high {
        let middle = (low + high) / 2;
        match under(steps[middle]) {
            Some(of) => (best, high) = (of, middle),
            None => low = middle + 1,
        }
    }
    Some(best)
}

/// The largest cluster to the group with the most room.
fn by_room(p: &Problem, l: usize, size: &[usize], left: &[usize]) -> Result<Vec<usize>> {
    let mut clusters: Vec<usize> = (0..p.groups).collect();
    let mut groups = clusters.clone();
    clusters.sort_by_key(|c| std::cmp::Reverse(size[*c]));
    groups.sort_by_key(|g| std::cmp::Reverse(left[*g]));
    let mut of = vec![0; p.groups];
    for (c, g) in clusters.into_iter().zip(groups) {
        if size[c] > p.slots[l][g] as usize {
            return Err(p.refuse("two-stage", "found no groups for its clusters within the slots"));
        }
        of[c] = g;
    }
    Ok(of)
}
