//! `moesim trace`.

use super::{Format, print};
use crate::output::json;
use moesim_core::{Diag, Result};
use moesim_traces::Trace;
use moesim_traces::import::{self, Options, Phase, importers};
use moesim_traces::stats::info;
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read another tool's trace into moesim's container
    Import(ImportArgs),
    /// Say what a trace holds
    Info(InfoArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// A file or folder
    source: PathBuf,
    /// The container to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The source's format [default: detected]
    #[arg(long)]
    format: Option<String>,
    /// The model: a preset or file, which sets layers and experts and must agree with the source
    #[arg(long)]
    model: Option<String>,
    /// Routed experts a layer, where no model says so
    #[arg(long)]
    experts: Option<u32>,
    /// Experts a token, where the source leaves it open
    #[arg(long)]
    top_k: Option<u32>,
    /// The array of an archive [default: expert_ids, or the only one with three dimensions]
    #[arg(long)]
    array: Option<String>,
    /// Numbers of the MoE layers, comma separated [default: the model's, or 0, 1, 2, ...]
    #[arg(long, value_delimiter = ',')]
    layers: Option<Vec<u32>>,
    /// Where the selections come from, for the record [default: the file's name]
    #[arg(long)]
    source_name: Option<String>,
    /// The data's licence, for the record
    #[arg(long)]
    licence: Option<String>,
    /// Rows without a mark are prompt tokens, not output tokens
    #[arg(long)]
    prefill: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct InfoArgs {
    /// A trace in moesim's container
    trace: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(super) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Import(a) => {
            let options = Options {
                array: a.array.clone(),
                model: a.model.clone(),
                experts: a.experts,
                k: a.top_k,
                layer_numbers: a.layers.clone(),
                source: a.source_name.clone(),
                licence: a.licence.clone(),
                phase: if a.prefill { Phase::Prefill } else { Phase::Decode },
            };
            let names: Vec<&str> = importers().iter().map(|i| i.name()).collect();
            if let Some(f) = &a.format
                && !names.contains(&f.as_str())
            {
                return Err(moesim_core::diag::unknown("trace format", f, &names));
            }
            let s = import::import(&a.source, a.format.as_deref(), &options, &a.out)?;
            print(&format!(
                "{}: {} sequences, {} rows, {:.1} MB\n",
                a.out.display(),
                s.sequences,
                s.rows,
                s.bytes as f64 / 1e6
            ))
        }
        Command::Info(a) => {
            let trace = Trace::open(&a.trace)?;
            let info = info(&trace)?;
            let text = json(&info)?;
            if a.format == Format::Json {
                return print(&(text + "\n"));
            }
            let value: serde_json::Value =
                serde_json::from_str(&text).map_err(|e| Diag::run(format!("the description is not JSON: {e}")))?;
            let mut out = String::new();
            for (key, v) in value.as_object().into_iter().flatten() {
                let v = v.as_str().map_or_else(|| v.to_string(), str::to_string);
                out += &format!("{:<22}{v}\n", key.replace('_', " "));
            }
            print(&out)
        }
    }
}
