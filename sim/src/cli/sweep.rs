//! `moesim sweep`.

use super::run::{Options, simulate};
use super::{Format, interrupted, print, progress};
use crate::output::{self, MARKER};
use crate::registry::Registry;
use crate::sweep::{Point, Sweep};
use moesim_core::diag::Class;
use moesim_core::output::{AtomicFile, create_folders};
use moesim_core::{Diag, Result};
use moesim_plot::{SweepPoint, SweepTable};
use rayon::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Sweep file, or a preset's name (machines)
    sweep: String,
    /// Write every point's run directory, the table and the plot here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Points at a time [default: one a core]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Go on where an earlier sweep into the same folder stopped
    #[arg(long, requires = "out")]
    resume: bool,
    /// Only every N-th point, from the I-th on: shards share one --out; collect them with --resume
    #[arg(long, value_name = "I/N", requires = "out", value_parser = shard)]
    shard: Option<(usize, usize)>,
    /// How to print the table
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// No progress on standard error
    #[arg(long)]
    quiet: bool,
}

/// Reads `I/N`.
fn shard(text: &str) -> std::result::Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    parts.filter(|&(i, n)| 1 <= i && i <= n).ok_or_else(|| "write it as 1/4, 2/4, 3/4 or 4/4".to_string())
}

/// A finished point: its summary, or that there is none.
enum Outcome {
    Ok(Value),
    DoesNotFit,
}

pub(super) fn run(args: &Args, registry: &Registry) -> Result<()> {
    let sweep = Sweep::load(&args.sweep)?;
    // Wrong input shows before the first point runs.
    for point in &sweep.points {
        sweep.resolve(point)?;
    }
    if let Some(out) = &args.out {
        prepare(out, args.resume || args.shard.is_some())?;
    }
    let jobs = args.jobs.unwrap_or_else(rayon::current_num_threads).clamp(1, 1024);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build();
    let pool = pool.map_err(|e| Diag::run(format!("no threads: {e}")))?;
    let line = progress::Line::new(args.quiet);
    let done = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let (first, every) = args.shard.unwrap_or((1, 1));
    // None: not run, because of an interrupt, because another point failed, or in another shard.
    let outcomes: Vec<Result<Option<Outcome>>> = pool.install(|| {
        (0..sweep.points.len())
            .into_par_iter()
            .map(|i| {
                if interrupted() || failed.load(Ordering::Relaxed) || i % every != first - 1 {
                    return Ok(None);
                }
                let outcome = point(&sweep, i, args, registry).and_then(|o| {
                    if let Outcome::Ok(summary) = &o {
                        known_metrics(&sweep, summary).map_err(|d| d.file(&args.sweep))?;
                    }
                    Ok(Some(o))
                });
                failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                let n = done.fetch_add(1, Ordering::Relaxed) + 1;
                line.say(format!("{n} of {} points", sweep.points.len()));
                outcome
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
    let outcomes = outcomes.into_iter().collect::<Result<Vec<_>>>()?;
    let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
    if let (Some((i, n)), Some(out)) = (args.shard, &args.out) {
        let of = sweep.points.len();
        return print(&format!(
            "shard {i}/{n}: {} of {of} points done; when all shards are, collect them with --resume --out {}\n",
            outcomes.len(),
            out.display()
        ));
    }
    report(args, &sweep, &outcomes)
}

/// The folder of a sweep holds `sweep.csv` or `points/`; anything else in the way is refused.
fn prepare(out: &Path, resume: bool) -> Result<()> {
    let points = out.join("points");
    let taken = std::fs::read_dir(out).is_ok_and(|mut d| d.next().is_some()) || out.is_file();
    if taken && !(resume && points.is_dir()) {
        let cure = if points.is_dir() { "give --resume, or choose another --out" } else { "choose another --out" };
        return Err(Diag::input("exists and is not empty").file(out).cure(cure));
    }
    create_folders(&points)
}

fn point(sweep: &Sweep, index: usize, args: &Args, registry: &Registry) -> Result<Outcome> {
    let resolved = sweep.resolve(&sweep.points[index])?;
    let dir = args.out.as_ref().map(|out| out.join("points").join(format!("{index:04}")));
    if let (true, Some(dir)) = (args.resume || args.shard.is_some(), &dir) {
        // Only a point of the same experiment counts; its directory is whole or absent.
        let expected = output::experiment(&resolved, sweep.trace(&resolved)?.hash())?;
        if std::fs::read_to_string(dir.join("experiment.toml")).is_ok_and(|t| t == expected)
            && let Some(summary) = std::fs::read(dir.join(MARKER)).ok().and_then(|b| serde_json::from_slice(&b).ok())
        {
            return Ok(Outcome::Ok(summary));
        }
    }
    let hidden = progress::Line::new(true);
    let options = Options { out: dir.as_deref(), timeline: false };
    match simulate(&resolved, registry, || sweep.trace(&resolved), &options, &hidden) {
        Ok((summary, _)) => {
            let text = output::json(&summary)?;
            let value = serde_json::from_str(&text).map_err(|e| Diag::run(format!("a summary is not JSON: {e}")))?;
            Ok(Outcome::Ok(value))
        }
        Err(e) if e.class == Class::DoesNotFit => Ok(Outcome::DoesNotFit),
        Err(e) => Err(e),
    }
}

/// A dotted key of a summary.
fn metric<'a>(summary: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(summary, |v, part| v.get(part))
}

/// Refuses metrics that no summary has; below what is `null` here, another point may have keys.
fn known_metrics(sweep: &Sweep, summary: &Value) -> Result<()> {
    for m in sweep.file.metrics.iter().chain(&sweep.file.plot) {
        let mut at = summary;
        for part in m.split('.') {
            match at.get(part) {
                Some(Value::Null) => break,
                Some(v) => at = v,
                None => {
                    let known: Vec<&str> = at.as_object().into_iter().flatten().map(|(k, _)| k.as_str()).collect();
                    let within = m.split_once(&format!(".{part}")).map_or("summary.json", |(above, _)| above);
                    return Err(moesim_core::diag::unknown(&format!("key of {within}"), part, &known).place("metrics"));
                }
            }
        }
    }
    Ok(())
}

fn report(args: &Args, sweep: &Sweep, outcomes: &[Outcome]) -> Result<()> {
    let metrics = &sweep.file.metrics;
    let rows: Vec<Vec<String>> = sweep.points.iter().zip(outcomes).map(|(p, o)| row(p, o, metrics)).collect();
    let mut header = sweep.keys();
    header.extend(["status".to_string(), "bottleneck".to_string()]);
    header.extend(metrics.iter().cloned());
    if let Some(out) = &args.out {
        let mut w = csv::Writer::from_writer(Vec::new());
        let broken = |e: csv::Error| Diag::run(format!("cannot write the table: {e}"));
        w.write_record(&header).map_err(broken)?;
        rows.iter().try_for_each(|r| w.write_record(r)).map_err(broken)?;
        let bytes = w.into_inner().map_err(|e| Diag::run(format!("cannot write the table: {e}")))?;
        AtomicFile::write(&out.join("sweep.csv"), &bytes)?;
        let plotted = sweep.file.plot.as_ref().or(metrics.first());
        if let Some(m) = plotted {
            let svg = moesim_plot::sweep_plot(&table(sweep, outcomes, m), m)?;
            AtomicFile::write(&out.join("sweep.svg"), svg.as_bytes())?;
            AtomicFile::write(&out.join("sweep.png"), &moesim_plot::png(&svg)?)?;
        }
    }
    match args.format {
        Format::Json => {
            let objects: Vec<Value> = rows
                .iter()
                .map(|r| {
                    let cell = |(k, v): (&String, &String)| (k.clone(), Value::String(v.clone()));
                    Value::Object(header.iter().zip(r).map(cell).collect())
                })
                .collect();
            print(&(output::json(&objects)? + "\n"))
        }
        Format::Table => print(&aligned(&header, &rows)),
    }
}

fn row(point: &Point, outcome: &Outcome, metrics: &[String]) -> Vec<String> {
    let mut cells = point.labels.clone();
    match outcome {
        Outcome::Ok(s) => {
            let text = |v: Option<&Value>| match v {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(s)) => s.clone(),
                Some(v) => v.to_string(),
            };
            cells.push("ok".into());
            cells.push(text(s.get("bottleneck")));
            cells.extend(metrics.iter().map(|m| text(metric(s, m))));
        }
        Outcome::DoesNotFit => {
            cells.push("does not fit".into());
            cells.resize(cells.len() + 1 + metrics.len(), String::new());
        }
    }
    cells
}

fn table(sweep: &Sweep, outcomes: &[Outcome], plotted: &str) -> SweepTable {
    let points = sweep.points.iter().zip(outcomes).map(|(p, o)| {
        let (value, label) = match o {
            Outcome::Ok(s) => (
                metric(s, plotted).and_then(Value::as_f64),
                s.get("bottleneck").and_then(Value::as_str).map(str::to_string),
            ),
            Outcome::DoesNotFit => (None, None),
        };
        SweepPoint { values: p.labels.clone(), metrics: BTreeMap::from([(plotted.to_string(), value)]), label }
    });
    SweepTable { keys: sweep.keys(), points: points.collect() }
}

/// Columns in line; numbers shortened to what a person compares.
fn aligned(header: &[String], rows: &[Vec<String>]) -> String {
    let short = |cell: &String| match cell.parse::<f64>() {
        Ok(v) if cell.contains('.') => format!("{v:.4}"),
        _ => cell.clone(),
    };
    let head: Vec<String> = header.iter().map(|h| h.rsplit('.').next().unwrap_or(h).to_string()).collect();
    let body: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(short).collect()).collect();
    let width = |c: usize| body.iter().map(|r| r[c].chars().count()).chain([head[c].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        padded.join("  ").trim_end().to_string() + "\n"
    };
    std::iter::once(line(&head)).chain(body.iter().map(|r| line(r))).collect()
}
