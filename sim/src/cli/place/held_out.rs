//! Placements on routing that they were not made for: loads with intervals, and a simulated run.

use super::args::Args;
use super::found::{HeldOut, MethodRow, PerToken, Simulated};
use super::given::Given;
use crate::cli::progress;
use crate::cli::terminal::interrupted;
use crate::experiment::Resolved;
use crate::metrics::Summary;
use crate::metrics::tables::Tables;
use crate::placing::{self, Loads};
use crate::registry::Registry;
use crate::simulation::Simulation;
use moesim_core::{Diag, Result, rng};
use moesim_solver::traffic::{Copies, Mode, Routes, copies};
use moesim_solver::{Homes, Objective, Problem};
use moesim_traces::arrivals::{ArrivalSpec, Length};
use moesim_traces::{OwnedSequence, Trace};
use rand::Rng;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// What all are compared with, if it placed anything.
const AGAINST: [&str; 2] = ["eplb", "contiguous"];
const BLOCKS: usize = 100;
const SAMPLES: usize = 1000;
/// Sequences of the simulated run.
const SEQUENCES: usize = 4096;

/// Fills in what each placement does on the held-out part.
pub(super) fn measure(
    given: &Given,
    a: &Args,
    registry: &Registry,
    rows: &mut [MethodRow],
    line: &progress::ProgressLine,
) -> Result<()> {
    let (Some(trace), Some(resolved)) = (&given.trace, &given.resolved) else { return Ok(()) };
    if given.held_out.is_empty() {
        return Ok(());
    }
    line.say("loads of the held-out part".into());
    let blocks = blocks(trace, given.held_out.clone(), given.problem.experts)?;
    let part = (!a.no_simulation).then(|| part(trace, given.held_out.clone()).map(Arc::new)).transpose()?;
    let baseline = AGAINST.iter().find_map(|name| {
        let row = rows.iter().find(|r| r.method == **name)?;
        Some((*name, row.homes.clone()?))
    });
    let mut all = Loads { counts: vec![0; given.problem.tokens.len()], rows: 0.0 };
    blocks.iter().for_each(|b| all.add(b));
    let loaded = under(&given.problem, &all, given.iteration_tokens);
    let timed = match (&given.problem.batches, &given.site) {
        (Some(_), Some(site)) => {
            let slots = given.problem.slots[0][0] as usize;
            Some(placing::batches(site, trace, given.held_out.clone(), given.iteration_tokens, slots, 4)?)
        }
        _ => None,
    };
    // What is sampled: times of batches, or loads of sequences.
    let sampled = |homes: &Homes| match &timed {
        Some(b) => resampled(&b.each(&loaded.speed, homes), a.seed),
        None => bootstrap(&loaded, given.iteration_tokens, &blocks, homes, a.seed),
    };
    let value = |homes: &Homes| timed.as_ref().map_or_else(|| loaded.load(homes), |b| b.value(&loaded.speed, homes));
    let samples = baseline.as_ref().map(|(_, homes)| sampled(homes));
    for row in rows.iter_mut() {
        let Some(homes) = &row.homes else { continue };
        if interrupted() {
            return Err(Diag::run("interrupted").cure("run it again; nothing was written"));
        }
        line.say(format!("on the held-out part: {}", row.method));
        let load = loaded.load(homes);
        let (mut ratio, mut interval) = (None, None);
        if let (Some((name, base)), Some(samples)) = (&baseline, &samples)
            && row.method != **name
        {
            ratio = Some(value(homes) / value(base));
            let mut ratios: Vec<f64> = sampled(homes).iter().zip(samples).map(|(m, b)| m / b).collect();
            ratios.sort_by(f64::total_cmp);
            // The noise of a sample raises every maximum: the interval is that of the ratios' spread, about the ratio itself.
            let shift = ratio.unwrap_or(1.0) - ratios.iter().sum::<f64>() / SAMPLES as f64;
            interval = Some([ratios[SAMPLES * 25 / 1000] + shift, ratios[SAMPLES * 975 / 1000 - 1] + shift]);
        }
        let routes = Routes {
            mode: given.site.as_ref().map_or(Mode::ReturnHome, |s| s.plan.deployment.tokens),
            way: given.site.as_ref().map_or_else(Default::default, crate::placing::Site::way),
            node_of: &given.problem.node_of,
        };
        let groups = given.problem.groups;
        let c = copies(trace, given.held_out.clone(), homes, routes, |i| (i % groups) as u32)?;
        let run = part.as_ref().map(|part| simulate(resolved, a, given, registry, homes, part));
        let simulated = run.transpose()?;
        let against = ratio.and(baseline.as_ref().map(|b| b.0));
        let time = timed.as_ref().map(|_| value(homes));
        let held =
            HeldOut { load, time, ratio, interval, against, copies_per_token: per_token(&c, all.rows), simulated };
        if let Some(found) = &mut row.found {
            found.held_out = Some(held);
        }
    }
    Ok(())
}

fn per_token(c: &Copies, rows: f64) -> PerToken {
    let across = c.dispatch_across + c.combine_across;
    let all = across + c.dispatch_inside + c.combine_inside;
    PerToken { between_devices: all as f64 / rows.max(1.0), between_nodes: across as f64 / rows.max(1.0) }
}

/// The problem with other loads.
fn under(p: &Problem, loads: &Loads, iteration_tokens: f64) -> Problem {
    let (tokens, objective) = (loads.tokens(iteration_tokens), Objective::Load);
    Problem { tokens, objective, traffic: None, batches: None, from: None, ..p.clone() }
}

/// Means of samples of the values, drawn with replacement; the same samples for every placement.
fn resampled(values: &[f64], seed: u64) -> Vec<f64> {
    let sample = |s: usize| {
        let mut draws = rng::stream(seed, "placement-bootstrap", s as u64);
        let one = |_| values[rng::below(draws.next_u64(), values.len() as u64) as usize];
        (0..values.len()).map(one).sum::<f64>() / values.len() as f64
    };
    (0..SAMPLES).map(sample).collect()
}

/// Loads of up to a hundred runs of sequences.
fn blocks(trace: &Trace, range: Range<usize>, experts: usize) -> Result<Vec<Loads>> {
    let n = range.len().min(BLOCKS);
    let at = |i: usize| range.start + range.len() * i / n;
    (0..n).into_par_iter().map(|i| Loads::of_trace(trace, at(i)..at(i + 1), experts)).collect()
}

/// Loads of samples of the blocks, drawn with replacement; the same samples for every placement.
fn bootstrap(p: &Problem, iteration_tokens: f64, blocks: &[Loads], homes: &Homes, seed: u64) -> Vec<f64> {
    let sample = |s: usize| {
        let mut draws = rng::stream(seed, "placement-bootstrap", s as u64);
        let mut times = vec![0u64; blocks.len()];
        (0..blocks.len()).for_each(|_| times[rng::below(draws.next_u64(), blocks.len() as u64) as usize] += 1);
        let mut sum = Loads { counts: vec![0; p.tokens.len()], rows: 0.0 };
        for (b, &n) in blocks.iter().zip(&times).filter(|b| *b.1 > 0) {
            sum.counts.iter_mut().zip(&b.counts).for_each(|(a, c)| *a += n * c);
            sum.rows += n as f64 * b.rows;
        }
        let tokens = sum.tokens(iteration_tokens);
        // As Problem::load, without copying the problem.
        let layer = |(l, homes): (usize, &Vec<Vec<u32>>)| {
            let mut times = vec![0.0; p.groups];
            for (e, on) in homes.iter().enumerate() {
                let cost = p.curve.of(tokens[l * p.experts + e] / on.len() as f64);
                on.iter().for_each(|g| times[*g as usize] += cost);
            }
            times.iter().zip(&p.speed).map(|(t, s)| t / s).fold(0.0, f64::max)
        };
        homes.iter().enumerate().map(layer).sum()
    };
    (0..SAMPLES).into_par_iter().map(sample).collect()
}

/// The held-out sequences as a trace of their own, at most so many, spread evenly.
fn part(trace: &Trace, range: Range<usize>) -> Result<Trace> {
    let n = range.len().min(SEQUENCES);
    let at = |i: usize| range.start + range.len() * i / n;
    // Numbered anew: drawn sequences do not ascend.
    let sequences = (0..n).map(|i| OwnedSequence { id: i as u32, ..trace.sequence(at(i)).to_owned() }).collect();
    Trace::from_sequences(trace.meta().clone(), sequences)
}

fn simulate(
    resolved: &Resolved,
    a: &Args,
    given: &Given,
    registry: &Registry,
    homes: &Homes,
    part: &Arc<Trace>,
) -> Result<Simulated> {
    let mut r = resolved.clone();
    r.homes = Some(Arc::new(homes.clone()));
    let x = &mut r.experiment;
    if a.experiment.is_none() && !a.set.iter().any(|s| s.starts_with("workload.")) {
        let concurrency = given.iteration_tokens as u32;
        let fixed = Length::constant;
        x.workload.arrivals = ArrivalSpec::ClosedLoop {
            concurrency,
            requests: a.requests.unwrap_or(2 * u64::from(concurrency)),
            think_time: moesim_core::Picos::ZERO,
            prompt_tokens: fixed(1),
            output_tokens: fixed(128),
        };
        // Every rank takes its share at once.
        let each = concurrency.div_ceil(given.site.as_ref().map_or(1, |s| s.plan.ranks.dp as u32));
        x.deployment.max_sequences = x.deployment.max_sequences.max(each);
    }
    let mut s = Simulation::new(&r, registry, || Ok(part.clone()), Tables::default())?;
    s.run(&mut |_| !interrupted())?;
    let summary = Summary::new(&s.ended());
    Ok(Simulated {
        output_tokens_per_s: summary.throughput.output_tokens_per_s,
        imbalance_mean: summary.imbalance.as_ref().map(|i| i.mean),
        imbalance_p99: summary.imbalance.as_ref().map(|i| i.p99),
        cross_device_bytes: s.network.dispatch_bytes + s.network.combine_bytes,
        cross_node_bytes: s.network.cross_node_bytes,
        simulated_s: summary.simulated_s,
    })
}
