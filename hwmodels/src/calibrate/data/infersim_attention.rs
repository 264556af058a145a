//! InferSim's tables of attention. The file's name says the kernel and the heads, or its folders the kernel.

use super::moe::PeaksOf;
use super::{Group, Label, MeasurementTable, group, infersim};
use crate::form::{AttentionClass, AttentionHeads, AttentionKernel, AttentionRow};
use moesim_core::{Diag, Result};
use std::path::Path;

/// Width of the part of a latent key that carries positions (DeepSeek-V2, -V3).
const ROPE: u64 = 64;
/// Longest context.
const KEYS: u64 = 1 << 22;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mha,
    MhaPrefill,
    MlaDecode,
    MlaPrefill,
    SparsePrefill,
    SparseDecode,
    LogitsDecode,
    LogitsPrefill,
}

/// By how file names begin, with how many numbers follow.
const KINDS: [(&str, Kind, usize); 8] = [
    ("mha_decode", Kind::Mha, 3),
    ("mha_prefill", Kind::MhaPrefill, 3),
    ("mla_decode", Kind::MlaDecode, 3),
    ("mla_prefill", Kind::MlaPrefill, 3),
    ("dsa_prefill_attn", Kind::SparsePrefill, 3),
    ("dsa_decode_attn", Kind::SparseDecode, 3),
    ("dsa_decode_logits", Kind::LogitsDecode, 2),
    ("dsa_prefill_logits", Kind::LogitsPrefill, 2),
];

/// The name of a table, with its kernel.
fn name(path: &Path) -> String {
    let stem = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split('.').next()).unwrap_or_default();
    let known = KINDS.iter().any(|k| stem.starts_with(k.0));
    let folders = if known { None } else { infersim::folders(path) };
    folders.map_or_else(|| stem.to_string(), |f| f.name)
}

/// Whether a file is one of InferSim's tables of attention, by its name or its folders.
pub fn is_named(path: &Path) -> bool {
    let name = name(path);
    KINDS.iter().any(|k| name.starts_with(k.0))
}

/// What the name of a file says: family, kind, numbers and how they are written.
fn named(table: &MeasurementTable) -> Result<(&'static str, Kind, Vec<u64>, String)> {
    let stem = name(table.path());
    let wrong = || {
        Diag::input("neither its name nor its folders say the kernel and its heads").file(table.path()).cure(
            "keep it where InferSim has it, as in mha/decode/DEVICE/HEADS-KV_HEADS-WIDTH.csv, or name it \
             mha_decode_HEADS-KV_HEADS-WIDTH.csv, mha_prefill_HEADS-KV_HEADS-WIDTH.csv, mla_decode_HEADS-LATENT-ROPE.csv, \
             mla_prefill_HEADS-WIDTH-ROPE.csv, dsa_prefill_attn-HEADS-WIDTH-KEYS.csv, dsa_decode_attn-HEADS-WIDTH-KEYS.csv, \
             dsa_decode_logits-HEADS-WIDTH.csv or dsa_prefill_logits-HEADS-WIDTH.csv",
        )
    };
    let (family, kind, count) = KINDS.into_iter().find(|k| stem.starts_with(k.0)).ok_or_else(wrong)?;
    let text = stem[family.len()..].trim_start_matches(['_', '-']);
    let numbers: Vec<u64> = text.split('-').filter_map(|n| n.parse().ok()).collect();
    let sound = numbers.len() == count && numbers.iter().all(|n| (1..=1 << 16).contains(n));
    let sound = sound && text.split('-').count() == count;
    // KV heads divide heads; a latent key is wider than its positions.
    let shared = matches!(kind, Kind::Mha | Kind::MhaPrefill);
    let sound = sound && (!shared || numbers[0].is_multiple_of(numbers[1]));
    let latent = matches!(kind, Kind::SparsePrefill | Kind::SparseDecode);
    let sound = sound && (!latent || numbers[1] > ROPE);
    if sound { Ok((family, kind, numbers, text.to_string())) } else { Err(wrong()) }
}

/// Reads a file; it does not name its `device`. Folds of leave-out are lengths of keys; cells are the heads; sizes are
/// new tokens in all.
///
/// # Errors
/// A name that says no kernel, a column that is lacking, a field that is no sensible number, a type that is not known.
pub fn read(table: &MeasurementTable, device: &str, peaks: PeaksOf) -> Result<Vec<Group<AttentionRow>>> {
    let (family, kind, numbers, cell) = named(table)?;
    let float = |i: usize| numbers[i] as f64;
    let column = |name: &str| table.column(name);
    let latency = column("latency_us")?;
    let (dtype, kv_dtype) = (table.find("dtype"), table.find("kv_dtype"));
    let logits = matches!(kind, Kind::LogitsDecode | Kind::LogitsPrefill);
    let precision = if logits { "fp8" } else { "bf16" };
    let peaks = peaks(device, precision)?;
    let whole = |row, column, most| table.whole(row, column, [1, most]);
    let mut out = Vec::new();
    for row in 0..table.rows() {
        if let Some(at) = dtype.filter(|at| table.text(row, *at) != "bf16") {
            let problem = format!("{:?} is not what is computed in", table.text(row, at));
            return Err(table.wrong(row, at, problem).cure("give rows of bf16"));
        }
        let fp8_kv = match kv_dtype.map(|at| (at, table.text(row, at))) {
            Some((_, "fp8")) if kind == Kind::SparseDecode => true,
            None | Some((_, "bf16")) => false,
            Some((at, other)) => {
                let problem = format!("{other:?} is not a type of keys and values that is known here");
                return Err(table.wrong(row, at, problem).cure("give bf16, or fp8 for dsa_decode_attn"));
            }
        };
        let latent = |width: u64, value: f64| AttentionHeads {
            query: numbers[0],
            kv: 1,
            width: [width as f64, value],
            // FP8 of the latent part with a scale of 4 bytes a 128, 16 bits of the positions.
            kv_bytes: if fp8_kv { value * (1.0 + 4.0 / 128.0) + 2.0 * ROPE as f64 } else { 2.0 * width as f64 },
            query_bytes: 2.0,
        };
        let mut kernel = AttentionKernel { tile: 64, pack: true, split: true, causal: false, converts: false };
        let class = AttentionClass::full;
        let mut unique = None;
        let (class, heads, length) = match kind {
            Kind::Mha | Kind::MlaDecode => {
                let (batch, keys) = (whole(row, column("batch_size")?, 1 << 16)?, whole(row, column("kv_len")?, KEYS)?);
                let heads = if kind == Kind::Mha {
                    kernel.tile = 128;
                    let width = [float(2); 2];
                    AttentionHeads {
                        query: numbers[0],
                        kv: numbers[1],
                        width,
                        kv_bytes: 4.0 * float(2),
                        query_bytes: 2.0,
                    }
                } else {
                    latent(numbers[1] + numbers[2], float(1))
                };
                (class(batch, 1, keys), heads, keys)
            }
            Kind::MhaPrefill => {
                let tokens = whole(row, column("seq_len")?, KEYS)?;
                kernel = AttentionKernel { tile: 128, pack: false, split: false, causal: true, converts: false };
                let (width, kv_bytes) = ([float(2); 2], 4.0 * float(2));
                let heads = AttentionHeads { query: numbers[0], kv: numbers[1], width, kv_bytes, query_bytes: 2.0 };
                (class(1, tokens, tokens), heads, tokens)
            }
            Kind::MlaPrefill => {
                let tokens = whole(row, column("seq_len")?, KEYS)?;
                kernel = AttentionKernel { tile: 128, pack: false, split: false, causal: true, converts: false };
                let width = [float(1) + float(2), float(1)];
                let kv_bytes = 2.0 * (width[0] + width[1]);
                let heads = AttentionHeads { query: numbers[0], kv: numbers[0], width, kv_bytes, query_bytes: 2.0 };
                (class(1, tokens, tokens), heads, tokens)
            }
            Kind::SparsePrefill => {
                // Every new token has keys of its own.
                let (tokens, keys) = (whole(row, column("s_q")?, KEYS)?, whole(row, column("s_kv")?, KEYS)?);
                kernel.split = false;
                unique = Some(keys as f64);
                (class(tokens, 1, numbers[2]), latent(numbers[1], (numbers[1] - ROPE) as f64), keys)
            }
            Kind::SparseDecode => {
                let (batch, keys) = (whole(row, column("batch_size")?, 1 << 16)?, whole(row, column("kv_len")?, KEYS)?);
                unique = Some((batch * keys.min(numbers[2])) as f64);
                (class(batch, 1, numbers[2]), latent(numbers[1], (numbers[1] - ROPE) as f64), keys)
            }
            Kind::LogitsDecode | Kind::LogitsPrefill => {
                kernel.tile = 128;
                // Keys alone, in FP8 with a scale of 4 bytes.
                let kv_bytes = float(1) + 4.0;
                let heads =
                    AttentionHeads { query: numbers[0], kv: 1, width: [float(1), 0.0], kv_bytes, query_bytes: 1.0 };
                let keys = whole(row, column("s_kv")?, KEYS)?;
                if kind == Kind::LogitsPrefill {
                    kernel.causal = true;
                    // New tokens are among the keys.
                    (class(1, whole(row, column("s_q")?, keys)?, keys), heads, keys)
                } else {
                    let (batch, next) =
                        (whole(row, column("batchsize")?, 1 << 16)?, whole(row, column("next_n")?, keys.min(64))?);
                    (class(batch, next, keys), heads, keys)
                }
            }
        };
        let size = (class.sequences * class.tokens) as f64;
        let label = Label { shape: &format!("keys {length}"), cell: &cell, size, version: "" };
        let attention = AttentionRow::new(vec![class], heads, kernel, unique, peaks);
        group(&mut out, device, family, precision).push(attention, table.micros(row, latency)?, &label);
    }
    Ok(out)
}
