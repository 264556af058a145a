//! `moesim trace`.

mod counts;
mod stats;
mod synth;
mod written;

use super::force::Force;
use super::terminal::{Format, print};
use crate::output::json;
use moesim_core::{Diag, Result};
use moesim_traces::Trace;
use moesim_traces::edit::{Selection, merge, slice};
use moesim_traces::export::exporter;
use moesim_traces::import::{self, Options, Phase, importers};
use moesim_traces::stats::info;
use std::ops::Range;
use std::path::PathBuf;
use written::written;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read another tool's trace into moesim's container
    Import(ImportArgs),
    /// Say what a trace holds
    Info(InfoArgs),
    /// Say how often each expert was selected, out of other tools' counts or a trace
    Counts(counts::Args),
    /// Say what a trace's routing is like, beside independent draws
    Stats(stats::Args),
    /// Draw a synthetic trace, like a recorded one or for a model
    Synth(synth::Args),
    /// Write a trace in a form that other tools read
    Export(ExportArgs),
    /// Write some of a trace's sequences to a trace of their own
    Slice(SliceArgs),
    /// Write the sequences of several traces of one model to one trace, numbered from 0
    Merge(MergeArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// A file or folder
    source: PathBuf,
    /// The container to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
    /// The source's format: npz, sglang, tensorrt-llm, vllm, wafer-json, json-lines, csv or parquet
    /// [default: detected]
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
    /// The array of an archive [default: expert_ids, or the only one with three or four dimensions]
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

#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// A trace in moesim's container
    trace: PathBuf,
    /// The form: json-lines, csv, wafer-json or, in builds that have it, parquet
    #[arg(long)]
    format: String,
    /// The file to write; a folder for wafer-json
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
}

#[derive(Debug, clap::Args)]
#[group(id = "selection", required = true, multiple = false)]
pub(super) struct SelectionArgs {
    /// The sequences numbered A to B - 1
    #[arg(long, value_name = "A..B", value_parser = range)]
    sequences: Option<Range<u32>>,
    /// The first N sequences
    #[arg(long, value_name = "N")]
    first: Option<usize>,
}

#[derive(Debug, clap::Args)]
pub(super) struct SliceArgs {
    /// A trace in moesim's container
    trace: PathBuf,
    #[command(flatten)]
    selection: SelectionArgs,
    /// The container to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
}

#[derive(Debug, clap::Args)]
pub(super) struct MergeArgs {
    /// Traces in moesim's container, in this order
    #[arg(required = true)]
    traces: Vec<PathBuf>,
    /// The container to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
}

fn range(text: &str) -> std::result::Result<Range<u32>, String> {
    let ends = text.split_once("..").and_then(|(a, b)| Some(a.trim().parse().ok()?..b.trim().parse().ok()?));
    let rule = "write A..B with two whole numbers, A below B, for example 0..100";
    ends.filter(|r: &Range<u32>| !r.is_empty()).ok_or_else(|| rule.to_string())
}

/// What a trace holds: its figures, and what of them is known by the trace alone.
fn describe(trace: &Trace, format: Format) -> Result<String> {
    let info = info(trace)?;
    let text = json(&info)?;
    let mut value: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|e| Diag::run(format!("the description is not JSON: {e}")))?;
    let numbers = &trace.meta().layer_numbers;
    let last = numbers.len() - 1;
    let shown = [0, last / 2, last].map(|l| numbers[l]);
    value.insert("gate_weights".into(), trace.has_weights().into());
    if format == Format::Json {
        value.insert("layer_numbers".into(), numbers.clone().into());
        value.insert("imbalance_layers".into(), shown.to_vec().into());
        return Ok(json(&value)? + "\n");
    }
    value.insert("layer_numbers".into(), ranges(numbers).into());
    let each = shown.iter().zip(info.imbalance).map(|(l, x)| format!("{x:.2} (layer {l})"));
    value.insert("imbalance".into(), each.collect::<Vec<_>>().join(", ").into());
    let weights = if trace.has_weights() { "there" } else { "none" };
    value.insert("gate_weights".into(), weights.into());
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    Ok(value.iter().map(|(key, v)| format!("{:<22}{}\n", key.replace('_', " "), text(v))).collect())
}

/// Ascending numbers, runs of them as `3-60`.
fn ranges(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let run = |r: &[u32]| match r {
        [first, .., last] => format!("{first}-{last}"),
        one => one.iter().map(u32::to_string).collect(),
    };
    runs.map(run).collect::<Vec<_>>().join(", ")
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
            let _claim = a.force.file(Some(&a.out))?;
            let s = import::import(&a.source, a.format.as_deref(), &options, &a.out)?;
            written(&a.out, &s, "")
        }
        Command::Export(a) => {
            // A mistyped format is said before a long trace is opened.
            let exporter = exporter(&a.format)?;
            let _claim = match exporter.marker() {
                Some(marker) => a.force.folder(Some(&a.out), marker)?,
                None => a.force.file(Some(&a.out))?,
            };
            let trace = Trace::open(&a.trace)?;
            exporter.export(&trace, &a.out)?;
            print(&format!(
                "{}: {} sequences, {} rows; left out: {}\n",
                a.out.display(),
                trace.sequences(),
                trace.rows(),
                exporter.loses()
            ))
        }
        Command::Stats(a) => stats::run(a),
        Command::Synth(a) => synth::run(a),
        Command::Slice(a) => {
            let _claim = a.force.file(Some(&a.out))?;
            let s = &a.selection;
            let selection =
                s.sequences.clone().map_or(Selection::First(s.first.unwrap_or_default()), Selection::Numbers);
            written(&a.out, &slice(&Trace::open(&a.trace)?, &selection, &a.out)?, "")
        }
        Command::Merge(a) => {
            let _claim = a.force.file(Some(&a.out))?;
            let traces = a.traces.iter().map(|p| Trace::open(p)).collect::<Result<Vec<_>>>()?;
            let summary = merge(&traces, &a.out)?;
            written(&a.out, &summary, &format!(" renumbered 0 to {}", summary.sequences.saturating_sub(1)))
        }
        Command::Counts(a) => counts::run(a),
        Command::Info(a) => {
            let trace = Trace::open(&a.trace)?;
            print(&describe(&trace, a.format)?)
        }
    }
}
