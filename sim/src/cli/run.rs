//! `moesim run`.

use super::cache::routing_cache;
use super::costs::Costs;
use super::force::Force;
use super::simulate::{Options, Ran, simulate};
use super::terminal::{Format, note, print};
use super::{progress, table};
use crate::experiment;
use crate::output::{self, MARKER};
use crate::registry::Registry;
use moesim_core::Result;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Experiment file, or a preset's name (see `moesim list experiments`)
    experiment: String,
    /// Override a key, as in --set deployment.max_sequences=64 or --set hardware.device.memory.bandwidth="6.7 TB/s"
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write the run directory (summary, tables, plots) here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    costs: Costs,
    /// Seed of every random stream, like --set seed=N
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u64>,
    /// How to print the summary
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Also write timeline.json (the first iterations) for Perfetto; needs --out
    #[arg(long, requires = "out")]
    timeline: bool,
    /// No progress on standard error
    #[arg(long)]
    quiet: bool,
}

pub(super) fn run(args: &Args, registry: &Registry) -> Result<()> {
    let mut set = args.set.clone();
    set.extend(args.seed.map(|s| format!("seed={s}")));
    set.extend(args.costs.assignment());
    let resolved = experiment::load(&args.experiment, &set)?;
    let _claim = args.force.folder(args.out.as_deref(), MARKER)?;
    let line = progress::ProgressLine::new(args.quiet);
    let options = Options { out: args.out.as_deref(), timeline: args.timeline };
    let cache = routing_cache()?;
    let open = || cache.open(resolved.routing(), &|text| line.say(text));
    let Ran { summary, timing, written } = simulate(&resolved, registry, open, &options, &line)?;
    line.done();
    let out = args.out.as_deref().filter(|_| written.is_ok());
    let printed = match args.format {
        Format::Json => {
            // The timing goes last, before the closing brace: the rest stays as in summary.json.
            let text = output::json(&summary)?;
            let body = text.trim_end_matches(['}', '\n']);
            let timing = output::json(&timing)?.replace('\n', "\n  ");
            print(&format!("{body},\n  \"timing\": {timing}\n}}\n"))
        }
        Format::Table => print(&table::summary(&summary, &timing, out)),
    };
    written?.iter().for_each(|n| note(n));
    printed?;
    summary.requests.none_served().map_or(Ok(()), |d| Err(d.file(&resolved.label)))
}
