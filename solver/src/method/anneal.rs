//! Annealing on the objective itself: two experts of a layer change places, or one moves to a free slot, and what is worse is
//! taken with a chance that falls. It starts from longest first, or from what a sweep finds where that is better, and keeps the number of replicas of each expert.
//!
//! Where tokens return home, layers do not matter to each other and each is searched by itself.

use super::longest_first::LongestFirst;
use super::sweep::Sweep;
use crate::search::{Layer, Step};
use crate::time::State;
use crate::traffic::{HomeTable, Mode};
use crate::{Effort, Homes, Needs, Objective, Placement, Problem, Solution, moves};
use moesim_core::{Result, rng};
use rand::Rng;
use rayon::prelude::*;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Anneal;

impl Placement for Anneal {
    fn place(&self, p: &Problem) -> Result<Solution> {
        let mut start = LongestFirst.place(p)?.homes;
        // Loads that are even in the mean may be less so in every batch: the start is what was dealt where swaps made that worse.
        if p.objective == Objective::Time {
            let effort = Effort { steps: 1, ..p.effort };
            let dealt = LongestFirst.place(&Problem { effort, ..p.clone() })?.homes;
            if p.check_homes(&dealt).is_ok() && p.value(&dealt) < p.value(&start) {
                start = dealt;
            }
        }
        // Layers that depend on each other are placed better one between the others than by single steps.
        if p.objective != Objective::Load
            && let Ok(swept) = Sweep.place(p)
            && p.check_homes(&swept.homes).is_ok()
            && p.value(&swept.homes) < p.value(&start)
            && !matches!(p.objective, Objective::Lexicographic { .. })
        {
            start = swept.homes;
        }
        Ok(from(p, start))
    }
    fn needs(&self) -> Needs {
        Needs::Loads
    }
}

/// Anneals `start`.
pub(crate) fn from(p: &Problem, start: Homes) -> Solution {
    let homes = traced(p, start).0;
    // Asked after the search.
    Solution { cut: p.effort.over(), ..homes.into() }
}

/// Anneals `start`, and says by how much it believes the objective changed.
pub(crate) fn traced(p: &Problem, start: Homes) -> (Homes, f64) {
    if let Some(w) = &p.watch {
        w.begins(p.value(&start), p.effort.steps * p.layers as u64);
    }
    let coupled = p.from.is_some() || p.traffic.as_ref().is_some_and(|t| t.mode == Mode::TokenFollows);
    if coupled {
        return search(p, &start, &(0..p.layers).collect::<Vec<_>>());
    }
    let one = |l: usize| {
        let (mut homes, change) = search(p, &start, &[l]);
        (homes.swap_remove(l), change)
    };
    let layers: Vec<_> = (0..p.layers).into_par_iter().map(one).collect();
    let change = layers.iter().map(|l| l.1).sum();
    (layers.into_iter().map(|l| l.0).collect(), change)
}

/// Steps between looks at the clock.
const LOOK: u64 = 64;

/// What counts of a layer's change.
struct Weights {
    load: f64,
    traffic: f64,
    /// Most load of each layer.
    most: Vec<f64>,
}

fn weights(p: &Problem, start: &Homes) -> Weights {
    let free = vec![f64::INFINITY; p.layers];
    match p.objective {
        Objective::Load | Objective::Time => Weights { load: 1.0, traffic: 0.0, most: free },
        Objective::Traffic => Weights { load: 0.0, traffic: 1.0, most: free },
        Objective::Weighted { traffic } => Weights { load: 1.0, traffic, most: free },
        Objective::Lexicographic { slack } => {
            let most = (0..p.layers).map(|l| p.layer_load(l, &start[l]) * (1.0 + slack)).collect();
            Weights { load: 0.0, traffic: 1.0, most }
        }
    }
}

fn search(p: &Problem, start: &Homes, mine: &[usize]) -> (Homes, f64) {
    let w = weights(p, start);
    let traffic = p.traffic.as_deref().filter(|_| w.traffic > 0.0);
    let mut draws = rng::stream(p.seed, "placement-anneal", mine[0] as u64);
    let mut layers: Vec<Layer> = mine.iter().map(|&l| Layer::of(p, l, &start[l])).collect();
    let mut table = HomeTable::new(start);
    let batches = p.batches.as_deref().filter(|_| p.objective == Objective::Time);
    let mut times = batches.map(|b| State::new(b, &p.speed, mine, start, &table));
    let moved = |l: usize, layer: &Layer, touched: [Option<u16>; 2]| -> u64 {
        let Some((from, _)) = &p.from else { return 0 };
        let new = |e: u16| layer.homes[usize::from(e)].iter().filter(|g| !from[l][usize::from(e)].contains(g)).count();
        touched.into_iter().flatten().map(|e| new(e) as u64).sum()
    };
    let mut moves_so_far = p.from.as_ref().map_or(0, |(from, _)| moves(from, start));
    let (mut best, mut best_value, mut value) = (start.clone(), 0.0f64, 0.0f64);
    let steps = p.effort.steps * mine.len() as u64;
    // Warm enough that a usual step is taken half the time, cooled to a thousandth of it.
    let (mut warmth, mut warming, mut tried) = (0.0f64, 0u32, 0u64);
    let mut told = (0, 0.0);
    let cooling = libm::exp(-libm::log(1000.0) / steps.max(1) as f64);
    while tried < steps {
        if tried.is_multiple_of(LOOK) {
            if p.effort.over() || p.stopped(tried - told.0, best_value - told.1) {
                break;
            }
            told = (tried, best_value);
        }
        tried += 1;
        let i = rng::below(draws.next_u64(), layers.len() as u64) as usize;
        let Some(step) = pick(&layers[i], &mut draws) else { continue };
        let l = layers[i].layer;
        let touched = experts(step);
        let before = w.load * layers[i].time(layers[i].busiest());
        if let Some(times) = &mut times {
            times.lift(l, touched, &table);
        }
        let ways_before = traffic.map_or(0.0, |t| ways(t, &table, l, touched));
        let stood = moves_so_far - moved(l, &layers[i], touched);
        layers[i].apply(step);
        for e in touched.into_iter().flatten() {
            table.set(l, e.into(), &layers[i].homes[usize::from(e)]);
        }
        let now_moved = stood + moved(l, &layers[i], touched);
        let time = layers[i].time(layers[i].busiest());
        let ways_after = traffic.map_or(0.0, |t| ways(t, &table, l, touched));
        let change: f64 = match &mut times {
            Some(times) => times.land(l, touched, &table, groups(step), &layers[i].on, &layers[i].homes),
            None => w.load * time - before + w.traffic * (ways_after - ways_before),
        };
        if warming < 64 {
            warming += u32::from(change != 0.0);
            warmth += change.abs() / 64.0;
        }
        let mut chance = || {
            let draw = (draws.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            warming >= 64 && draw < libm::exp(-change / warmth.max(f64::MIN_POSITIVE))
        };
        let allowed = time <= w.most[l] * (1.0 + 1e-12) && p.from.as_ref().is_none_or(|(_, most)| now_moved <= *most);
        if allowed && (change <= 0.0 || chance()) {
            value += change;
            moves_so_far = now_moved;
            if value < best_value - 1e-12 * best_value.abs() {
                best_value = value;
                for e in 0..layers.len() {
                    best[layers[e].layer].clone_from(&layers[e].homes);
                }
            }
        } else {
            layers[i].apply(back(step));
            if let Some(times) = &mut times {
                times.undo();
            }
            for e in touched.into_iter().flatten() {
                table.set(l, e.into(), &layers[i].homes[usize::from(e)]);
            }
        }
        if warming >= 64 {
            warmth *= cooling;
        }
    }
    p.stopped(tried - told.0, best_value - told.1);
    (best, best_value)
}

/// The groups whose experts a step changes.
fn groups(step: Step) -> [u32; 2] {
    match step {
        Step::Move { g, h, .. } | Step::Swap { g, h, .. } => [g, h],
        Step::Replace { h, .. } => [h, h],
    }
}

/// A step at random: an expert of a group, and a free slot or an expert of another.
fn pick(layer: &Layer, draws: &mut impl Rng) -> Option<Step> {
    let groups = layer.on.len() as u64;
    let g = rng::below(draws.next_u64(), groups) as usize;
    let h = rng::below(draws.next_u64(), groups) as usize;
    if g == h || layer.on[g].is_empty() {
        return None;
    }
    let a = layer.on[g][rng::below(draws.next_u64(), layer.on[g].len() as u64) as usize];
    if layer.pinned(a, g) || !layer.may(a, h) {
        return None;
    }
    let slots = u64::from(layer.p.slots[layer.layer][h]);
    let b = rng::below(draws.next_u64(), slots) as usize;
    let (g, h) = (g as u32, h as u32);
    match layer.on[h as usize].get(b) {
        None => Some(Step::Move { a, g, h }),
        Some(&b) if layer.may(b, g as usize) && !layer.pinned(b, h as usize) => Some(Step::Swap { a, g, b, h }),
        Some(_) => None,
    }
}

fn back(step: Step) -> Step {
    match step {
        Step::Move { a, g, h } => Step::Move { a, g: h, h: g },
        Step::Swap { a, g, b, h } => Step::Swap { a: b, g, b: a, h },
        Step::Replace { a, b, h } => Step::Replace { a: b, b: a, h },
    }
}

fn experts(step: Step) -> [Option<u16>; 2] {
    match step {
        Step::Move { a, .. } => [Some(a), None],
        Step::Swap { a, b, .. } | Step::Replace { a, b, .. } => [Some(a), Some(b)],
    }
}

/// What the tokens of these experts cost in a layer, and in the next one where they go there from these experts.
fn ways(t: &crate::traffic::Traffic, table: &HomeTable, layer: usize, touched: [Option<u16>; 2]) -> f64 {
    let mut sum = 0.0;
    let [a, b] = touched;
    let next = layer + 1 < t.rows.layers && t.mode == Mode::TokenFollows;
    let mut add = |token: u32| {
        let token = token as usize;
        sum += t.token_cost(layer, token, table);
        if next && t.rows.ids(token, layer).first().is_some_and(|e| Some(*e) == a || Some(*e) == b) {
            sum += t.token_cost(layer + 1, token, table);
        }
    };
    let of = |e: Option<u16>| e.map_or(&[][..], |e| t.rows.of(layer, e.into()));
    of(a).iter().for_each(|&token| add(token));
    for &token in of(b) {
        // Tokens of both count once.
        if a.is_none_or(|a| !t.rows.ids(token as usize, layer).contains(&a)) {
            add(token);
        }
    }
    sum * t.scale
}
