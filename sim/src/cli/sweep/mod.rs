//! `moesim sweep`.

mod args;
mod folder;
mod point;
mod report;

pub(super) use args::Args;

use super::cache::routing_cache;
use super::progress;
use super::terminal::{interrupted, note, print};
use crate::registry::Registry;
use crate::sweep::Sweep;
use moesim_core::{Diag, Result, diag};
use point::{Done, Fate};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) fn run(args: &Args, registry: &Registry) -> Result<()> {
    let mut sweep = Sweep::load(&args.sweep)?;
    sweep.cache = routing_cache()?;
    args.costs.assignment().map_or(Ok(()), |a| sweep.also(&a))?;
    let axes = axes(args, &sweep)?;
    let jobs = args.jobs.unwrap_or_else(rayon::current_num_threads).clamp(1, 1024);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build();
    let pool = pool.map_err(|e| Diag::run(format!("no threads: {e}")))?;
    let (first, every) = args.shard.unwrap_or((1, 1));
    let own: Vec<usize> = (0..sweep.points.len()).filter(|i| i % every == first - 1).collect();
    // What can be refused is before the first point runs.
    let line = progress::ProgressLine::new(args.quiet);
    line.say(format!("checking {} points", own.len()));
    let refused: Vec<Option<Fate>> = pool.install(|| {
        own.par_iter().map(|&i| if interrupted() { None } else { point::refused(&sweep, i, registry) }).collect()
    });
    if let Some(d) = all_refused(&refused) {
        return Err(d);
    }
    let _claim = args.out.as_ref().map(|out| folder::prepare(out, args, &sweep)).transpose()?;
    let (done, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    // None: not run, because of an interrupt, or because the sweep itself is wrong.
    let outcomes: Vec<Result<Option<Done>>> = pool.install(|| {
        own.par_iter()
            .zip(refused)
            .map(|(&i, refused)| {
                if interrupted() || failed.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let outcome = match refused {
                    Some(fate) => Ok(Done::without_run(fate)),
                    None => point::run(&sweep, i, args, registry, &|text| line.say(text)),
                };
                failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                let n = done.fetch_add(1, Ordering::Relaxed) + 1;
                line.say(format!("{n} of {} points", own.len()));
                outcome.map(Some)
            })
            .collect()
    });
    line.done();
    if interrupted() {
        let kept = outcomes.iter().filter(|o| matches!(o, Ok(Some(_)))).count();
        return Err(Diag::run(format!("interrupted after {kept} of {} points", outcomes.len())).cure(
            match &args.out {
                Some(out) => format!("go on with --resume --out {}", out.display()),
                None => "give --out to keep finished points".to_string(),
            },
        ));
    }
    let done = outcomes.into_iter().collect::<Result<Vec<_>>>()?;
    let done: Vec<Done> = done.into_iter().flatten().collect();
    done.iter().flat_map(|d| &d.notes).for_each(|n| note(n));
    match (args.shard, &args.out) {
        (Some((i, n)), Some(out)) => print(&format!(
            "shard {i}/{n}: {} of {} points done; when all shards are, collect them with --resume --out {}\n{}",
            done.len(),
            sweep.points.len(),
            out.display(),
            report::reasons(&sweep, own.iter().copied().zip(&done))
        ))?,
        _ => report::report(args, &sweep, &axes, &done)?,
    }
    verdict(done)
}

/// The axes of the plot by number, if they were chosen.
fn axes(args: &Args, sweep: &Sweep) -> Result<Vec<usize>> {
    let keys = sweep.keys();
    let known: Vec<&str> = keys.iter().map(String::as_str).collect();
    let number =
        |k: &String| known.iter().position(|n| n == k).ok_or_else(|| diag::unknown("axis of this sweep", k, &known));
    let axes = args.plot.iter().map(number).collect::<Result<Vec<_>>>().map_err(|d| d.place("--plot"))?;
    if axes.len() > 2 || (axes.len() == 2 && axes[0] == axes[1]) {
        let cure = "name one axis, or two different ones";
        return Err(Diag::input(format!("{} is no pair of axes", args.plot.join(","))).place("--plot").cure(cure));
    }
    Ok(axes)
}

/// The error of a sweep of which no point can run: the first refusal, and whether it is that of all.
fn all_refused(fates: &[Option<Fate>]) -> Option<Diag> {
    let refusals = fates.iter().map(|f| match f {
        Some(Fate::Refused(d)) => Some(d),
        _ => None,
    });
    let all: Vec<&Diag> = refusals.collect::<Option<Vec<_>>>()?;
    let first = *all.first()?;
    let others = all.iter().filter(|d| (&d.place, &d.problem) != (&first.place, &first.problem)).count();
    let mut d = first.clone();
    if others > 0 {
        d.problem += &format!(" (every point is refused, {others} of {} for other reasons)", all.len());
    }
    Some(d)
}

/// The exit status of a sweep whose table is out: a failure if something failed or could not be written, wrong input if every point
/// was refused.
fn verdict(done: Vec<Done>) -> Result<()> {
    let of = done.len();
    let mut failed = 0;
    let mut first = None;
    for d in &done {
        if let (Fate::Failed(why), _) | (_, Some(why)) = (&d.fate, &d.unwritten) {
            failed += 1;
            first.get_or_insert_with(|| why.clone());
        }
    }
    if let Some(mut d) = first {
        if failed > 1 {
            d.problem += &format!(" ({failed} of {of} points failed so)");
        }
        return Err(Diag { class: diag::Class::Run, ..d });
    }
    let fates: Vec<Option<Fate>> = done.into_iter().map(|d| Some(d.fate)).collect();
    all_refused(&fates).map_or(Ok(()), Err)
}
