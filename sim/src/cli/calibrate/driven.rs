//! `moesim calibrate measure --experiment`: points out of an experiment's own batches, the next always the one to which
//! the experiment's interval owes most.

use super::harvest::{Apart, Harvest, harvest};
use super::measure::{Args, bench, check, claim, finish, left_for_time, most_bytes, next, open_log};
use crate::cli::terminal::{Format, interrupted, print};
use crate::experiment;
use crate::output::json;
use crate::registry::Registry;
use moesim_core::{Diag, Result};
use moesim_hwmodels::measure::sample::SampleOutcome;
use moesim_hwmodels::measure::{
    Bench, Drive, Log, MeasuredRow, Options, Point, Precision, Summary, Work, plan, sample,
};
use serde::Serialize;
use std::fmt::Write;

/// A point that was measured.
#[derive(Clone, Debug, Serialize)]
struct Chosen {
    work: String,
    pass: u32,
    share: f64,
    /// Relative uncertainty of the work's cost before this point was measured, and after.
    before: f64,
    after: f64,
    /// The experiment's interval with it.
    interval: f64,
}

/// A work of the experiment.
#[derive(Clone, Debug, Serialize)]
struct Stands {
    work: String,
    share: f64,
    before: f64,
    after: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Report {
    experiment: String,
    hardware: String,
    /// Iterations that were simulated, and those that were looked at.
    iterations: [u64; 2],
    /// Whether the experiment goes on behind them.
    is_cut: bool,
    iteration_ms: f64,
    until: f64,
    works: Vec<Stands>,
    /// Points in the order in which they were chosen.
    points: Vec<Chosen>,
    /// As a part of the experiment's time: as costs are now, with the rows that the table had, with those that came.
    interval_before: f64,
    interval_resumed: f64,
    interval_after: f64,
    /// What the reference kernel cannot measure, apart from the interval.
    not_measurable: Vec<Apart>,
    not_measurable_interval: f64,
    stopped: String,
}

pub(super) fn run(a: &Args, registry: &Registry, name: &str) -> Result<()> {
    if !(a.until > 0.0 && a.until < 1.0) {
        let problem = format!("{} is out of range", a.until);
        return Err(Diag::input(problem).place("--until").cure("give a part of the experiment's time, as in 0.05"));
    }
    check(a)?;
    let _claims = (claim(a)?, a.force.file(a.hardware_out.as_deref())?);
    let is_cuda = a.device.starts_with("cuda");
    let resolved = experiment::load(name, &a.set)?;
    let found = harvest(&resolved, registry, if is_cuda { Precision::Fp8 } else { Precision::Int8 })?;
    let most_bytes = most_bytes(a);
    let limits = if a.hardware_out.is_some() { plan(&Options::limits(is_cuda, most_bytes)) } else { Vec::new() };
    let works = found.targets.iter().map(|t| &t.work).chain(limits.iter().map(|p| &p.work));
    let largest = works.map(|w| w.bytes() as u64).max().unwrap_or(0) + (1 << 20);
    let mut bench = bench(a, largest.min(most_bytes), most_bytes)?;
    let mut log = open_log(a)?;
    let mut drive = Drive::new(found.targets.clone());
    let interval_before = drive.interval()[0];
    log.works(bench.facts()).for_each(|(point, row)| drive.learn(&point, row));
    let interval_resumed = drive.interval()[0];
    let mut left: Vec<Apart> = Vec::new();
    for point in &limits {
        if !interrupted()
            && !log.has(bench.facts(), point)
            && let Some(why) = measured(&mut *bench, &mut log, point)?
        {
            let why = format!("limit of the device, {}: {why}", words(&point.work));
            left.push(Apart { why, share: 0.0, error: None });
        }
    }
    let (points, stopped) = measure(a, &mut *bench, &mut log, &mut drive)?;
    let facts = bench.facts().clone();
    let own: Vec<MeasuredRow> = log.rows.iter().filter(|r| r.text("device") == facts.device).cloned().collect();
    let summary = Summary::new(&own);
    finish(a, &summary, &facts, own.len(), None)?;
    let mut report = report(name, &resolved.hardware.name, a.until, &found, &drive, points, stopped);
    (report.interval_before, report.interval_resumed) = (interval_before, interval_resumed);
    report.not_measurable.extend(left);
    print(&match a.format {
        Format::Json => json(&report)? + "\n",
        Format::Table => text(&report) + &summary.text(&facts) + &next(a),
    })
}

/// Measures a point; why it cannot be, if it cannot.
fn measured(bench: &mut dyn Bench, log: &mut Log, point: &Point) -> Result<Option<String>> {
    match sample(bench, point, &|| interrupted())? {
        SampleOutcome::Done(s) => {
            let row = MeasuredRow::new(bench.facts(), point, &s);
            log.push(row)?;
            Ok(None)
        }
        SampleOutcome::Left(why) => Ok(Some(why)),
        SampleOutcome::Stopped => Ok(None),
    }
}

/// Measures until the interval is small, the time is over or nothing is left; the points, and why it ended.
fn measure(a: &Args, bench: &mut dyn Bench, log: &mut Log, drive: &mut Drive) -> Result<(Vec<Chosen>, String)> {
    let (budget_s, mut points) = (a.time_budget.seconds(), Vec::new());
    loop {
        if interrupted() {
            return Ok((points, "interrupted".into()));
        }
        if drive.interval()[0] <= a.until && drive.has_spread() {
            return Ok((points, format!("the interval of what can be measured is at most {:.1} %", 100.0 * a.until)));
        }
        if bench.now_s() > budget_s {
            return Ok((points, "the time budget is used up".into()));
        }
        let Some((i, point)) = drive.next() else {
            let all = drive.targets.iter().all(|t| t.left.is_none());
            let why = if all { "every work is measured twice" } else { "nothing is left that can be measured" };
            return Ok((points, why.into()));
        };
        let before = drive.uncertainty(i);
        let left = match left_for_time(a, &point.work) {
            Some(why) => Some(why),
            None => measured(bench, log, &point)?,
        };
        if left.is_some() {
            drive.targets[i].left = left;
            continue;
        }
        if let Some(row) = log.rows.last().filter(|_| !interrupted()) {
            drive.learn(&point, row);
            points.push(Chosen {
                work: words(&point.work),
                pass: point.pass,
                share: drive.targets[i].share,
                before,
                after: drive.uncertainty(i),
                interval: drive.interval()[0],
            });
        }
    }
}

fn report(
    name: &str,
    hardware: &str,
    until: f64,
    found: &Harvest,
    drive: &Drive,
    points: Vec<Chosen>,
    stopped: String,
) -> Report {
    let can = drive.targets.iter().enumerate().filter(|(_, t)| t.left.is_none());
    let works = can.map(|(i, t)| Stands {
        work: words(&t.work),
        share: t.share,
        before: t.before,
        after: drive.uncertainty(i),
    });
    let left = drive.targets.iter().filter_map(|t| {
        let why = format!("{}: {}", words(&t.work), t.left.as_ref()?);
        Some(Apart { why, share: t.share, error: Some(t.before) })
    });
    let not_measurable: Vec<Apart> = found.apart.iter().cloned().chain(left).collect();
    Report {
        experiment: name.to_string(),
        hardware: hardware.to_string(),
        iterations: found.iterations,
        is_cut: found.is_cut,
        iteration_ms: 1e3 * found.iteration_s,
        until,
        works: works.collect(),
        points,
        interval_before: 0.0,
        interval_resumed: 0.0,
        interval_after: drive.interval()[0],
        not_measurable_interval: Apart::sum(&not_measurable),
        not_measurable,
        stopped,
    }
}

fn words(work: &Work) -> String {
    match work {
        Work::Experts { shape, precision, counts, .. } => {
            let rows: u32 = counts.iter().sum();
            let active = counts.iter().filter(|n| **n > 0).count();
            let [h, i, e] = [shape.hidden, shape.intermediate, shape.experts];
            format!("experts {h} x {i}, {rows} rows on {active} of {e}, {}", precision.name())
        }
        Work::Gemm { precision, size: [m, n, k] } => format!("gemm {m} x {n} x {k}, {}", precision.name()),
        Work::Norm { tokens, hidden } => format!("norm {tokens} x {hidden}"),
        other => other.name().to_string(),
    }
}

fn text(r: &Report) -> String {
    let percent = |x: f64| 100.0 * x;
    let mut t = format!(
        "{} on {}: {} of {} iterations looked at{}, {:.3} ms each in the mean\n\n",
        r.experiment,
        r.hardware,
        r.iterations[1],
        r.iterations[0],
        if r.is_cut { " (the run goes on behind them)" } else { "" },
        r.iteration_ms
    );
    let _ =
        writeln!(t, "{:<60}{:>5}{:>8}{:>9}{:>8}{:>10}", "points, in %", "pass", "share", "before", "after", "interval");
    for p in &r.points {
        let [share, before, after, interval] = [p.share, p.before, p.after, p.interval].map(percent);
        let _ = writeln!(t, "{:<60}{:>5}{share:>8.2}{before:>9.1}{after:>8.1}{interval:>10.2}", p.work, p.pass);
    }
    let _ = writeln!(t, "\n{:<60}{:>13}{:>9}{:>8}", "works, in %", "share", "before", "after");
    for w in &r.works {
        let [share, before, after] = [w.share, w.before, w.after].map(percent);
        let _ = writeln!(t, "{:<60}{share:>13.2}{before:>9.1}{after:>8.1}", w.work);
    }
    for n in &r.not_measurable {
        let error = n.error.map_or("not known".into(), |e| format!("{:.1}", percent(e)));
        let _ = writeln!(t, "{:<60}{:>13.2}{error:>9}  not measurable", n.why, percent(n.share));
    }
    let _ = writeln!(
        t,
        "\ninterval: {:.2} % of the time as costs are, {:.2} % with the rows that the table had, {:.2} % now; \
         beside it {:.2} % of what cannot be measured\nstopped: {}\n",
        percent(r.interval_before),
        percent(r.interval_resumed),
        percent(r.interval_after),
        percent(r.not_measurable_interval),
        r.stopped
    );
    t
}
