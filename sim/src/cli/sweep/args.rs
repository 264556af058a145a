//! What `moesim sweep` is told.

use crate::cli::costs::Costs;
use crate::cli::force::Force;
use crate::cli::terminal::Format;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Sweep file, or a preset's name (machines)
    pub(super) sweep: String,
    /// Write every point's run directory, the table and the plot here; points have plots of their own if the sweep sets
    /// output.plots
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) force: Force,
    #[command(flatten)]
    pub(super) costs: Costs,
    /// Points at a time [default: one a core]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// Go on where an earlier call of the same sweep into the same folder stopped
    #[arg(long, requires = "out", conflicts_with = "force")]
    pub(super) resume: bool,
    /// Only every N-th point, from the I-th on: shards share one --out; collect them with --resume
    #[arg(long, value_name = "I/N", requires = "out", conflicts_with = "force", value_parser = shard)]
    pub(super) shard: Option<(usize, usize)>,
    /// The one or two axes of the plot [default: all, if there are no more]
    #[arg(long, value_name = "KEY[,KEY]", requires = "out", value_delimiter = ',')]
    pub(super) plot: Vec<String>,
    /// How to print the table
    #[arg(long, value_enum, default_value = "table")]
    pub(super) format: Format,
    /// No progress on standard error
    #[arg(long)]
    pub(super) quiet: bool,
}

/// Reads `I/N`.
fn shard(text: &str) -> std::result::Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    parts.filter(|&(i, n)| 1 <= i && i <= n).ok_or_else(|| "write it as 1/4, 2/4, 3/4 or 4/4".to_string())
}
