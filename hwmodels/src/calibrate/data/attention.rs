//! Attention with aiconfigurator's columns: prompts and decode, heads, windows.

use super::moe::PeaksOf;
use super::{Group, Label, MeasurementTable, group};
use crate::form::{AttentionClass, AttentionHeads, AttentionKernel, AttentionRow};
use moesim_core::Result;

/// Reads a file into groups by kernel family, precision, and whether sequences decode (one new token each behind some others);
/// the file does not name its `device`. Families that decode are called `decode` and what the file says. Kernels were timed in
/// CUDA graphs, without projections. Folds of leave-out are heads, in all windows; cells are windows.
///
/// Precisions are `bfloat16`, `fp8`, and `fp8_wo` for keys and values in 8 bits under queries in 16.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, heads that their groups do not divide.
pub fn read(table: &MeasurementTable, device: &str, peaks: PeaksOf) -> Result<Vec<Group<AttentionRow>>> {
    let c = |name: &str| table.column(name);
    let (family, version) = (c("kernel_source")?, table.find("version"));
    let [batch, new, past] = [c("batch_size")?, c("new_tokens")?, c("past_tokens")?];
    let [query, kv, width] = [c("num_heads")?, c("num_key_value_heads")?, c("head_dim")?];
    let [queries, cache, latency] = [c("attn_dtype")?, c("kv_cache_dtype")?, c("latency_ms")?];
    let window = c("window_size")?;
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let bytes = |column| match table.text(row, column) {
            "bfloat16" | "float16" => Ok(2.0),
            "fp8" => Ok(1.0),
            other => {
                let problem = format!("{other:?} is not a type that is known");
                Err(table.wrong(row, column, problem).cure("write bfloat16, float16 or fp8"))
            }
        };
        let (query_bytes, kv_element) = (bytes(queries)?, bytes(cache)?);
        let precision = match (query_bytes > 1.0, kv_element > 1.0) {
            (true, false) => "fp8_wo",
            (false, false) => "fp8",
            _ => "bfloat16",
        };
        let whole = |column, least, most| table.whole(row, column, [least, most]);
        let (heads, groups, dim) = (whole(query, 1, 1 << 14)?, whole(kv, 1, 1 << 14)?, whole(width, 1, 1 << 14)?);
        if !heads.is_multiple_of(groups) {
            let problem = format!("{heads} query heads are no multiple of {groups} heads of keys and values");
            return Err(table.wrong(row, kv, problem).cure("mend the field or leave the row out"));
        }
        let (sequences, tokens) = (whole(batch, 1, 1 << 20)?, whole(new, 1, 1 << 24)?);
        let (cached, window) = (whole(past, 0, 1 << 24)?, whole(window, 0, 1 << 24)?);
        let decode = tokens == 1 && cached > 0;
        let class = AttentionClass::windowed(sequences, tokens, cached + tokens, (window > 0).then_some(window));
        let kernel = AttentionKernel { tile: if decode { 64 } else { 128 }, pack: decode, split: decode, causal: true };
        let d = dim as f64;
        let heads_of =
            AttentionHeads { query: heads, kv: groups, width: [d; 2], kv_bytes: 2.0 * d * kv_element, query_bytes };
        let shape = format!("heads {heads} kv {groups} width {dim}");
        let cell = if window > 0 { format!("window {window}") } else { "no window".to_string() };
        let size = (sequences * tokens) as f64;
        let label = Label { shape: &shape, cell: &cell, size, version: version.map_or("", |v| table.text(row, v)) };
        let kind = if decode { "decode " } else { "" };
        let family = format!("{kind}{}", table.text(row, family));
        let seconds = table.number(row, latency, [1e-6, 1e7])? * 1e-3;
        // Kernels compute as wide as their queries.
        let peaks = peaks(device, if query_bytes > 1.0 { "bfloat16" } else { "fp8" })?;
        let attention = AttentionRow::new(vec![class], heads_of, kernel, None, peaks);
        group(&mut out, device, &family, precision).push(attention, seconds, &label);
    }
    Ok(out)
}
