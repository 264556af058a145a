//! The whole problem as one program, for small ones: replicas, load, and copies as they are counted.
//!
//! x[l, e, g, r] = 1 if expert e of layer l has r replicas, one of them on group g. The time of a layer is at least each group's.
//! Copies: u[s, g] is at least x of every expert of the set s that tokens selected; tokens with the same set are one. Where tokens
//! follow, q[a, s, g] is at least u[s, g] less x of the expert a where the token is.

mod batches;

use crate::linear::{Found, LinearProgram, Rule, Var};
use crate::traffic::{Mode, Traffic, Way};
use crate::{Effort, Homes, Objective, Problem, Solution};
use moesim_core::Result;
use std::collections::BTreeMap;

/// Programs of more variables are not tried.
pub const MOST: usize = 20_000;

pub(crate) use batches::applies as has_batches;

/// Variables that the program would have.
pub fn size(p: &Problem) -> usize {
    let replicas = p.groups.min(p.redundant + 1);
    let own = p.layers * p.experts * (p.groups + 1) * replicas;
    if let (Objective::Time, Some(b)) = (p.objective, &p.batches) {
        return own.saturating_add(b.traffic.rows.tokens().saturating_mul(p.layers).saturating_mul(p.groups));
    }
    let rows = p.traffic.as_ref().filter(|_| p.objective != Objective::Load).map_or(0, |t| t.rows.tokens());
    own.saturating_add(rows.saturating_mul(p.layers).saturating_mul(p.groups))
}

struct Program<'a> {
    p: &'a Problem,
    model: LinearProgram,
    /// [layer][expert][group][replicas - 1].
    x: Vec<Vec<Vec<Vec<Var>>>>,
    time: Vec<Var>,
    start: &'a Homes,
}

/// The best placement, from `start` on.
///
/// # Errors
/// Traffic with redundant experts, which has no program; limits that no placement meets.
pub fn place(p: &Problem, start: &Homes) -> Result<Solution> {
    if p.redundant > 0 && p.traffic.is_some() && p.objective != Objective::Load {
        return Err(p.refuse("ilp", "has no exact program for traffic with redundant experts"));
    }
    match p.objective {
        Objective::Load => solve(p, start, 1.0, 0.0, None),
        Objective::Time => batches::place(p, start),
        Objective::Traffic => solve(p, start, 0.0, 1.0, None),
        Objective::Weighted { traffic } => solve(p, start, 1.0, traffic, None),
        Objective::Lexicographic { slack } => {
            let first = solve(p, start, 1.0, 0.0, None)?;
            let most = p.load(&first.homes) * (1.0 + slack) * (1.0 + 1e-9);
            let second = solve(p, &first.homes, 0.0, 1.0, Some(most))?;
            Ok(Solution { cut: first.cut || second.cut, ..second })
        }
    }
}

fn solve(p: &Problem, start: &Homes, load: f64, traffic: f64, most_load: Option<f64>) -> Result<Solution> {
    let mut program = Program { p, model: LinearProgram::default(), x: Vec::new(), time: Vec::new(), start };
    program.replicas();
    program.limits();
    program.load(load, most_load);
    if let Some(t) = p.traffic.as_ref().filter(|_| traffic > 0.0) {
        program.ways(t, traffic);
    }
    let effort = Effort { gap: p.effort.gap, ..p.effort };
    let Some(found) = program.model.solve(&effort)? else {
        return Ok(Solution { cut: p.effort.over(), ..start.clone().into() });
    };
    Ok(Solution { homes: program.homes(&found), bound: Some(found.bound.max(0.0)), cut: found.cut, ran: None })
}

impl Program<'_> {
    /// Who is where, and how often.
    fn replicas(&mut self) {
        let p = self.p;
        for l in 0..p.layers {
            let mut layer = Vec::new();
            for e in 0..p.experts {
                let most = p.groups.min(p.redundant + 1);
                let now = &self.start[l][e];
                let x: Vec<Vec<Var>> = (0..p.groups)
                    .map(|g| {
                        let each = |r: usize| {
                            let v = self.model.choice(0.0);
                            let here = now.len() == r + 1 && now.contains(&(g as u32));
                            self.model.start(v, f64::from(u8::from(here)));
                            v
                        };
                        (0..most).map(each).collect()
                    })
                    .collect();
                let mut one = Vec::new();
                for r in 0..most {
                    let y = self.model.choice(0.0);
                    self.model.start(y, f64::from(u8::from(now.len() == r + 1)));
                    one.push((y, 1.0));
                    let mut row: Vec<(Var, f64)> = x.iter().map(|g| (g[r], 1.0)).collect();
                    row.push((y, -(r as f64 + 1.0)));
                    self.model.row(row, Rule::Exactly, 0.0);
                }
                self.model.row(one, Rule::Exactly, 1.0);
                layer.push(x);
            }
            self.x.push(layer);
        }
        self.symmetry();
    }

    /// Where groups are alike and experts have one replica each, the i-th expert of the first layer need not look beyond the i-th
    /// group. The start is in this order only by chance, so that it is renamed first.
    fn symmetry(&mut self) {
        let p = self.p;
        let alike = p.nodes() == 1
            && p.speed.iter().all(|s| *s == p.speed[0])
            && p.slots.iter().all(|l| l.iter().all(|s| *s == l[0]))
            && p.pins.is_empty()
            && p.from.is_none()
            && p.redundant == 0
            && p.traffic.as_ref().is_none_or(|t| t.mode == Mode::ReturnHome || p.objective == Objective::Load);
        if !alike {
            return;
        }
        for l in 0..p.layers {
            let mut names: Vec<Option<u32>> = vec![None; p.groups];
            let mut next = 0;
            for e in 0..p.experts {
                let name = *names[self.start[l][e][0] as usize].get_or_insert_with(|| {
                    next += 1;
                    next - 1
                });
                for g in 0..p.groups {
                    let v = self.x[l][e][g][0];
                    self.model.start(v, f64::from(u8::from(g as u32 == name)));
                    if g > e {
                        self.model.forbid(v);
                    }
                }
            }
        }
    }

    fn any(&self, l: usize, e: usize, g: usize) -> impl Iterator<Item = (Var, f64)> + '_ {
        self.x[l][e][g].iter().map(|v| (*v, 1.0))
    }

    fn limits(&mut self) {
        let p = self.p;
        for l in 0..p.layers {
            let mut all = Vec::new();
            for g in 0..p.groups {
                let row: Vec<_> = (0..p.experts).flat_map(|e| self.any(l, e, g)).collect();
                all.extend(row.iter().copied());
                self.model.row(row, Rule::AtMost, p.slots[l][g].into());
                if p.redundant > 0 {
                    for e in 0..p.experts {
                        let row = self.any(l, e, g).collect();
                        self.model.row(row, Rule::AtMost, 1.0);
                    }
                }
            }
            self.model.row(all, Rule::AtMost, p.replicas() as f64);
            let each = p.experts / p.expert_groups.max(1);
            for q in 0..p.expert_groups {
                let nodes: Vec<Var> = (0..p.nodes())
                    .map(|n| {
                        let v = self.model.choice(0.0);
                        let here = p.node_of[self.start[l][q * each][0] as usize] as usize == n;
                        self.model.start(v, f64::from(u8::from(here)));
                        v
                    })
                    .collect();
                self.model.row(nodes.iter().map(|v| (*v, 1.0)).collect(), Rule::Exactly, 1.0);
                for e in q * each..(q + 1) * each {
                    for g in 0..p.groups {
                        let mut row: Vec<_> = self.any(l, e, g).collect();
                        row.push((nodes[p.node_of[g] as usize], -1.0));
                        self.model.row(row, Rule::AtMost, 0.0);
                    }
                }
            }
        }
        for pin in &p.pins {
            let row = self.any(pin.layer, pin.expert, pin.group).collect();
            self.model.row(row, Rule::Exactly, 1.0);
        }
        if let Some((from, most)) = &p.from {
            let mut row = Vec::new();
            for (l, layer) in from.iter().enumerate() {
                for (e, on) in layer.iter().enumerate() {
                    let new = (0..p.groups).filter(|g| !on.contains(&(*g as u32)));
                    row.extend(new.flat_map(|g| self.any(l, e, g).collect::<Vec<_>>()));
                }
            }
            self.model.row(row, Rule::AtMost, *most as f64);
        }
    }

    fn load(&mut self, weight: f64, most: Option<f64>) {
        let p = self.p;
        if weight == 0.0 && most.is_none() {
            return;
        }
        // Times in units of the start's, so that numbers are near one.
        let unit = p.load(self.start).max(f64::MIN_POSITIVE) / p.layers as f64;
        for l in 0..p.layers {
            let time = self.model.amount(weight * unit, f64::INFINITY);
            self.model.start(time, p.layer_load(l, &self.start[l]) / unit);
            self.time.push(time);
            for g in 0..p.groups {
                let mut row = vec![(time, -1.0)];
                for e in 0..p.experts {
                    for (r, v) in self.x[l][e][g].iter().enumerate() {
                        row.push((*v, p.cost(l, e, r + 1) / p.speed[g] / unit));
                    }
                }
                self.model.row(row, Rule::AtMost, 0.0);
            }
        }
        if let Some(most) = most {
            self.model.row(self.time.iter().map(|t| (*t, 1.0)).collect(), Rule::AtMost, most / unit);
        }
    }

    fn ways(&mut self, t: &Traffic, weight: f64) {
        let both = |c: [f64; 2]| c[0] + c[1];
        let (groups, nodes) = (self.p.groups as f64, self.p.nodes() as f64);
        let per_node = groups / nodes;
        for l in 0..self.p.layers {
            let sets = sets(self.p, t, l);
            for ((holder, turn, set), count) in sets {
                let n = count * t.scale * weight;
                if t.mode == Mode::TokenFollows {
                    self.follow(t, l, holder, turn, &set, n);
                    continue;
                }
                let flat = (per_node - 1.0) * both(t.inside) + (groups - per_node) * both(t.across);
                match t.way {
                    // Wherever they are, each is sent.
                    Way::PerSelection => {
                        let v = self.model.amount(n * set.len() as f64 * flat / groups, 1.0);
                        self.model.start(v, 1.0);
                        self.model.row(vec![(v, -1.0)], Rule::AtMost, -1.0);
                    }
                    Way::Flat => {
                        self.cover(l, &set, n * flat / groups);
                    }
                    Way::Hierarchical => {
                        let u = self.cover(l, &set, n * (1.0 - 1.0 / per_node) * both(t.inside));
                        let across = n * (1.0 - 1.0 / nodes) * both(t.across);
                        for node in 0..self.p.nodes() {
                            let v = self.model.amount(across, 1.0);
                            let mine = |g: &usize| self.p.node_of[*g] as usize == node;
                            let on = |g: usize| set.iter().any(|e| self.start[l][usize::from(*e)][0] as usize == g);
                            self.model.start(v, f64::from(u8::from((0..self.p.groups).filter(mine).any(on))));
                            for g in (0..self.p.groups).filter(mine) {
                                self.model.row(vec![(u[g], 1.0), (v, -1.0)], Rule::AtMost, 0.0);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Variables that are 1 where any expert of the set is.
    fn cover(&mut self, l: usize, set: &[u16], cost: f64) -> Vec<Var> {
        (0..self.p.groups)
            .map(|g| {
                let u = self.model.amount(cost, 1.0);
                let on = set.iter().any(|e| self.start[l][usize::from(*e)][0] as usize == g);
                self.model.start(u, f64::from(u8::from(on)));
                for &e in set {
                    let mut row: Vec<_> = self.any(l, e.into(), g).collect();
                    row.push((u, -1.0));
                    self.model.row(row, Rule::AtMost, 0.0);
                }
                u
            })
            .collect()
    }

    /// From the group where the token is to those of its experts, and from these to that of the first of them.
    fn follow(&mut self, t: &Traffic, l: usize, holder: Option<(usize, u16)>, turn: u32, set: &[u16], n: f64) {
        let first = Some((l, set[0]));
        let parts: Vec<Vec<u16>> = match t.way {
            Way::PerSelection => set.iter().map(|e| vec![*e]).collect(),
            _ => vec![set.to_vec()],
        };
        for part in parts {
            let u = self.cover(l, &part, 0.0);
            let out = TokenLeg { layer: l, part: &part, covers: &u, at: holder, turn, tokens: n, way: 0 };
            self.away(t, &out);
            self.away(t, &TokenLeg { at: first, way: 1, ..out });
        }
    }

    /// Charges a leg's copies that leave their group or their node.
    fn away(&mut self, t: &Traffic, leg: &TokenLeg) {
        let p = self.p;
        let TokenLeg { layer: l, part, covers, at, turn, tokens, way } = *leg;
        let home = |s: &Self, l: usize, e: u16| s.start[l][usize::from(e)][0];
        for (g, &u) in covers.iter().enumerate() {
            let covered = part.iter().any(|e| home(self, l, *e) as usize == g);
            let holder = at.map_or(turn, |(l, e)| home(self, l, e));
            // A copy that leaves the group costs what it does inside; one that leaves the node costs more.
            let scopes = [(t.inside[way], false), (t.across[way] - t.inside[way], true)];
            for (cost, node) in scopes.into_iter().filter(|s| s.0 > 0.0) {
                let same = |h: usize| if node { p.node_of[h] == p.node_of[g] } else { h == g };
                let q = self.model.amount(tokens * cost, 1.0);
                self.model.start(q, f64::from(u8::from(covered && !same(holder as usize))));
                let mut row = vec![(u, 1.0), (q, -1.0)];
                let mut of = 0.0;
                match at {
                    None => of = f64::from(u8::from(same(turn as usize))),
                    Some((l, e)) => {
                        for h in (0..p.groups).filter(|h| same(*h)) {
                            row.extend(self.any(l, e.into(), h).map(|(v, _)| (v, -1.0)));
                        }
                    }
                }
                self.model.row(row, Rule::AtMost, of);
            }
        }
    }

    fn homes(&self, found: &Found) -> Homes {
        let on = |g: &Vec<Var>| g.iter().any(|v| found.is(*v));
        let expert = |x: &Vec<Vec<Var>>| (0..x.len() as u32).filter(|g| on(&x[*g as usize])).collect();
        self.x.iter().map(|l| l.iter().map(expert).collect()).collect()
    }
}

/// Copies between where tokens are and the groups of some of their experts.
#[derive(Clone, Copy)]
struct TokenLeg<'a> {
    layer: usize,
    /// The experts.
    part: &'a [u16],
    /// By group: 1 where any of them is.
    covers: &'a [Var],
    /// (Layer, expert) on whose group the tokens are; `None`: they start from the group `turn`.
    at: Option<(usize, u16)>,
    turn: u32,
    tokens: f64,
    /// 0: out, 1: back.
    way: usize,
}

/// (Where a token is: the expert that holds it, or a group; its experts) -> how many tokens.
type Sets = BTreeMap<(Option<(usize, u16)>, u32, Vec<u16>), f64>;

fn sets(p: &Problem, t: &Traffic, l: usize) -> Sets {
    let mut sets = Sets::new();
    let placed = |t_: usize, l: usize| t.rows.ids(t_, l).iter().copied().filter(|e| usize::from(*e) < p.experts);
    for token in 0..t.rows.tokens() {
        let mut set: Vec<u16> = placed(token, l).collect();
        if set.is_empty() {
            continue;
        }
        let (mut holder, mut turn) = (None, 0);
        if t.mode == Mode::TokenFollows {
            holder = (0..l).rev().find_map(|before| placed(token, before).next().map(|e| (before, e)));
            if holder.is_none() {
                turn = (t.rows.turn(token) % p.groups as u64) as u32;
            }
            set[1..].sort_unstable();
        } else {
            set.sort_unstable();
        }
        *sets.entry((holder, turn, set)).or_insert(0.0) += 1.0;
    }
    sets
}
