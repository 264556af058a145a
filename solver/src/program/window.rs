//! A few layers at a time as a program in the strong formulation, the others as they are.
//!
//! Tokens that follow go from the first of their experts, a, to each of the experts of the next layer, b. z[a, b, g] = 1 if both
//! are on g. With as many experts on every group, s of them, the z of an expert add up to s where it is, and to nothing
//! elsewhere: transport equalities, which make the relaxation strong. What is counted is selections that stay; of several on one
//! group, a flat dispatch sends one, so that there the program's cost is an upper one; results collected inside a layer are left
//! out. The objective decides whether a window is taken.

use crate::linear::{LinearProgram, Rule, Var};
use crate::method::sweep::Sweep;
use crate::traffic::{HomeTable, Mode, Traffic};
use crate::{Effort, Homes, Needs, Objective, Placement, Problem, Solution};
use moesim_core::Result;
use std::ops::Range;

/// Windows from what [`Sweep`] finds. Not part of [`super::Ilp`]: on 24 layers of 32 experts on 8 devices no window was better than the
/// sweep within a minute.
#[derive(Clone, Copy, Debug)]
pub struct Windows;

impl Placement for Windows {
    fn place(&self, p: &Problem) -> Result<Solution> {
        if !applies(p) {
            return Err(p.refuse("windows", "is for the traffic of tokens that follow, with as many slots everywhere"));
        }
        let now = std::time::Instant::now();
        // A tenth of the clock for the start.
        let until = p.effort.until.map(|u| now + u.saturating_duration_since(now) / 10);
        let start = Sweep.place(&Problem { effort: Effort { until, ..p.effort }, ..p.clone() })?;
        improve(p, Solution { cut: false, ..start })
    }

    fn needs(&self) -> Needs {
        Needs::Rows
    }
}

/// Layers of a window.
const LAYERS: usize = 2;

/// Whether there is a program for this: tokens follow, one replica each, as many slots everywhere, traffic alone counts.
pub fn applies(p: &Problem) -> bool {
    p.traffic.as_ref().is_some_and(|t| t.mode == Mode::TokenFollows)
        && p.objective == Objective::Traffic
        && p.redundant == 0
        && p.equal_slots()
        && p.from.is_none()
        && p.pins.is_empty()
        && p.expert_groups == 0
        && p.layers > 1
}

/// Slides over the layers; a window's placement is taken if the whole objective is better.
///
/// # Errors
/// A solver that fails.
pub fn improve(p: &Problem, start: Solution) -> Result<Solution> {
    let Some(t) = &p.traffic else { return Ok(start) };
    let (mut homes, mut cut) = (start.homes, start.cut);
    let mut value = p.value(&homes);
    for first in 0..=p.layers.saturating_sub(LAYERS) {
        if p.effort.over() {
            cut = true;
            break;
        }
        // Shares of what is left of the clock; nodes are few, because each is a large linear program.
        let left = p.effort.until.map(|u| u.saturating_duration_since(std::time::Instant::now()));
        let windows = (p.layers - LAYERS + 1 - first) as u32;
        let until = left.map(|d| std::time::Instant::now() + d / windows);
        let effort = Effort { steps: 64, until, gap: 1e-4 };
        let (found, was_cut) = solve(p, t, &homes, first..first + LAYERS, &effort)?;
        cut |= was_cut;
        let Some(found) = found else { continue };
        let better = p.value(&found);
        if better < value {
            (homes, value) = (found, better);
        }
    }
    Ok(Solution { homes, bound: start.bound, cut, ran: None })
}

/// Selections that go from each expert of `layer` to each of the next one.
fn flows(p: &Problem, t: &Traffic, layer: usize) -> Vec<f64> {
    let (all, width) = (t.rows.next(layer), t.rows.experts());
    (0..p.experts).flat_map(|a| all[a * width..a * width + p.experts].to_vec()).collect()
}

/// The best placement of the layers of a window beside the others.
pub(crate) fn solve(
    p: &Problem,
    t: &Traffic,
    homes: &Homes,
    window: Range<usize>,
    effort: &Effort,
) -> Result<(Option<Homes>, bool)> {
    let mut m = LinearProgram::default();
    let (experts, groups, slots) = (p.experts, p.groups, p.experts / p.groups);
    let x: Vec<Vec<Vec<Var>>> = window
        .clone()
        .map(|l| {
            let each = |e: usize, g: usize, m: &mut LinearProgram| {
                let v = m.choice(0.0);
                m.start(v, f64::from(u8::from(homes[l][e][0] as usize == g)));
                v
            };
            (0..experts).map(|e| (0..groups).map(|g| each(e, g, &mut m)).collect()).collect()
        })
        .collect();
    for layer in &x {
        for of in layer {
            m.row(of.iter().map(|v| (*v, 1.0)).collect(), Rule::Exactly, 1.0);
        }
        for g in 0..groups {
            m.row(layer.iter().map(|of| (of[g], 1.0)).collect(), Rule::Exactly, slots as f64);
        }
    }
    let leg = |from: usize, to: usize| match (from == to, p.node_of[from] == p.node_of[to]) {
        (true, _) => 0.0,
        (_, true) => t.inside[0],
        _ => t.across[0],
    };
    let table = HomeTable::new(homes);
    // To and from layers that stay: a cost of each home.
    for (i, l) in window.clone().enumerate() {
        let mut cost = vec![0.0; experts * groups];
        let mut add = |e: usize, other: usize, n: f64| {
            (0..groups).for_each(|g| cost[e * groups + g] += n * leg(g, other));
        };
        if l > 0 && i == 0 {
            let flow = flows(p, t, l - 1);
            for a in 0..experts {
                let at = table.home(l - 1, a as u16, 0) as usize;
                (0..experts).for_each(|b| add(b, at, flow[a * experts + b]));
            }
        }
        if l + 1 < p.layers && l + 1 == window.end {
            let flow = flows(p, t, l);
            for b in 0..experts {
                let at = table.home(l + 1, b as u16, 0) as usize;
                (0..experts).for_each(|a| add(a, at, flow[a * experts + b]));
            }
        }
        for e in 0..experts {
            for g in 0..groups {
                m.charge(x[i][e][g], cost[e * groups + g]);
            }
        }
    }
    // Between layers of the window: everything leaves, but for what stays on a group, and what stays in a node.
    for (i, l) in window.clone().enumerate().take(window.len() - 1) {
        let pair = Pair { flow: &flows(p, t, l), x: [&x[i], &x[i + 1]], homes: [&homes[l], &homes[l + 1]], slots };
        let (inside, across) = (t.inside[0], t.across[0]);
        let alone: Vec<Vec<usize>> = (0..groups).map(|g| vec![g]).collect();
        pair.spare(&mut m, &alone, inside);
        if p.nodes() > 1 {
            let of = |n: usize| (0..groups).filter(|&g| p.node_of[g] as usize == n).collect();
            let nodes: Vec<Vec<usize>> = (0..p.nodes()).map(of).collect();
            pair.spare(&mut m, &nodes, across - inside);
        }
    }
    let Some(found) = m.solve(effort)? else { return Ok((None, effort.over())) };
    let mut out = homes.clone();
    for (i, l) in window.enumerate() {
        for e in 0..experts {
            let g = (0..groups).find(|&g| found.is(x[i][e][g])).unwrap_or(homes[l][e][0] as usize);
            out[l][e] = vec![g as u32];
        }
    }
    Ok((Some(out), found.cut))
}

/// Two layers of a window.
struct Pair<'a> {
    flow: &'a [f64],
    x: [&'a Vec<Vec<Var>>; 2],
    homes: [&'a Vec<Vec<u32>>; 2],
    slots: usize,
}

impl Pair<'_> {
    /// Flows between experts that are both in one of `places` (groups, or nodes with theirs) are spared `cost`.
    fn spare(&self, m: &mut LinearProgram, places: &[Vec<usize>], cost: f64) {
        let experts = self.homes[0].len();
        let slots = (self.slots * places[0].len()) as f64;
        let on = |side: usize, e: usize, place: &[usize]| place.contains(&(self.homes[side][e][0] as usize));
        for place in places {
            let mut z = vec![0; experts * experts];
            for a in 0..experts {
                for b in 0..experts {
                    // What is spared is counted; the constant, that nothing is, is left out.
                    let v = m.amount(-cost * self.flow[a * experts + b], 1.0);
                    m.start(v, f64::from(u8::from(on(0, a, place) && on(1, b, place))));
                    z[a * experts + b] = v;
                }
            }
            let there = |side: usize, e: usize| place.iter().map(move |g| (self.x[side][e][*g], -slots));
            for e in 0..experts {
                let out = (0..experts).map(|b| (z[e * experts + b], 1.0)).chain(there(0, e));
                m.row(out.collect(), Rule::Exactly, 0.0);
                let back = (0..experts).map(|a| (z[a * experts + e], 1.0)).chain(there(1, e));
                m.row(back.collect(), Rule::Exactly, 0.0);
            }
        }
    }
}
