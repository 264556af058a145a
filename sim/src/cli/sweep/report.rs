//! The table of a sweep, and its plot.

use super::args::Args;
use super::folder;
use super::point::{Cells, Done, Fate};
use crate::cli::terminal::{Format, note, print};
use crate::output;
use crate::sweep::{Point, Sweep};
use moesim_core::{Diag, Result};
use moesim_plot::{SweepPoint, SweepTable, head};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Columns of every sweep, between its axes and its metrics.
const OWN: [&str; 3] = ["status", "bottleneck", "basis"];

/// A warning, if the costs of the points stand on unlike bases: one that is a tenth of a point's critical path or more is less than that
/// of another's.
fn unlike(done: &[Done]) -> Option<&'static str> {
    let points = done.iter().filter_map(|d| match &d.fate {
        Fate::Ok(cells) => {
            Some(cells.basis.iter().filter(|b| b.1 >= 0.1 && b.0 != "stated").map(|b| b.0.as_str()).collect())
        }
        _ => None,
    });
    let sets: Vec<BTreeSet<&str>> = points.collect();
    sets.windows(2)
        .any(|w| w[0] != w[1])
        .then_some("costs of points stand on unlike bases (column basis): --costs roofline puts all on one")
}

/// Prints the table, and writes it and the plot. The table is printed whatever becomes of the files.
pub(super) fn report(args: &Args, sweep: &Sweep, axes: &[usize], done: &[Done]) -> Result<()> {
    let rows: Vec<Vec<String>> = sweep.points.iter().zip(done).map(|(p, d)| row(p, &d.fate, sweep)).collect();
    let mut header = sweep.keys();
    header.extend(OWN.map(str::to_string));
    header.extend(sweep.file.metrics.iter().cloned());
    let written = match &args.out {
        Some(out) => write(out, sweep, axes, &header, (&rows, done)),
        None => Ok(Vec::new()),
    };
    let reason = |d: &Done| d.fate.reason().map_or(Value::Null, |d| d.to_string().into());
    let printed = match args.format {
        Format::Json => {
            let objects: Vec<Value> = rows
                .iter()
                .zip(done)
                .map(|(r, d)| {
                    let cell = |(k, v): (&String, &String)| (k.clone(), Value::String(v.clone()));
                    let cells = header.iter().zip(r).map(cell);
                    Value::Object(cells.chain([("reason".to_string(), reason(d))]).collect())
                })
                .collect();
            print(&(output::json(&objects)? + "\n"))
        }
        Format::Table => print(&(aligned(&heads(sweep), &rows) + &reasons(sweep, done.iter().enumerate()))),
    };
    unlike(done).map(note);
    written?.iter().for_each(|n| note(n));
    printed
}

/// The table as a file, with the reasons if a point was refused or failed, and the plot.
fn write(
    out: &Path,
    sweep: &Sweep,
    axes: &[usize],
    header: &[String],
    (rows, done): (&[Vec<String>], &[Done]),
) -> Result<Vec<String>> {
    let broken = |e: csv::Error| Diag::run(format!("cannot write the table: {e}"));
    let explained = done.iter().any(|d| !matches!(d.fate, Fate::Ok(_) | Fate::DoesNotFit(_)));
    let mut w = csv::Writer::from_writer(Vec::new());
    w.write_record(header.iter().map(String::as_str).chain(explained.then_some("reason"))).map_err(broken)?;
    for (row, d) in rows.iter().zip(done) {
        let reason = d.fate.reason().map_or(String::new(), Diag::to_string);
        w.write_record(row.iter().chain(explained.then_some(&reason))).map_err(broken)?;
    }
    let table = w.into_inner().map_err(|e| Diag::run(format!("cannot write the table: {e}")))?;
    let mut notes = Vec::new();
    let (svg, png) = match picture(sweep, axes, done) {
        Some(Ok(svg)) => (svg.clone(), moesim_plot::png(&svg)?),
        Some(Err(d)) => {
            notes.push(format!("no plot: {d}"));
            (String::new(), Vec::new())
        }
        None => (String::new(), Vec::new()),
    };
    let files = [("sweep.csv", table.as_slice()), ("sweep.svg", svg.as_bytes()), ("sweep.png", &png)];
    let files: Vec<(&str, &[u8])> = files.into_iter().filter(|f| !f.1.is_empty()).collect();
    notes.extend(folder::write(out, &files)?);
    Ok(notes)
}

/// The plot over the axes that were chosen, or over all; none if nothing is plotted.
fn picture(sweep: &Sweep, axes: &[usize], done: &[Done]) -> Option<Result<String>> {
    let metric = sweep.plotted()?;
    let keys = sweep.keys();
    if axes.is_empty() && keys.len() > 2 {
        let d = Diag::input(format!("the sweep has {} axes, and a plot one or two", keys.len()));
        return Some(Err(d.cure(format!("choose them with --plot KEY[,KEY] --resume, out of {}", keys.join(", ")))));
    }
    let points = sweep.points.iter().zip(done).map(|(p, d)| {
        let cells = match &d.fate {
            Fate::Ok(cells) => Some(cells),
            _ => None,
        };
        let value = cells.and_then(|c: &Cells| c.plotted);
        let metrics = BTreeMap::from([(metric.to_string(), value)]);
        SweepPoint { values: p.labels.clone(), metrics, label: cells.and_then(|c| c.bottleneck.clone()) }
    });
    let table = SweepTable { keys, points: points.collect(), note: unlike(done).map(str::to_string) };
    let table = if axes.is_empty() { table } else { table.over(axes) };
    Some(moesim_plot::sweep_plot(&table, metric))
}

fn row(point: &Point, fate: &Fate, sweep: &Sweep) -> Vec<String> {
    let text = |v: &Value| match v {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        v => v.to_string(),
    };
    let mut cells = point.labels.clone();
    cells.push(fate.status().into());
    match fate {
        Fate::Ok(found) => {
            cells.extend([found.bottleneck.clone().unwrap_or_default(), found.basis()]);
            cells.extend(found.metrics.iter().map(text));
        }
        _ => cells.resize(cells.len() + 2 + sweep.file.metrics.len(), String::new()),
    }
    cells
}

/// Why points have no figures: each reason once, with the points that it is of.
pub(super) fn reasons<'a>(sweep: &Sweep, done: impl Iterator<Item = (usize, &'a Done)>) -> String {
    let mut found: Vec<(&'static str, String, Vec<String>)> = Vec::new();
    for (i, d) in done {
        let Some(reason) = d.fate.reason() else { continue };
        let text = Diag { file: None, ..reason.clone() }.to_string();
        let label = format!("[{}]", sweep.points[i].labels.join(", "));
        match found.iter_mut().find(|f| f.0 == d.fate.status() && f.1 == text) {
            Some(known) => known.2.push(label),
            None => found.push((d.fate.status(), text, vec![label])),
        }
    }
    let line = |(status, text, points): &(&str, String, Vec<String>)| {
        let more = points.len().saturating_sub(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{status}: {}{more}: {text}\n", points[..points.len().min(3)].join(" "))
    };
    let lines: String = found.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// What columns are called for people: no two alike, with units.
fn heads(sweep: &Sweep) -> Vec<String> {
    let keys = sweep.keys();
    let last = |k: &String| k.rsplit('.').next().unwrap_or(k).to_string();
    let short: Vec<String> = keys.iter().map(last).collect();
    let metrics: Vec<String> = sweep.file.metrics.iter().map(|m| head(m)).collect();
    let own = OWN.map(str::to_string);
    let all: Vec<String> = short.iter().chain(&own).chain(&metrics).cloned().collect();
    let whole: Vec<&String> = keys.iter().chain(&own).chain(&sweep.file.metrics).collect();
    let alike = |h: &String| all.iter().filter(|o| *o == h).count() > 1;
    all.iter().zip(whole).map(|(h, whole)| if alike(h) { whole.clone() } else { h.clone() }).collect()
}

/// Columns in line; numbers shortened to what a person compares.
fn aligned(heads: &[String], rows: &[Vec<String>]) -> String {
    let short = |cell: &String| match cell.parse::<f64>() {
        Ok(v) if cell.contains('.') => format!("{v:.4}"),
        _ => cell.clone(),
    };
    let body: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(short).collect()).collect();
    let long = |text: &String| text.chars().count();
    let width = |c: usize| body.iter().map(|r| long(&r[c])).chain([long(&heads[c])]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        padded.join("  ").trim_end().to_string() + "\n"
    };
    std::iter::once(line(heads)).chain(body.iter().map(|r| line(r))).collect()
}
