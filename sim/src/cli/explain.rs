//! `moesim explain`.

use super::cache::routing_cache;
use super::costs::Costs;
use super::progress;
use super::terminal::{Format, interrupted, print};
use crate::engine::OpKind;
use crate::experiment;
use crate::explain::{ByKind, ByLayer, Explanation, Operation, explain};
use crate::metrics::tables::Tables;
use crate::output::json;
use crate::registry::Registry;
use crate::simulation::Simulation;
use moesim_core::{Diag, Result};
use std::fmt::Write;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Experiment file, or a preset's name (see `moesim list experiments`)
    experiment: String,
    /// Override a key, as in --set deployment.max_sequences=64
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seed of every random stream, like --set seed=N
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Which iteration, counted from 1; the last one if the run ends before
    #[arg(long, value_name = "N", default_value = "64")]
    iteration: u64,
    /// List the operations of this layer of the model, counted from 0
    #[arg(long, value_name = "N")]
    layer: Option<u16>,
    #[command(flatten)]
    costs: Costs,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// No progress on standard error
    #[arg(long)]
    quiet: bool,
}

/// Links and operations of a layer that the table lists; JSON has all.
const MOST: usize = 12;

pub(super) fn run(args: &Args, registry: &Registry) -> Result<()> {
    if args.iteration == 0 {
        return Err(Diag::input("iterations are counted from 1").place("--iteration").cure("choose 1 or more"));
    }
    let mut set = args.set.clone();
    set.extend(args.seed.map(|s| format!("seed={s}")));
    set.extend(args.costs.assignment());
    let resolved = experiment::load(&args.experiment, &set)?;
    let label =
        |d: Diag| if d.file.is_some() || d.place.as_deref() == Some("--layer") { d } else { d.file(&resolved.label) };
    let line = progress::ProgressLine::new(args.quiet);
    let cache = routing_cache()?;
    let open = || cache.open(resolved.routing(), &|text| line.say(text)).map(|o| o.trace);
    let mut s = Simulation::new(&resolved, registry, open, Tables::default()).map_err(label)?;
    let mut done = 0u64;
    let found = explain(&mut s, args.iteration, args.layer, &mut || {
        done += 1;
        if done.is_multiple_of(16) {
            line.say(format!("iteration {done}"));
        }
        !interrupted()
    });
    line.done();
    let found = found.map_err(label)?;
    print(&match args.format {
        Format::Json => json(&found)? + "\n",
        Format::Table => table(&resolved.experiment.name, &found),
    })
}

fn micros(s: f64) -> String {
    format!("{:.2}", 1e6 * s)
}

fn table(name: &str, x: &Explanation) -> String {
    let mut t = format!(
        "{name}, iteration {}{}: {} sequences, {} prompt and {} output tokens; {} us from {:.6} s on\n{} on {}\n",
        x.iteration,
        if x.last { " (the last)" } else { "" },
        x.sequences,
        x.prefill_tokens,
        x.decode_tokens,
        micros(x.time_s),
        x.begin_s,
        x.model,
        x.hardware
    );
    for (what, cost) in &x.costs {
        let _ = writeln!(t, "costs of {what}: {cost}");
    }
    let share = |s: f64| 100.0 * s / x.time_s.max(1e-300);
    let mut bounds: Vec<_> = x.bound_by.iter().collect();
    bounds.sort_by(|a, b| b.1.total_cmp(a.1));
    let bounds: Vec<String> = bounds.iter().map(|(b, s)| format!("{b} {:.1} %", share(**s))).collect();
    let _ = writeln!(t, "critical path bound by {}\n", bounds.join(", "));
    t += "operation     path us       %  bound by               count   mean us  longest us  where\n";
    for k in &x.operations {
        let _ = writeln!(t, "{}", kind(k, share(k.path_s)));
    }
    t += &layers(x);
    if !x.links.is_empty() {
        let _ = writeln!(t, "\nlink{:>36}  busy %  binds  bytes of", "bytes");
        for l in x.links.iter().take(MOST) {
            let parts: Vec<String> = l.by_kind.iter().map(|(k, b)| format!("{k} {b}")).collect();
            let _ =
                writeln!(t, "{:<24}{:>16}{:>8.1}{:>7}  {}", l.link, l.bytes, 100.0 * l.busy, l.binds, parts.join(", "));
        }
        if x.links.len() > MOST {
            let _ = writeln!(t, "... and {} links less busy (all with --format json)", x.links.len() - MOST);
        }
    }
    if let Some(operations) = &x.layer_operations {
        t += &listed(operations);
    }
    t + "\npath: the chain of operations that decides the iteration's time, its times sum to it. busy: bytes at the link's \
         achievable\nrate over the iteration's time. binds: collectives that the link bound.\n"
}

fn place(o: &Operation) -> String {
    let device = o.device.map_or(String::new(), |d| format!(", gpu{d}"));
    let link = o.link.as_ref().map_or(String::new(), |l| format!(", link {l}"));
    format!("layer {}{device}{link}", o.layer)
}

fn kind(k: &ByKind, share: f64) -> String {
    let mut bounds: Vec<_> = k.path_bound_by.iter().collect();
    bounds.sort_by(|a, b| b.1.total_cmp(a.1));
    let bound = match bounds.as_slice() {
        [] => "off the path".to_string(),
        [(one, _)] => (*one).to_string(),
        [(first, s), ..] => format!("{first} {:.0} %", 100.0 * **s / k.path_s.max(1e-300)),
    };
    format!(
        "{:<12}{:>9}{share:>8.1}  {bound:<20}{:>8}{:>10}{:>12}  {}",
        k.kind,
        micros(k.path_s),
        k.count,
        micros(k.mean_s),
        micros(k.longest.time_s),
        place(&k.longest)
    )
}

fn layers(x: &Explanation) -> String {
    let on_path = |k: &&'static str| x.layers.iter().any(|l| l.path.contains_key(k));
    let kinds: Vec<&'static str> = OpKind::ALL.map(OpKind::name).into_iter().filter(on_path).collect();
    let mut t = String::from("\nlayer   path us");
    kinds.iter().for_each(|k| {
        let _ = write!(t, "{k:>11}");
    });
    t += "  bound by  experts: longest / mean us  link\n";
    let row = |l: &ByLayer| {
        let mut r = format!("{:>5}{:>10}", l.layer, micros(l.path_s));
        kinds.iter().for_each(|k| {
            let _ = write!(r, "{:>11}", l.path.get(k).map_or("-".into(), |s| micros(*s)));
        });
        let experts = l
            .experts
            .as_ref()
            .map_or(String::new(), |e| format!("{} / {} (gpu{})", micros(e.longest_s), micros(e.mean_s), e.device));
        let line = format!("{r}  {:<10}{experts:<28}{}", l.bound_by.unwrap_or("-"), l.link.as_deref().unwrap_or(""));
        line.trim_end().to_string() + "\n"
    };
    x.layers.iter().for_each(|l| t += &row(l));
    t
}

/// The operations of a layer, the longest of each kind first.
fn listed(operations: &[Operation]) -> String {
    let mut t = String::from("\noperation   start us   time us  bound by    path  where\n");
    let mut kinds: Vec<&'static str> = Vec::new();
    operations.iter().for_each(|o| {
        if !kinds.contains(&o.kind) {
            kinds.push(o.kind);
        }
    });
    for kind in kinds {
        let mut own: Vec<&Operation> = operations.iter().filter(|o| o.kind == kind).collect();
        own.sort_by(|a, b| b.time_s.total_cmp(&a.time_s));
        for o in own.iter().take(MOST) {
            let critical = if o.critical { "yes" } else { "" };
            let (start, time) = (micros(o.start_s), micros(o.time_s));
            let _ = writeln!(t, "{kind:<10}{start:>10}{time:>10}  {:<12}{critical:<6}{}", o.bound_by, place(o));
        }
        if own.len() > MOST {
            let _ = writeln!(t, "{kind:<10} ... and {} shorter ones (all with --format json)", own.len() - MOST);
        }
    }
    t
}
