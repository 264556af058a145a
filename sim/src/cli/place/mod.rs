//! `moesim place`: where experts should be, how far from the best that can be, and how good it is on routing not seen.

mod args;
mod found;
mod given;
mod held_out;
mod judge;
mod report;
mod searched;

pub(super) use args::Args;

use super::progress;
use super::terminal::{interrupted, print};
use crate::registry::{Entry, Registry};
use found::{Found, MethodRow};
use given::Given;
use moesim_core::{Diag, Result};
use moesim_solver::file::{self, Placed, PlacementFile};
use moesim_solver::{Homes, Needs, Placement, Problem, bound};
use searched::Searched;
use std::sync::Arc;
use std::time::Instant;

pub(super) fn run(a: &Args, registry: &Registry) -> Result<()> {
    if a.judges_alone() {
        return judge::alone(a);
    }
    let _claim = a.force.file(a.out.as_deref())?;
    let line = progress::ProgressLine::new(a.quiet);
    let methods = a.methods(registry)?;
    let given = Given::read(a, registry, &line)?;
    line.say("bounds".into());
    let bounds = Bounds { objective: bound::objective(&given.problem), load: bound::load(&given.problem) };
    let mut rows: Vec<MethodRow> = Vec::new();
    for entry in methods {
        line.say(format!("placing: {}", entry.name));
        let row = place(&given, entry, a, bounds, &line);
        if interrupted() {
            return Err(Diag::run("interrupted").cure("run it again; nothing was written"));
        }
        rows.push(row?);
    }
    for (name, homes) in judge::files(a, &given)? {
        let mut row = figures(&given.problem, &homes, bounds, false, 0.0);
        row.ran = Some("judged, not placed".into());
        rows.push(MethodRow { method: name, refused: None, found: Some(row), homes: Some(homes) });
    }
    if rows.iter().all(|r| r.found.is_none()) {
        let why = rows.first().and_then(|r| r.refused.clone()).unwrap_or_default();
        return Err(Diag::input(why).place("--solver").cure("choose another method, or --compare for all"));
    }
    if a.holds_out() {
        held_out::measure(&given, a, registry, &mut rows, &line)?;
    }
    line.done();
    if let Some(out) = &a.out {
        let best = best(&rows).ok_or_else(|| Diag::input("no method placed anything").cure("see the table"))?;
        write(&given, best, a, out)?;
    }
    let report = given.report(a, rows);
    print(&report::print(&report, a)?)
}

/// The placement that is written: the one asked for, or the best of a comparison.
fn best(rows: &[MethodRow]) -> Option<&MethodRow> {
    let value = |r: &MethodRow| r.found.as_ref().map_or(f64::INFINITY, |f| f.objective);
    rows.iter().filter(|r| r.found.is_some()).reduce(|a, b| if value(b) < value(a) { b } else { a })
}

/// What no placement beats.
#[derive(Clone, Copy)]
struct Bounds {
    objective: f64,
    load: f64,
}

fn place(
    given: &Given,
    entry: &Entry<dyn Placement>,
    a: &Args,
    mut bounds: Bounds,
    line: &progress::ProgressLine,
) -> Result<MethodRow> {
    let method = entry.plain()?;
    let refused =
        |why: String| Ok(MethodRow { method: entry.name.into(), refused: Some(why), found: None, homes: None });
    if method.needs() == Needs::Rows && given.problem.traffic.is_none() {
        return refused("needs rows, which counts do not have".into());
    }
    let begin = Instant::now();
    let mut problem = given.problem.clone();
    problem.watch = Some(Arc::new(Searched::new(entry.name, bounds.objective, line.clone())));
    problem.effort.until = a.time_limit.map(|t| begin + t);
    let solution = match method.place(&problem) {
        Ok(s) => s,
        Err(d) if d.exit_code() == 2 => return refused(d.problem),
        Err(d) => return Err(d),
    };
    let seconds = begin.elapsed().as_secs_f64();
    if let Err(d) = problem.check_homes(&solution.homes) {
        return refused(format!("breaks a limit: {}", d.problem));
    }
    bounds.objective = bounds.objective.max(solution.bound.unwrap_or(0.0));
    let mut found = figures(&problem, &solution.homes, bounds, solution.cut, seconds);
    found.ran = solution.ran;
    Ok(MethodRow { method: entry.name.into(), refused: None, found: Some(found), homes: Some(solution.homes) })
}

fn figures(p: &Problem, homes: &Homes, bounds: Bounds, cut: bool, seconds: f64) -> Found {
    let (objective, bound) = (p.value(homes), bounds.objective);
    let gap = bound::gap(objective, bound);
    let redundant = homes.iter().flatten().map(|on| on.len() as u64 - 1).sum();
    Found {
        objective,
        bound,
        gap: gap.is_finite().then_some(gap),
        load: p.load(homes),
        load_bound: bounds.load,
        traffic: p.traffic.is_some().then(|| p.traffic_cost(homes)),
        redundant,
        ran: None,
        reproducible: !cut,
        moves: p.from.as_ref().map(|(from, _)| moesim_solver::moves(from, homes)),
        seconds,
        held_out: None,
    }
}

/// Engines whose files are maps of slots have one expert in each: those that the placement leaves empty get another replica of the
/// least loaded experts that their device lacks.
fn fill(p: &Problem, homes: &mut Homes) {
    for (l, layer) in homes.iter_mut().enumerate() {
        let mut used = vec![0u32; p.groups];
        layer.iter().flatten().for_each(|g| used[*g as usize] += 1);
        let most = used.iter().copied().max().unwrap_or(0).max(p.replicas().div_ceil(p.groups) as u32);
        for (g, used) in used.iter_mut().enumerate() {
            while *used < most.min(p.slots[l][g]) {
                let lacks = |e: &usize| !layer[*e].contains(&(g as u32));
                let tokens = |e: usize| p.tokens[l * p.experts + e];
                let Some(e) = (0..p.experts).filter(lacks).reduce(|a, b| if tokens(b) < tokens(a) { b } else { a })
                else {
                    break;
                };
                layer[e].push(g as u32);
                layer[e].sort_unstable();
                *used += 1;
            }
        }
    }
}

fn write(given: &Given, row: &MethodRow, a: &Args, out: &std::path::Path) -> Result<()> {
    let (Some(homes), Some(f)) = (&row.homes, &row.found) else {
        return Err(Diag::run("a placement was lost").cure("report this"));
    };
    // What a run reads has no wall time in it: the same input gives the same bytes.
    let result = serde_json::json!({
        "method": row.method, "ran": f.ran, "objective": given.objective(a), "unit": given.unit(), "value": f.objective, "bound": f.bound,
        "gap": f.gap, "load": f.load, "traffic": f.traffic, "reproducible": f.reproducible,
        "trained_on": given.trained_on, "iteration_tokens": given.iteration_tokens, "seed": a.seed,
        "moesim": env!("CARGO_PKG_VERSION"),
    });
    let mut homes = homes.clone();
    if !["moesim", "omni-infer", "omni"].contains(&a.write_as.as_str()) {
        fill(&given.problem, &mut homes);
    }
    let placement = PlacementFile {
        format: "moesim",
        model: given.model.clone(),
        layer_numbers: given.layer_numbers.clone(),
        placed: Placed::from_homes(&homes, given.problem.groups)?,
        result: Some(result),
        notes: Vec::new(),
    };
    file::write(&placement, &a.write_as, out)
}
