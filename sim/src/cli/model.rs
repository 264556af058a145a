//! `moesim model`.

use super::force::Force;
use super::print;
use moesim_core::Result;
use moesim_core::output::AtomicFile;
use moesim_traces::model::import_config;
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write the model file of a Hugging Face config.json
    Import(ImportArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The configuration
    config: PathBuf,
    /// The model's name [default: the folder's]
    #[arg(long)]
    name: Option<String>,
    /// Where to write the model file [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
}

pub(super) fn run(command: &Command) -> Result<()> {
    let Command::Import(a) = command;
    let _claim = a.force.file(a.out.as_deref())?;
    let text = import_config(&a.config, a.name.as_deref())?;
    match &a.out {
        Some(out) => AtomicFile::write(out, text.as_bytes()),
        None => print(&text),
    }
}
