//! LLMServingSim's tables of a layer's times under vLLM: dense GEMMs, experts, and what streams.

use super::moe::{PeaksOf, widths};
use super::{Group, Label, MeasurementTable, group};
use crate::form::{GemmLoad, GemmRow, StreamRow};
use moesim_core::{Diag, Result};

/// What the tables leave out: the model that was served, on one device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served<'a> {
    /// The device.
    pub device: &'a str,
    /// The precision of weights and activations.
    pub precision: &'a str,
    /// Model width.
    pub hidden: f64,
    /// Query heads, key and value heads, and their width.
    pub heads: [f64; 3],
    /// Tokens known.
    pub vocabulary: f64,
    /// Experts a token, and the width of one.
    pub experts: [f64; 2],
}

/// Layers that are no GEMMs.
const STREAMING: [&str; 6] = ["embedding", "layernorm", "final_layernorm", "qk_norm", "rotary_emb", "sampler"];
const GEMMS: [&str; 3] = ["qkv_proj", "o_proj", "lm_head"];

/// What a `dense` or `per_sequence` table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// GEMMs.
    pub gemms: bool,
    /// Layers that stream and whose bytes are known, by tokens.
    pub streams: bool,
}

/// Looks which layers a table has.
///
/// # Errors
/// No column of layers, a layer that is not known.
pub fn layers(table: &MeasurementTable) -> Result<Layers> {
    let layer = table.column("layer")?;
    let mut found = Layers { gemms: false, streams: false };
    for row in 0..table.rows() {
        match table.text(row, layer) {
            name if GEMMS.contains(&name) => found.gemms = true,
            "sampler" => {}
            name if STREAMING.contains(&name) => found.streams |= table.find("tokens").is_some(),
            _ => return Err(unknown(table, row, layer)),
        }
    }
    Ok(found)
}

fn element_bytes(served: &Served) -> Result<[f64; 3]> {
    let [weight, activation] = widths(served.precision).ok_or_else(|| {
        Diag::input(format!("{:?} is not a precision that is known", served.precision)).cure("write bf16 or fp8")
    })?;
    Ok([activation, weight, 2.0])
}

/// Reads `dense` or `per_sequence` tables. Weights may lie in L2 since the call before: the form is
/// [`crate::form::GemmForm`] with `warm`. Folds of leave-out and cells are layers. Streaming layers are passed over.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, a layer that is not known, no GEMM at all.
pub fn read_dense(table: &MeasurementTable, served: &Served, peaks: PeaksOf) -> Result<Vec<Group<GemmRow>>> {
    let (layer, time) = (table.column("layer")?, table.column("time_us")?);
    let rows = table.find("sequences").map_or_else(|| table.column("tokens"), Ok)?;
    let (element_bytes, peaks) = (element_bytes(served)?, peaks(served.device, served.precision)?);
    let [heads, kv_heads, width] = served.heads;
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let name = table.text(row, layer);
        let (n, k) = match name {
            "qkv_proj" => ((heads + 2.0 * kv_heads) * width, served.hidden),
            "o_proj" => (served.hidden, heads * width),
            "lm_head" => (served.vocabulary, served.hidden),
            _ if STREAMING.contains(&name) => continue,
            _ => return Err(unknown(table, row, layer)),
        };
        let m = table.whole(row, rows, [1, 1 << 24])? as f64;
        let load = GemmLoad::even(1.0, m);
        let gemm = GemmRow { load, n, k, element_bytes, peaks };
        let label = Label { shape: name, cell: name, size: m, version: "" };
        let group = group(&mut out, served.device, "gemm_dense", served.precision);
        group.push(gemm, table.micros(row, time)?, &label);
    }
    if out.is_empty() {
        return Err(Diag::input("has no GEMM").file(table.path()).cure("give rows of qkv_proj, o_proj or lm_head"));
    }
    Ok(out)
}

fn unknown(table: &MeasurementTable, row: usize, layer: usize) -> Diag {
    let problem = format!("{:?} is not a layer that is known", table.text(row, layer));
    let known = [GEMMS.join(", "), STREAMING.join(", ")].join(", ");
    table.wrong(row, layer, problem).cure(format!("write one of {known}, or leave it out"))
}

/// Reads what `dense` tables say of streaming layers: a family each, by name. Bytes a token: the embedding reads and
/// writes a row; a norm reads and writes a row and its residual; norms of queries and keys and rotary embeddings read
/// and write those. GEMMs and the sampler, whose bytes the table does not say, are passed over. One fold, one cell.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, a layer that is not known, no streaming layer at all.
pub fn read_streams(table: &MeasurementTable, served: &Served, peaks: PeaksOf) -> Result<Vec<Group<StreamRow>>> {
    let (layer, time, rows) = (table.column("layer")?, table.column("time_us")?, table.column("tokens")?);
    let ([element, ..], peaks) = (element_bytes(served)?, peaks(served.device, served.precision)?);
    let [heads, kv_heads, width] = served.heads;
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let name = table.text(row, layer);
        let elements = match name {
            "embedding" => 2.0 * served.hidden,
            "layernorm" | "final_layernorm" => 4.0 * served.hidden,
            "qk_norm" | "rotary_emb" => 2.0 * (heads + kv_heads) * width,
            _ if STREAMING.contains(&name) || GEMMS.contains(&name) => continue,
            _ => return Err(unknown(table, row, layer)),
        };
        let tokens = table.whole(row, rows, [1, 1 << 24])? as f64;
        let label = Label { shape: name, cell: name, size: tokens, version: "" };
        let group = group(&mut out, served.device, name, served.precision);
        group.push(StreamRow { bytes: tokens * elements * element, peaks }, table.micros(row, time)?, &label);
    }
    if out.is_empty() {
        return Err(Diag::input("has no streaming layer")
            .file(table.path())
            .cure("give rows of a norm or an embedding"));
    }
    Ok(out)
}

/// Reads `moe` tables: a call is both grouped GEMMs of the activated experts, which share the selections evenly, cold.
/// Folds of leave-out and cells are numbers of activated experts.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, more experts than selections.
pub fn read_moe(table: &MeasurementTable, served: &Served, peaks: PeaksOf) -> Result<Vec<Group<[GemmRow; 2]>>> {
    let (tokens, active, time) =
        (table.column("tokens")?, table.column("activated_experts")?, table.column("time_us")?);
    let (element_bytes, peaks) = (element_bytes(served)?, peaks(served.device, served.precision)?);
    let [top_k, width] = served.experts;
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let m = table.whole(row, tokens, [1, 1 << 24])? as f64;
        let experts = table.whole(row, active, [1, 1 << 14])? as f64;
        if experts > m * top_k {
            let problem = format!("{experts} experts for {m} tokens of {top_k} selections");
            return Err(table.wrong(row, active, problem).cure("activate no more experts than tokens select"));
        }
        let load = GemmLoad::even(experts, m * top_k / experts);
        let gemm = |n, k| GemmRow { load, n, k, element_bytes, peaks };
        let pair = [gemm(2.0 * width, served.hidden), gemm(served.hidden, width)];
        let name = format!("{experts} experts");
        let label = Label { shape: &name, cell: &name, size: m, version: "" };
        let group = group(&mut out, served.device, "gemm_grouped_pair", served.precision);
        group.push(pair, table.micros(row, time)?, &label);
    }
    Ok(out)
}
