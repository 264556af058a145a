//! The command line. [`main`] is all of the binary; a user's own crate calls it with a registry of its own.
//!
//! A file or folder is a command. Below all of them are [`terminal`], [`progress`], [`force`], [`costs`] and [`cache`], and [`simulate`] below those
//! that run experiments: no command imports another, and none this file.

mod cache;
mod calibrate;
mod costs;
mod explain;
mod force;
mod inspect;
mod model;
mod place;
mod progress;
mod run;
mod simulate;
mod sweep;
mod table;
mod terminal;
mod trace;
mod validate;

use crate::registry::Registry;
use clap::{CommandFactory, Parser, Subcommand};
use moesim_core::{Diag, Result};
use std::process::ExitCode;

/// Simulates hardware that serves mixture-of-experts language models.
#[derive(Debug, Parser)]
#[command(name = "moesim", version, max_term_width = 100)]
struct Cli {
    /// Threads to use; the results do not depend on it [default: one a core]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Draw routing anew: neither that of earlier runs nor what ships is used, and none is kept [the folder:
    /// $MOESIM_CACHE, else moesim/routing where the system keeps caches]
    #[arg(long, global = true)]
    no_cache: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulate one experiment
    Run(run::Args),
    /// Simulate a grid of experiments
    Sweep(sweep::Args),
    /// Import, inspect, export and cut expert-selection traces
    #[command(subcommand)]
    Trace(trace::Command),
    /// Import model architectures
    #[command(subcommand)]
    Model(model::Command),
    /// Place experts, prove how good it is, compare methods, and judge placements
    Place(Box<place::Args>),
    /// Measure kernels, fit hardware profiles to them, and check these
    #[command(subcommand)]
    Calibrate(calibrate::Command),
    /// Say where the time of an iteration goes, and what binds
    Explain(explain::Args),
    /// Put simulated beside published figures
    Validate(validate::Args),
    /// Draw the plots of a run directory
    Plot(inspect::PlotArgs),
    /// List what there is: hardware, models, policies, experiments, plots
    List(inspect::ListArgs),
    /// Print a preset's file, to copy and change
    Show(inspect::ShowArgs),
    /// Print the JSON schema of a kind of file
    Schema(inspect::SchemaArgs),
    /// Print completions for a shell
    Completions(inspect::CompletionsArgs),
}

/// Runs the command line of this process: exit status 0 done, 1 a run failed, 2 the input was wrong.
pub fn main(registry: Registry) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            if e.use_stderr() && e.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                eprintln!("{}", one_line(&e.to_string()));
            } else {
                let _ = e.print();
            }
            return ExitCode::from(e.exit_code() as u8);
        }
    };
    // Runs and generators stop at the next occasion; other commands, and a second Ctrl-C, end at once.
    if matches!(
        cli.command,
        Command::Run(_)
            | Command::Sweep(_)
            | Command::Explain(_)
            | Command::Validate(_)
            | Command::Place(_)
            | Command::Trace(trace::Command::Synth(_))
            | Command::Calibrate(calibrate::Command::Measure(_))
    ) {
        terminal::stop_when_asked();
    }
    match dispatch(cli, &registry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}

/// What is wrong with the command line, as every other error: in one line, without the usage.
fn one_line(text: &str) -> String {
    let told = |l: &&str| !l.is_empty() && !l.starts_with("Usage:") && !l.starts_with("For more information");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(told).collect();
    let lines: Vec<&str> = lines.iter().map(|l| l.strip_prefix("tip: ").unwrap_or(l)).collect();
    lines.join("; ").replace(":; ", ": ") + "; see --help"
}

fn dispatch(cli: Cli, registry: &Registry) -> Result<()> {
    if let Some(n) = cli.threads {
        if n == 0 || n > 1024 {
            return Err(Diag::input(format!("--threads {n} is out of range")).cure("choose 1 to 1024"));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build_global();
        pool.map_err(|e| Diag::run(format!("no threads: {e}")))?;
    }
    cache::without(cli.no_cache);
    match cli.command {
        Command::Run(args) => run::run(&args, registry),
        Command::Sweep(args) => sweep::run(&args, registry),
        Command::Trace(command) => trace::run(&command),
        Command::Model(command) => model::run(&command),
        Command::Place(args) => place::run(&args, registry),
        Command::Calibrate(command) => calibrate::run(&command, registry),
        Command::Explain(args) => explain::run(&args, registry),
        Command::Validate(args) => validate::run(&args, registry),
        Command::Plot(args) => inspect::plot(&args),
        Command::List(args) => inspect::list(&args, registry),
        Command::Show(args) => inspect::show(&args, registry),
        Command::Schema(args) => inspect::schema(&args, registry),
        Command::Completions(args) => inspect::completions(&args, &mut Cli::command()),
    }
}
