//! Attention with aiconfigurator's columns: prompts and decode, heads, windows.

use super::moe::PeaksOf;
use super::{Group, Label, MeasurementTable, group, note_left_out};
use crate::form::{AttentionClass, AttentionHeads, AttentionKernel, AttentionRow};
use moesim_core::Result;
use std::collections::BTreeMap;

/// Fewest and most query heads of a KV head that TensorRT-LLM's kernels of grouped queries take: with more (seen in the
/// tables of H100 and B200: eight times the others' time), or with one, every head is one of multi-head attention.
const GROUPED: [u64; 2] = [2, 32];
/// Heads that a table may have at most.
const MOST_HEADS: u64 = 1 << 14;
/// What is added to the name of a kernel of TensorRT-LLM that takes every head by itself.
const MULTI_HEAD: &str = " multi-head";
/// What is added to the name of a kernel of SGLang's FlashAttention 3 with these widths of keys and values.
const VALUES: (&str, [u64; 2]) = (" values 128", [192, 128]);

/// Reads a file into groups by kernel family, precision, and whether sequences decode (one new token each behind some
/// others); the file does not name its `device`. Families that decode are called `decode` and what the file says.
/// Kernels were timed in CUDA graphs again and again, without projections. Folds of leave-out are heads, in all
/// windows; cells are windows.
///
/// A family whose times are those of two kernels is two: decode of TensorRT-LLM ([`GROUPED`]), and SGLang's
/// FlashAttention 3 with keys of 192, whose values are 128 wide (long rows take 5/4 of those of 128, not 3/2) and which
/// starts another kernel.
///
/// Prompts of one token that a kernel of decode took are left out, as notes say: they are decode of no cached key.
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
    let (mut out, mut single) = (Vec::new(), BTreeMap::<[&str; 2], usize>::new());
    for row in 0..table.rows() {
        let ([query_bytes, kv_element], precision) = precision(table, row, [queries, cache])?;
        let whole = |column, least, most| table.whole(row, column, [least, most]);
        let (heads, groups, dim) = (whole(query, 1, MOST_HEADS)?, whole(kv, 1, MOST_HEADS)?, whole(width, 1, 1 << 14)?);
        if !heads.is_multiple_of(groups) {
            let problem = format!("{heads} query heads are no multiple of {groups} heads of keys and values");
            return Err(table.wrong(row, kv, problem).cure("mend the field or leave the row out"));
        }
        let (sequences, tokens) = (whole(batch, 1, 1 << 20)?, whole(new, 1, 1 << 24)?);
        let (cached, window) = (whole(past, 0, 1 << 24)?, whole(window, 0, 1 << 24)?);
        let source = table.text(row, family);
        let decode = tokens == 1 && cached > 0;
        if tokens == 1 && !decode && source.ends_with("decode") {
            *single.entry([source, precision]).or_insert(0) += 1;
            continue;
        }
        let class = AttentionClass::windowed(sequences, tokens, cached + tokens, (window > 0).then_some(window));
        let (part, kernel, value) = kernel(source, decode, heads / groups, dim);
        let width = [dim as f64, value as f64];
        let kv_bytes = (width[0] + width[1]) * kv_element;
        let heads_of = AttentionHeads { query: heads, kv: groups, width, kv_bytes, query_bytes };
        let shape = format!("heads {heads} kv {groups} width {dim}");
        let cell = if window > 0 { format!("window {window}") } else { "no window".to_string() };
        let size = (sequences * tokens) as f64;
        let label = Label { shape: &shape, cell: &cell, size, version: version.map_or("", |v| table.text(row, v)) };
        let family = format!("{}{source}{part}", if decode { "decode " } else { "" });
        let seconds = table.number(row, latency, [1e-6, 1e7])? * 1e-3;
        // Kernels compute as wide as their queries.
        let peaks = peaks(device, if query_bytes > 1.0 { "bfloat16" } else { "fp8" })?;
        let attention = AttentionRow::new(vec![class], heads_of, kernel, None, peaks).repeated();
        group(&mut out, device, &family, precision).push(attention, seconds, &label);
    }
    for (names, rows) in single {
        let what = format!("{rows} prompts of one token left out: they decode without a cached key");
        note_left_out(&mut out, table, names, &what)?;
    }
    Ok(out)
}

/// Bytes of an element of queries and of keys and values by the names of their types, and the precision's name.
pub(super) fn precision(table: &MeasurementTable, row: usize, columns: [usize; 2]) -> Result<([f64; 2], &'static str)> {
    let [query, kv] = [bytes(table, row, columns[0])?, bytes(table, row, columns[1])?];
    let name = match (query > 1.0, kv > 1.0) {
        (true, false) => "fp8_wo",
        (false, false) => "fp8",
        _ => "bfloat16",
    };
    Ok(([query, kv], name))
}

/// Bytes of an element by the name of its type.
fn bytes(table: &MeasurementTable, row: usize, column: usize) -> Result<f64> {
    match table.text(row, column) {
        "bfloat16" | "float16" => Ok(2.0),
        "fp8" => Ok(1.0),
        other => {
            let problem = format!("{other:?} is not a type that is known");
            Err(table.wrong(row, column, problem).cure("write bfloat16, float16 or fp8"))
        }
    }
}

/// What is added to a source's name where it is two kernels; the kernel of a row with `group` query heads a KV head and
/// keys of `width`; and the width of its values. FlashAttention packs the query heads of a KV head in prompts too.
fn kernel(source: &str, decode: bool, group: u64, width: u64) -> (&'static str, AttentionKernel, u64) {
    let flash = source == "fa3" || source.starts_with("vllm_flash_attn");
    let single = decode && source == "torch_flow" && !(GROUPED[0]..=GROUPED[1]).contains(&group);
    let (part, value) = match (source, width) {
        ("fa3", keys) if keys == VALUES.1[0] => (VALUES.0, VALUES.1[1]),
        _ if single => (MULTI_HEAD, width),
        _ => ("", width),
    };
    let pack = !single && (decode || flash);
    let tile = if decode { 64 } else { 128 };
    (part, AttentionKernel { tile, pack, split: decode, causal: true, converts: false }, value)
}

/// What a family of these tables is for: query heads a KV head as ranges, all where there are none, and the widths of
/// keys and values where they differ.
pub fn heads(family: &str) -> (Vec<[u64; 2]>, Option<[u64; 2]>) {
    let groups = match family.strip_prefix("decode torch_flow") {
        Some("") => vec![GROUPED],
        Some(MULTI_HEAD) => vec![[1, GROUPED[0] - 1], [GROUPED[1] + 1, MOST_HEADS]],
        _ => Vec::new(),
    };
    (groups, family.ends_with(VALUES.0).then_some(VALUES.1))
}
