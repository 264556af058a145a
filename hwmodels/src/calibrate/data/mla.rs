//! Latent attention (MLA) of DeepSeek-V3's heads with aiconfigurator's columns: prompts and decode.

use super::attention::precision;
use super::moe::PeaksOf;
use super::{Group, Label, MeasurementTable, group};
use crate::form::{AttentionClass, AttentionHeads, AttentionKernel, AttentionRow};
use moesim_core::Result;

/// Width of the latent vector, and of the key part that carries positions.
const LATENT: [f64; 2] = [512.0, 64.0];
/// Width of a head's key, and of its value, once expanded.
const EXPANDED: [f64; 2] = [192.0, 128.0];
/// SGLang's FlashAttention 3, which takes prompts absorbed too: 1088 elements of width a pair where others have 320,
/// and times in that proportion.
const ABSORBED: &str = "flash_attention";

/// Reads a file into groups by framework and kernel, precision, and phase; the file does not name its `device`.
/// Families are called `decode` or `prefill`, the framework, and what the file says. `num_heads` are those on the
/// device: their product with `tp_size` is 64 throughout, and times go with `num_heads`. Decode is absorbed: one KV
/// head of 576 elements, the first 512 of them its values. Folds of leave-out are heads; cells are the phases.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, a phase or a type that is not known.
pub fn read(table: &MeasurementTable, device: &str, peaks: PeaksOf) -> Result<Vec<Group<AttentionRow>>> {
    let c = |name: &str| table.column(name);
    let [framework, source, phase] = [c("framework")?, c("kernel_source")?, c("phase")?];
    let version = table.find("version");
    let [batch, new, past, heads] = [c("batch_size")?, c("new_tokens")?, c("past_tokens")?, c("num_heads")?];
    let [queries, cache, latency] = [c("mla_dtype")?, c("kv_cache_dtype")?, c("latency_ms")?];
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let decode = match table.text(row, phase) {
            "generation" => true,
            "context" => false,
            other => {
                let problem = format!("{other:?} is no phase that is known");
                return Err(table.wrong(row, phase, problem).cure("write context or generation"));
            }
        };
        let ([query_bytes, kv_element], precision) = precision(table, row, [queries, cache])?;
        let whole = |column, least, most| table.whole(row, column, [least, most]);
        let query = whole(heads, 1, 1 << 14)?;
        let (sequences, tokens) = (whole(batch, 1, 1 << 20)?, whole(new, 1, 1 << 24)?);
        let cached = whole(past, 0, 1 << 24)?;
        let absorbed = decode || table.text(row, source) == ABSORBED;
        let heads_of = if absorbed {
            let latent = LATENT[0] + LATENT[1];
            let kv_bytes = latent * kv_element;
            AttentionHeads { query, kv: 1, width: [latent, LATENT[0]], kv_bytes, query_bytes }
        } else {
            let kv_bytes = (EXPANDED[0] + EXPANDED[1]) * query_bytes;
            AttentionHeads { query, kv: query, width: EXPANDED, kv_bytes, query_bytes }
        };
        let tile = if absorbed { 64 } else { 128 };
        // FlashAttention 3 takes no 8-bit latent keys: the whole cache is made 16 bits wide before every call.
        let converts = table.text(row, source) == ABSORBED && kv_element < 2.0;
        let kernel = AttentionKernel { tile, pack: absorbed, split: decode, causal: true, converts };
        let class = AttentionClass::full(sequences, tokens, cached + tokens);
        let cell = if decode { "decode" } else { "prefill" };
        let (shape, size) = (format!("heads {query}"), (sequences * tokens) as f64);
        let label = Label { shape: &shape, cell, size, version: version.map_or("", |v| table.text(row, v)) };
        let family = format!("{cell} {} {}", table.text(row, framework), table.text(row, source));
        let seconds = table.number(row, latency, [1e-6, 1e7])? * 1e-3;
        let peaks = peaks(device, if query_bytes > 1.0 { "bfloat16" } else { "fp8" })?;
        let attention = AttentionRow::new(vec![class], heads_of, kernel, None, peaks).repeated();
        group(&mut out, device, &family, precision).push(attention, seconds, &label);
    }
    Ok(out)
}
