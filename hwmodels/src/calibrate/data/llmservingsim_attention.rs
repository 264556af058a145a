//! LLMServingSim's table of attention under vLLM: decode, prefill chunks, and both in one batch.

use super::llmservingsim::Served;
use super::moe::PeaksOf;
use super::{Group, Label, MeasurementTable, group};
use crate::form::{AttentionClass, AttentionHeads, AttentionKernel, AttentionRow};
use moesim_core::Result;

/// Reads a file: one chunk of a prompt behind a cached prefix, and sequences that decode, either of which may be
/// absent. Batches that only decode are a family of their own (`attention_decode`: query heads packed, keys split); the
/// others run in the prefill kernel (`attention_varlen`: neither). Folds of leave-out are lengths of the decoding
/// sequences; cells say what is in a batch.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, a batch without tokens.
pub fn read(table: &MeasurementTable, served: &Served, peaks: PeaksOf) -> Result<Vec<Group<AttentionRow>>> {
    let [chunk, prefix] = [table.column("prefill_chunk")?, table.column("kv_prefill")?];
    let [decoding, keys] = [table.column("n_decode")?, table.column("kv_decode")?];
    let time = table.column("time_us")?;
    let peaks = peaks(served.device, served.precision)?;
    let [query, kv, width] = served.heads;
    let heads = AttentionHeads {
        query: query as u64,
        kv: kv as u64,
        width: [width; 2],
        kv_bytes: 4.0 * width,
        query_bytes: 2.0,
    };
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let whole = |column, most| table.whole(row, column, [0, most]);
        let (tokens, cached) = (whole(chunk, 1 << 20)?, whole(prefix, 1 << 22)?);
        let (sequences, keys) = (whole(decoding, 1 << 16)?, whole(keys, 1 << 22)?);
        let mut classes = Vec::new();
        if tokens > 0 {
            classes.push(AttentionClass::full(1, tokens, cached + tokens));
        }
        if sequences > 0 {
            if keys == 0 {
                let problem = format!("{sequences} sequences decode without a key");
                return Err(table.wrong(row, decoding, problem).cure("count the new token itself in kv_decode"));
            }
            classes.push(AttentionClass::full(sequences, 1, keys));
        }
        if classes.is_empty() {
            return Err(table.wrong(row, chunk, "no tokens at all".into()).cure("leave the row out"));
        }
        let decode = tokens == 0;
        let kernel = AttentionKernel { tile: 64, pack: decode, split: decode, causal: true, converts: false };
        let family = if decode { "attention_decode" } else { "attention_varlen" };
        let cell = match (tokens, sequences) {
            (0, _) => "decode",
            (_, 0) => "prefill",
            _ => "mixed",
        };
        let size = (tokens + sequences) as f64;
        let label = Label { shape: &format!("kv_decode {keys}"), cell, size, version: "" };
        let attention = AttentionRow::new(classes, heads, kernel, None, peaks);
        group(&mut out, served.device, family, served.precision).push(attention, table.micros(row, time)?, &label);
    }
    Ok(out)
}
