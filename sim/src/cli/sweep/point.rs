//! One point of a sweep.

use super::args::Args;
use super::folder;
use crate::cli::progress;
use crate::cli::simulate::{Options, Ran, simulate};
use crate::cli::terminal::interrupted;
use crate::output::{self, MARKER};
use crate::registry::Registry;
use crate::sweep::Sweep;
use moesim_core::diag::Class;
use moesim_core::output::Claim;
use moesim_core::{Diag, Result};
use serde_json::Value;

/// What became of a point.
pub(super) enum Fate {
    /// It ran.
    Ok(Cells),
    /// Its weights do not fit.
    DoesNotFit(Diag),
    /// Its input is wrong.
    Refused(Diag),
    /// It ran and served no request.
    Rejected(Diag),
    /// It broke off.
    Failed(Diag),
}

/// What a table wants of a summary.
pub(super) struct Cells {
    pub(super) bottleneck: Option<String>,
    /// Shares of the critical path by what its costs stand on, largest first.
    pub(super) basis: Vec<(String, f64)>,
    /// The sweep's metrics, in its order.
    pub(super) metrics: Vec<Value>,
    /// The plotted metric.
    pub(super) plotted: Option<f64>,
}

impl Fate {
    /// Its word in the table.
    pub(super) fn status(&self) -> &'static str {
        match self {
            Self::Ok(_) => "ok",
            Self::DoesNotFit(_) => "does not fit",
            Self::Refused(_) => "refused",
            Self::Rejected(_) => "all rejected",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it has no figures.
    pub(super) fn reason(&self) -> Option<&Diag> {
        match self {
            Self::Ok(_) => None,
            Self::DoesNotFit(d) | Self::Refused(d) | Self::Rejected(d) | Self::Failed(d) => Some(d),
        }
    }

    fn of_error(d: Diag) -> Self {
        match d.class {
            Class::DoesNotFit => Self::DoesNotFit(d),
            Class::Input => Self::Refused(d),
            Class::Run => Self::Failed(d),
        }
    }
}

/// A point that is over.
pub(super) struct Done {
    pub(super) fate: Fate,
    /// Its directory could not be written; what it found is known anyway.
    pub(super) unwritten: Option<Diag>,
    /// What the user should know of its directory.
    pub(super) notes: Vec<String>,
}

impl Done {
    pub(super) fn without_run(fate: Fate) -> Self {
        Self { fate, unwritten: None, notes: Vec::new() }
    }
}

/// What is known to become of a point before it runs.
pub(super) fn refused(sweep: &Sweep, index: usize, registry: &Registry) -> Option<Fate> {
    sweep.check(&sweep.points[index], registry).err().map(Fate::of_error)
}

/// Runs a point, or takes what an earlier call found.
///
/// # Errors
/// What is wrong with all points: a metric that no summary has, or an interrupt.
pub(super) fn run(sweep: &Sweep, index: usize, args: &Args, registry: &Registry, say: &dyn Fn(String)) -> Result<Done> {
    let failed = |d: Diag| match interrupted() {
        true => Err(d),
        false => Ok(Done::without_run(Fate::of_error(d))),
    };
    let resolved = match sweep.resolve(&sweep.points[index]) {
        Ok(resolved) => resolved,
        Err(d) => return failed(d),
    };
    let dir = args.out.as_ref().map(|out| folder::point(out, index));
    let shared = args.resume || args.shard.is_some();
    if let (true, Some(dir)) = (shared, &dir) {
        // Only a point of the same experiment counts, and only whole.
        let expected = registry.make(&resolved.experiment.policy).and_then(|made| {
            let trace = sweep.trace(&resolved, say)?.trace;
            output::experiment(&resolved, &made.settled, trace.hash())
        });
        let expected = match expected {
            Ok(text) => text,
            Err(d) => return failed(d),
        };
        if std::fs::read_to_string(dir.join("experiment.toml")).is_ok_and(|t| t == expected)
            && let Some(summary) = std::fs::read(dir.join(MARKER)).ok().and_then(|b| serde_json::from_slice(&b).ok())
        {
            return Ok(Done::without_run(fate(sweep, &summary, args)?));
        }
    }
    // A sweep that is not shared has a claim on all of its folder.
    let claim = dir.as_deref().filter(|_| args.shard.is_some()).map(|d| Claim::folder(d, MARKER, true)).transpose();
    let options = Options { out: dir.as_deref(), timeline: false };
    let ran = claim.and_then(|_claim| {
        simulate(&resolved, registry, || sweep.trace(&resolved, say), &options, &progress::ProgressLine::new(true))
    });
    let Ran { summary, written, .. } = match ran {
        Ok(ran) => ran,
        Err(d) => return failed(d),
    };
    let value = serde_json::to_value(&summary).map_err(|e| Diag::run(format!("a summary is not JSON: {e}")))?;
    let fate = match summary.requests.none_served() {
        Some(d) => Fate::Rejected(d.file(&resolved.label)),
        None => fate(sweep, &value, args)?,
    };
    let (unwritten, notes) = match written {
        Ok(notes) => (None, notes),
        Err(d) => (Some(d), Vec::new()),
    };
    let of = |n: String| format!("points/{index:04}: {n}");
    Ok(Done { fate, unwritten, notes: notes.into_iter().map(of).collect() })
}

/// What the table wants of a summary, which an earlier call may have written.
fn fate(sweep: &Sweep, summary: &Value, args: &Args) -> Result<Fate> {
    known_metrics(sweep, summary).map_err(|d| d.file(&args.sweep))?;
    let count = |key: &str| metric(summary, key).and_then(Value::as_u64).unwrap_or(0);
    if count("requests.finished") == 0 && count("requests.rejected") > 0 {
        return Ok(Fate::Rejected(Diag::run("no request could be served")));
    }
    let metrics = sweep.file.metrics.iter().map(|m| metric(summary, m).cloned().unwrap_or(Value::Null)).collect();
    let plotted = sweep.plotted().and_then(|m| metric(summary, m)).and_then(Value::as_f64);
    let bottleneck = summary.get("bottleneck").and_then(Value::as_str).map(str::to_string);
    let shares = summary.get("basis").and_then(Value::as_object).into_iter().flatten();
    let mut basis: Vec<(String, f64)> = shares.filter_map(|(k, v)| Some((k.clone(), v.as_f64()?))).collect();
    basis.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(Fate::Ok(Cells { bottleneck, basis, metrics, plotted }))
}

impl Cells {
    /// The basis in words: shares of a percent and more.
    pub(super) fn basis(&self) -> String {
        let shown = self.basis.iter().filter(|(_, share)| *share >= 0.01);
        shown.map(|(name, share)| format!("{name} {:.0} %", 100.0 * share)).collect::<Vec<_>>().join(" ")
    }
}

/// A dotted key of a summary.
fn metric<'a>(summary: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(summary, |v, part| v.get(part))
}

/// Refuses metrics that no summary has; below what is `null` here, and among counters, another point may have keys.
fn known_metrics(sweep: &Sweep, summary: &Value) -> Result<()> {
    for m in sweep.file.metrics.iter().chain(&sweep.file.plot).filter(|m| !m.starts_with("counters.")) {
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
