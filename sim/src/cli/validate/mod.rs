//! `moesim validate`: published figures as cases; [`points`] are served points.

mod points;
mod points_table;

use crate::cli::cache::routing_cache;
use crate::cli::force::Force;
use crate::cli::progress;
use crate::cli::simulate::{Options, simulate};
use crate::cli::terminal::{Format, note, print};
use crate::output::json;
use crate::registry::Registry;
use crate::validate::{CaseOutcome, Status, experiments, files, kernel, outcome, resolve};
use moesim_core::output::Manifest;
use moesim_core::{Diag, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only figures whose number or system matches; * stands for any letters
    #[arg(long, value_name = "GLOB")]
    id: Vec<String>,
    /// Keep the run directories of the experiments here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// Instead: measured servers, a CSV table with a point a row, each beside a simulation of it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "out", "force"])]
    points: Option<PathBuf>,
    #[command(flatten)]
    of_points: points::Options,
    /// How to print the figures
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// No progress on standard error
    #[arg(long)]
    quiet: bool,
}

pub(in crate::cli) fn run(args: &Args, registry: &Registry) -> Result<()> {
    if let Some(file) = &args.points {
        return points::run(file, args, registry);
    }
    // The folder holds folders of runs, each with a marker of its own.
    let _claim = args.force.folder(args.out.as_deref(), Manifest::NAME)?;
    let line = progress::ProgressLine::new(args.quiet);
    let (cache, say) = (routing_cache()?, |text| line.say(text));
    let mut outcomes: Vec<CaseOutcome> = Vec::new();
    for (label, file) in files()? {
        let wanted = |id: &str| {
            let one = |g: &String| matches(g, id) || matches(g, label) || matches(g, &file.system);
            args.id.is_empty() || args.id.iter().any(one)
        };
        let mut summaries = BTreeMap::new();
        for name in experiments(&file, &|c| wanted(&c.id)) {
            line.say(format!("{label}/{name}"));
            if let Some(summary) = kernel(&file, label, &name)? {
                summaries.insert(name, summary);
                continue;
            }
            let mut resolved = resolve(&file, label, &name)?;
            let placed = file.placements.get(&name).map(|p| p.place(&mut resolved, registry, &cache, &say));
            let placed = placed.transpose().map_err(|d| d.file(label).place(format!("placements.{name}")))?;
            let out = args.out.as_ref().map(|o| o.join(label).join(&name));
            if let Some(parent) = out.as_deref().and_then(|o| o.parent()) {
                std::fs::create_dir_all(parent)
                    .map_err(|e| Diag::run(format!("cannot make the folder: {e}")).file(parent))?;
            }
            let options = Options { out: out.as_deref(), timeline: false };
            let open = || placed.map_or_else(|| cache.open(resolved.routing(), &say), Ok);
            let ran = simulate(&resolved, registry, open, &options, &line)?;
            ran.written?.iter().for_each(|n| note(n));
            let summary = serde_json::to_value(&ran.summary).map_err(|e| Diag::run(format!("no summary: {e}")))?;
            summaries.insert(name, summary);
        }
        for case in file.case.iter().filter(|c| wanted(&c.id)) {
            outcomes.push(outcome(&file, label, case, &|name| summaries.get(name).cloned())?);
        }
    }
    line.done();
    if outcomes.is_empty() {
        let problem = format!("no figure matches {}", args.id.join(", "));
        return Err(Diag::input(problem).place("--id").cure("run `moesim validate` for all numbers"));
    }
    print(&match args.format {
        Format::Json => json(&outcomes)? + "\n",
        Format::Table => table(&outcomes),
    })
}

fn table(outcomes: &[CaseOutcome]) -> String {
    let mut t = format!("{:<6}{:<58}{:>12} {:>12}{:>9}  {}\n", "", "", "published", "simulated", "error", "status");
    let mut system = "";
    for o in outcomes {
        if o.system != system {
            system = &o.system;
            let _ = writeln!(t, "\n{system}");
        }
        let quantity = format!("{} [{}]", o.quantity, o.unit);
        let number = |x: f64| if x.abs() >= 1000.0 { format!("{x:.0}") } else { format!("{x:.2}") };
        let simulated = o.simulated.map_or("-".into(), number);
        let error = o.relative_error.map_or("-".into(), |e| format!("{:+.1} %", 100.0 * e));
        let note = match (&o.note, o.status) {
            (Some(note), _) => format!(": {note}"),
            (None, _) => String::new(),
        };
        let status = status(o.status);
        let _ = writeln!(
            t,
            "{:<6}{quantity:<58}{:>12} {simulated:>12}{error:>9}  {status}{note}",
            o.id,
            number(o.published)
        );
    }
    let count = |s: Status| outcomes.iter().filter(|o| o.status == s).count();
    let words =
        |of: &[Status]| of.iter().map(|s| format!("{} {}", count(*s), status(*s))).collect::<Vec<_>>().join(", ");
    let counted = [Status::Ok, Status::Miss, Status::Chance, Status::InSample, Status::NotModelled, Status::NoData];
    let others = [Status::Identity, Status::Reprint];
    let _ = writeln!(
        t,
        "\n{} figures: {}; ok: within {:.0} %; not among them: {}",
        counted.iter().map(|s| count(*s)).sum::<usize>(),
        words(&counted),
        100.0 * crate::validate::OK,
        words(&others)
    );
    t
}

fn status(s: Status) -> &'static str {
    match s {
        Status::Ok => "ok",
        Status::Miss => "miss",
        Status::Chance => "chance",
        Status::InSample => "in sample",
        Status::Identity => "identity",
        Status::Reprint => "reprint",
        Status::NotModelled => "not modelled yet",
        Status::NoData => "no data",
    }
}

/// Whether `text` matches a pattern in which * stands for any letters; case does not matter.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_by_hand() {
        for (pattern, text, yes) in [
            ("R362", "R362", true),
            ("r36*", "R362", true),
            ("R36", "R362", false),
            ("*tpot*", "DeepSeek TPOT bound", true),
            ("*a*a", "aa", true),
            ("*a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), yes, "{pattern} {text}");
        }
    }
}
