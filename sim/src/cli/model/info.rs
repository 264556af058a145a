//! `moesim model info`: what a model has, what a token costs, what a device holds, what a trace activates.

use super::words;
use crate::cli::terminal::{Format, print};
use crate::output::json;
use moesim_core::{Diag, Result};
use moesim_hwmodels::Hardware;
use moesim_traces::Trace;
use moesim_traces::model::{Layer, Model};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InfoArgs {
    /// A preset, or a model file
    model: String,
    /// Count over a trace of this model: distinct experts, selections and activated bytes a token
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Say what each of so many devices holds
    #[arg(long, value_name = "N", conflicts_with = "hardware")]
    devices: Option<u32>,
    /// Say what each device of this hardware holds
    #[arg(long, value_name = "NAME")]
    hardware: Option<String>,
    /// Devices that share the heads of attention and dense layers
    #[arg(long, value_name = "N", default_value = "1")]
    attention_tp: u32,
    /// Devices that share each expert
    #[arg(long, value_name = "N", default_value = "1")]
    expert_tp: u32,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Weights of the fullest device, with experts dealt evenly and none of them twice.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct PerDevice {
    devices: u32,
    attention_tp: u32,
    expert_parallel: u32,
    expert_tp: u32,
    /// Attention, dense layers, embedding, head, routers and shared experts.
    common_bytes: u64,
    expert_bytes: u64,
    /// Of the hardware, if it was named.
    memory_bytes: Option<u64>,
}

/// What the selections of a trace activate.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct OverTrace {
    rows: u64,
    /// Experts of a layer that the trace selects at all: fewest, mean, most over layers.
    distinct_experts: [f64; 3],
    /// Selections of a token in a layer that are experts with weights, in the mean.
    selections_per_layer: f64,
    /// Bytes of routed experts that a token activates over all layers, in the mean.
    expert_bytes_per_token: f64,
    /// The same with all weights that every token passes.
    bytes_per_token: f64,
}

pub(super) fn run(a: &InfoArgs) -> Result<()> {
    let model = Model::load(&a.model)?;
    let facts = model.facts();
    let per_device = devices(a)?.map(|(n, memory)| per_device(&model, a, n, memory)).transpose()?;
    let over_trace = a.trace.as_ref().map(|p| over(&model, &Trace::open(p)?).map_err(|d| d.file(p))).transpose()?;
    if a.format == Format::Json {
        let value = serde_json::json!({ "model": facts, "per_device": per_device, "trace": over_trace });
        return print(&(json(&value)? + "\n"));
    }
    let mut text = format!("{}: {}\n", words::plain(&facts.name), words::parameters(&facts));
    let mut row = |name: &str, what: String| text += &format!("{name:<12}{what}\n");
    row("source", words::plain(&facts.source));
    row("layers", format!("{}, {} of them with experts", facts.layers, facts.moe_layers));
    row("weights", words::bytes(facts.weight_bytes));
    for c in &facts.classes {
        row(
            &format!("  {}", c.class),
            format!(
                "{:>9} parameters, {:>9} of a token, {:>7} bits, {:>10}",
                words::count(c.parameters as f64),
                words::count(c.active as f64),
                words::bits(c.bits),
                words::bytes(c.bytes)
            ),
        );
    }
    row(
        "a token",
        format!(
            "{} FLOP in weights and {} FLOP for each attended token",
            words::count(facts.flop_per_token),
            words::count(facts.flop_per_attended_token)
        ),
    );
    row("KV", words::kv(&facts).trim_start_matches("KV ").to_string());
    if let Some(d) = &per_device {
        let all = d.common_bytes + d.expert_bytes;
        let of = d.memory_bytes.map_or(String::new(), |m| {
            let fits = if all <= m { "" } else { ", which does not fit" };
            format!(" of {}{fits}", words::bytes(m))
        });
        row(
            "a device",
            format!(
                "{}{of}: {} of experts, {} of the rest ({} devices, attention TP {}, EP {} x expert TP {})",
                words::bytes(all),
                words::bytes(d.expert_bytes),
                words::bytes(d.common_bytes),
                d.devices,
                d.attention_tp,
                d.expert_parallel,
                d.expert_tp
            ),
        );
    }
    if let Some(t) = &over_trace {
        let [least, mean, most] = t.distinct_experts;
        row(
            "trace",
            format!("{} tokens, {least:.0} to {most:.0} experts of a layer selected (mean {mean:.1})", t.rows),
        );
        row("", format!("{:.2} selections with weights a token and layer", t.selections_per_layer));
        row(
            "",
            format!(
                "{} of experts a token, {} with all that every token passes",
                words::bytes(t.expert_bytes_per_token as u64),
                words::bytes(t.bytes_per_token as u64)
            ),
        );
    }
    print(&text)
}

/// How many devices, and the memory of each if it is known.
fn devices(a: &InfoArgs) -> Result<Option<(u32, Option<u64>)>> {
    if let Some(name) = &a.hardware {
        let hardware = Hardware::load(name)?;
        return Ok(Some((hardware.devices() as u32, Some(hardware.usable_memory().0))));
    }
    Ok(a.devices.map(|n| (n, None)))
}

fn per_device(model: &Model, a: &InfoArgs, devices: u32, memory_bytes: Option<u64>) -> Result<PerDevice> {
    for (key, n) in [("--attention-tp", a.attention_tp), ("--expert-tp", a.expert_tp)] {
        if n == 0 || devices == 0 || !devices.is_multiple_of(n) {
            return Err(Diag::input(format!("{n} is no divisor of {devices} devices"))
                .place(key)
                .cure("give a number of devices that divides all"));
        }
    }
    let expert_parallel = devices / a.expert_tp;
    let layers = |of: &dyn Fn(&Layer) -> u64| model.encoder.iter().chain(&model.decoder).map(of).sum::<u64>();
    let latent = layers(&|l| l.attention_whole_bytes(model));
    let split = layers(&|l| l.attention_weight_bytes(model) + l.dense_weight_bytes(model)) - latent
        + model.embedding_bytes()
        + model.head_bytes();
    let whole = latent + layers(&|l| l.router_weight_bytes(model) + l.shared_weight_bytes(model));
    let etp = u64::from(a.expert_tp);
    let expert_bytes = layers(&|l| {
        let Some(moe) = l.moe() else { return 0 };
        let each = u64::from(moe.experts.div_ceil(expert_parallel));
        let largest = (0..moe.experts).map(|e| l.expert_weight_bytes(model, e)).max().unwrap_or(0);
        let groups = u64::from(moe.groups.div_ceil(expert_parallel));
        each * largest.div_ceil(etp)
            + groups * l.group_weight_bytes(model).div_ceil(etp)
            + l.base_weight_bytes(model).div_ceil(etp)
    });
    Ok(PerDevice {
        devices,
        attention_tp: a.attention_tp,
        expert_parallel,
        expert_tp: a.expert_tp,
        common_bytes: split.div_ceil(u64::from(a.attention_tp)) + whole,
        expert_bytes,
        memory_bytes,
    })
}

fn over(model: &Model, trace: &Trace) -> Result<OverTrace> {
    let layers: Vec<&Layer> = model.decoder.iter().filter(|l| l.moe().is_some()).collect();
    let ids = layers.iter().filter_map(|l| l.moe()).map(|m| m.ids() as usize).max().unwrap_or(0);
    if trace.layers() != layers.len() || trace.experts() != ids {
        return Err(Diag::input(format!(
            "has {} MoE layers and {} experts; {} has {} and {ids}",
            trace.layers(),
            trace.experts(),
            model.name,
            layers.len()
        ))
        .place("metadata")
        .cure("name the model that the trace was recorded on"));
    }
    let (k, width) = (trace.k(), trace.width());
    let mut counts = vec![0u64; layers.len() * ids];
    for i in 0..trace.sequences() {
        trace.check_sequence(i)?;
        for row in trace.rows_of(i).chunks_exact(width) {
            for (l, of_layer) in row.chunks_exact(k).enumerate() {
                for id in of_layer.iter().filter(|id| **id != u16::MAX) {
                    counts[l * ids + usize::from(*id)] += 1;
                }
            }
        }
    }
    let distinct = |l: usize| counts[l * ids..(l + 1) * ids].iter().filter(|n| **n > 0).count() as f64;
    let all: Vec<f64> = (0..layers.len()).map(distinct).collect();
    let (mut selections, mut bytes) = (0u64, 0.0);
    for (l, layer) in layers.iter().enumerate() {
        let experts = layer.moe().map_or(0, |m| m.experts as usize);
        for e in 0..experts {
            let n = counts[l * ids + e];
            selections += n;
            bytes += n as f64 * layer.expert_weight_bytes(model, e as u32) as f64;
        }
    }
    let rows = trace.rows().max(1) as f64;
    let facts = model.facts();
    let shared = ["attention", "router", "shared", "dense", "head"];
    let always: u64 = facts.classes.iter().filter(|c| shared.contains(&c.class)).map(|c| c.bytes).sum();
    let tied = if model.tied_embedding { model.embedding_bytes() } else { 0 };
    let per_token = bytes / rows;
    Ok(OverTrace {
        rows: trace.rows(),
        distinct_experts: [
            all.iter().copied().fold(f64::INFINITY, f64::min),
            all.iter().sum::<f64>() / all.len().max(1) as f64,
            all.iter().copied().fold(0.0, f64::max),
        ],
        selections_per_layer: selections as f64 / rows / layers.len().max(1) as f64,
        expert_bytes_per_token: per_token,
        bytes_per_token: per_token + (always + tied) as f64,
    })
}
