//! Fused-MoE tables with aiconfigurator's columns.

use super::slow::leave_out_slow;
use super::{Group, Label, MeasurementTable, group, note_left_out};
use crate::calibrate::load::{Global, Power};
use crate::form::{MoeLoad, MoeRow, MoeShape, Peaks, Tiling};
use moesim_core::Result;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Peaks of a device in a precision: as the file names both.
pub type PeaksOf<'a> = &'a dyn Fn(&str, &str) -> Result<Peaks>;

/// Bytes of a weight (with its scales) and of an activation, by the precision's name.
pub fn widths(precision: &str) -> Option<[f64; 2]> {
    Some(match precision {
        "float32" | "fp32" => [4.0, 4.0],
        "bfloat16" | "bf16" | "float16" | "fp16" => [2.0, 2.0],
        "fp8" | "fp8_block" | "int8" | "w8a8" => [1.0, 1.0],
        // Widened where they are used.
        "int8_wo" | "fp8_wo" => [1.0, 2.0],
        // Groups of 32 share a scale byte; of 128 a 16-bit scale.
        "w4a16_mxfp4" | "mxfp4" => [0.53125, 2.0],
        "int4_wo" | "w4a16" | "int4" => [0.515_625, 2.0],
        "w4afp8" | "w4a8_mxfp4_mxfp8" => [0.53125, 1.0],
        "nvfp4" => [0.5625, 0.5625],
        _ => return None,
    })
}

/// Bytes of an activation that enters a kernel of this precision, by its name.
pub fn input_bytes(precision: &str) -> Option<f64> {
    widths(precision).map(|w| w[1])
}

/// How a family chooses its tiles: facts of the public kernels. Unknown ones are taken for autotuned.
pub fn tiling(family: &str, version: &str, precision: &str) -> Tiling {
    match family.split(' ').next().unwrap_or(family) {
        "sglang_fused_moe_triton" if precision == "fp8_block" => Tiling::Fixed64,
        "sglang_fused_moe_triton" | "vllm_fused_moe" => Tiling::Switch,
        f if f.contains("oaitriton") => Tiling::Rows,
        // TensorRT-LLM runs the same kernels for these weights on Hopper, and those that it generates on Blackwell.
        f if f.contains("flashinfer_trtllm") || f == "moe_torch_flow" && precision.contains("mxfp4") => Tiling::Rows,
        f if f.contains("marlin") => Tiling::Blocks,
        // Rules by tokens came after vLLM 0.14 and are in 0.24.
        f if f.contains("triton") && !version.starts_with("0.1") => Tiling::Tokens,
        f if f.contains("triton") => Tiling::Switch,
        _ => Tiling::Best,
    }
}

/// (Experts on the device, intermediate width) for which vLLM or SGLang ship a tuned table in 16 bits, as far as looked
/// up: the pairs that public configurations name (`fused_moe/configs`, `E=...,N=...,device_name=...`). Incomplete.
pub fn tuned_shapes(device: &str, precision: &str, tiling: Tiling) -> &'static [[u64; 2]] {
    if !matches!(tiling, Tiling::Switch | Tiling::Tokens) || widths(precision).is_none_or(|w| w[0] < 2.0) {
        &[]
    } else if device.contains("H100") {
        &[
            [128, 768],
            [64, 768],
            [128, 704],
            [16, 2688],
            [64, 2688],
            [128, 2688],
            [256, 2688],
            [512, 2688],
            [8, 2048],
            [16, 2048],
            [16, 1024],
            [1, 3072],
            [128, 1856],
        ]
    } else if device.contains("A100") {
        &[[16, 2688], [8, 2048], [1, 14336]]
    } else {
        &[]
    }
}

/// The series whose loads are [`Global::filled`]: all of SGLang before 0.5.14; from then on those whose own times say
/// so: with every token on every rank, two ranks of balanced experts cost half of one and the row passes (at most 0.73
/// of one in the public tables); filled, they cost as much as one (models of eight experts, whose rows may be older
/// than they say). **An assumption** about SGLang's benchmark, which is not published; other families are taken as
/// stated.
fn fill(groups: &[Group<MoeRow>], wanted: &mut [(usize, Global, Option<Power>)]) -> Vec<(usize, String)> {
    /// Series: its group, and hidden, intermediate, first matrices, experts, k.
    type Series = (usize, [u64; 5]);
    const TOKENS: u64 = 1024;
    const SHARE: f64 = 0.8;
    let mut next = vec![0; groups.len()];
    let mut series: Vec<Series> = Vec::with_capacity(wanted.len());
    let mut times: BTreeMap<Series, BTreeMap<u64, [Option<f64>; 2]>> = BTreeMap::new();
    for (at, global, power_law) in wanted.iter() {
        let (group, row) = (&groups[*at], next[*at]);
        next[*at] += 1;
        let shape = &group.rows[row].shape;
        let name =
            (*at, [shape.hidden as u64, shape.intermediate as u64, shape.first as u64, global.experts, global.k]);
        series.push(name);
        if of_sglang(group) && power_law.is_none() && global.ranks <= 2 && global.tokens >= TOKENS {
            let pair = times.entry(name).or_default().entry(global.tokens).or_default();
            pair[global.ranks as usize - 1] = Some(group.seconds[row]);
        }
    }
    let share = |name: &Series| {
        let pairs = times.get(name)?.values();
        let mut shares: Vec<f64> = pairs.filter_map(|p| Some(p[1]? / p[0]?)).collect();
        shares.sort_by(f64::total_cmp);
        (!shares.is_empty()).then(|| shares[shares.len() / 2])
    };
    let mut found: BTreeMap<Series, bool> = BTreeMap::new();
    for name in &series {
        let group = &groups[name.0];
        let old = |v: &String| {
            let number = |i: usize| v.split('.').nth(i).and_then(|n| n.parse::<u64>().ok()).unwrap_or(u64::MAX);
            (number(0), number(1), number(2)) < (0, 5, 14)
        };
        let filled = || group.versions.iter().all(old) || share(name).is_some_and(|s| s > SHARE);
        found.entry(*name).or_insert_with(|| of_sglang(group) && filled());
    }
    for ((_, global, _), name) in wanted.iter_mut().zip(&series) {
        global.filled = found[name];
    }
    let note = |(s, _): (&Series, &bool)| {
        let [h, i, _, e, k] = s.1;
        (
            s.0,
            format!(
                "hidden {h} intermediate {i} experts {e} top-{k}: ranks that keep only tokens of theirs, all places filled"
            ),
        )
    };
    found.iter().filter(|f| *f.1).map(note).collect()
}

/// Whether a group is SGLang's family in Triton, or Marlin's, of any version.
fn of_sglang(group: &Group<MoeRow>) -> bool {
    matches!(group.family.split(' ').next(), Some("sglang_fused_moe_triton" | "sglang_marlin_moe"))
}

/// DeepSeek-V3: experts, top-k, model width, inner width.
const BY_GROUPS: [u64; 4] = [256, 8, 7168, 2048];

/// TensorRT-LLM's fused NVFP4 kernels for small batches.
const MIN_LATENCY: &str = "moe_torch_flow_min_latency";

/// Whether a family routes this model (experts, top-k, width, inner width) by groups of experts, so that its times are
/// those of half of the stated experts on one rank, and of 5 to 12 times the stated load on the first of several.
/// SGLang and vLLM do so in `fp8_block`, and in `nvfp4` with TensorRT-LLM's generated kernels, where all stated weights
/// would need 1.6 times the bandwidth of memory; not so vLLM 0.19, whose name for these kernels ends in
/// `flashinfer_trtllm_moe_fp4`. TensorRT-LLM's kernels for small batches route every model by groups, by the same
/// measure.
fn by_groups(family: &str, precision: &str, model: [u64; 4]) -> bool {
    let engine = family.starts_with("sglang") || family.starts_with("vllm");
    let newer = family.contains("flashinfer_trtllm") && !family.contains("flashinfer_trtllm_moe_fp4");
    family == MIN_LATENCY || model == BY_GROUPS && engine && (precision == "fp8_block" || precision == "nvfp4" && newer)
}

/// Whether a family computes this model (experts, top-k) without gates, two matrices an expert: those that are called
/// `nongated`; of TensorRT-LLM's generated kernels the Nemotron 3 models, all of whose experts are so. Other families
/// of these tables run even those with three matrices: with two they would be a third slower than for any other model.
fn ungated(family: &str, model: [u64; 2]) -> bool {
    family.ends_with("nongated") || family.contains("flashinfer_trtllm") && [[512, 22], [128, 6]].contains(&model)
}

/// A version as numbers; what is no number sorts first.
fn version_number(version: &str) -> Vec<u64> {
    let part = |p: &str| p.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    version.split('.').map(part).collect()
}

/// The exponent in the name of a distribution, `power_law_1.2`; none of `balanced`.
fn power(distribution: &str) -> std::result::Result<Option<Power>, ()> {
    if distribution == "balanced" {
        return Ok(None);
    }
    let exponent = distribution.strip_prefix("power_law_").and_then(|e| e.parse::<f64>().ok());
    let thousandths = exponent.filter(|e| (0.1..=4.0).contains(e)).map(|e| (e * 1000.0).round() as u32);
    thousandths.map(|t| Some(Power(t))).ok_or(())
}

/// Reads a file into groups by device, kernel family and precision. Tensor parallelism in an expert (`moe_tp_size`)
/// divides its inner width. A framework's older versions are families of their own, with the version in the name; a
/// family that is called `nongated` has two matrices an expert. What is left out is in the notes: loads that are not as
/// stated, and series that are far slower than another kernel's.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, a distribution or precision that is not known.
pub fn read(table: &MeasurementTable, peaks: PeaksOf) -> Result<Vec<Group<MoeRow>>> {
    let c = |name: &str| table.column(name);
    let (device, family, version) = (c("device")?, c("kernel_source")?, table.find("version"));
    let (precision, tokens, hidden, inter) = (c("moe_dtype")?, c("num_tokens")?, c("hidden_size")?, c("inter_size")?);
    let (k, experts, ranks, distribution) = (c("topk")?, c("num_experts")?, c("moe_ep_size")?, c("distribution")?);
    // aiconfigurator's own files have `latency`, which is in milliseconds too.
    let latency =
        table.find("latency_ms").map_or_else(|| table.find("latency").map_or_else(|| c("latency_ms"), Ok), Ok)?;
    let (split, gated) = (table.find("moe_tp_size"), table.find("gated"));
    let mut groups: Vec<Group<MoeRow>> = Vec::new();
    let mut wanted: Vec<(usize, Global, Option<Power>)> = Vec::new();
    let mut newest: BTreeMap<[&str; 3], &str> = BTreeMap::new();
    for row in version.iter().flat_map(|_| 0..table.rows()) {
        let text = |column| table.text(row, column);
        let of = version.map_or("", text);
        let known = newest.entry([text(device), text(family), text(precision)]).or_insert(of);
        if version_number(of) > version_number(known) {
            *known = of;
        }
    }
    let mut grouped: BTreeSet<[&str; 2]> = BTreeSet::new();
    for row in 0..table.rows() {
        let text = |column| table.text(row, column);
        let cure = |d: moesim_core::Diag, cure: &str| d.cure(cure.to_string());
        let [weight_bytes, activation_bytes] = widths(text(precision)).ok_or_else(|| {
            let problem = format!("{:?} is not a precision that is known", text(precision));
            cure(table.wrong(row, precision, problem), "write bfloat16, fp8, fp8_block, int8, w4a16, mxfp4 or nvfp4")
        })?;
        let power_law = power(text(distribution)).map_err(|()| {
            let problem = format!("{:?} is not a distribution that is known", text(distribution));
            let known = "write balanced, or power_law_1.2 or another exponent from 0.1 to 4";
            cure(table.wrong(row, distribution, problem), known)
        })?;
        let global = Global {
            tokens: table.whole(row, tokens, [1, 1 << 22])?,
            experts: table.whole(row, experts, [1, 1 << 14])?,
            k: table.whole(row, k, [1, 256])?,
            ranks: table.whole(row, ranks, [1, 1 << 14])?,
            filled: false,
        };
        if global.k > global.experts || !global.experts.is_multiple_of(global.ranks) {
            let problem = format!("{} experts, top-{}, on {} ranks", global.experts, global.k, global.ranks);
            let d = table.wrong(row, experts, problem);
            return Err(cure(d, "experts are at least topk and a multiple of moe_ep_size"));
        }
        let (h, i) = (table.whole(row, hidden, [1, 1 << 20])?, table.whole(row, inter, [1, 1 << 20])?);
        let parts = split.map_or(Ok(1), |t| table.whole(row, t, [1, 1 << 14]))?;
        if !i.is_multiple_of(parts) {
            let problem = format!("an inter_size of {i} is no multiple of moe_tp_size {parts}");
            return Err(cure(table.wrong(row, inter, problem), "mend the field or leave the row out"));
        }
        let name = text(family);
        if by_groups(name, text(precision), [global.experts, global.k, h, i]) {
            grouped.insert([name, text(precision)]);
            continue;
        }
        let i = i / parts;
        let two = u64::from(!ungated(name, [global.experts, global.k]));
        let first = 1 + gated.map_or(Ok(two), |g| table.whole(row, g, [0, 1]))?;
        let seconds = table.number(row, latency, [1e-6, 1e7])? * 1e-3;
        let version = version.map_or("", |v| table.text(row, v));
        let old = newest.get(&[text(device), name, text(precision)]).is_some_and(|n| *n != version);
        let family = if old { format!("{name} {version}") } else { name.to_string() };
        let group = group(&mut groups, text(device), &family, text(precision));
        let local = global.experts / global.ranks;
        let shape = MoeShape {
            hidden: h as f64,
            intermediate: i as f64,
            first: first as f64,
            experts: local as f64,
            weight_bytes,
            activation_bytes,
            tuned: tuned_shapes(&group.device, &group.precision, tiling(&group.family, version, &group.precision))
                .contains(&[local, i]),
        };
        let peaks = peaks(&group.device, &group.precision)?;
        let name = format!(
            "hidden {h} intermediate {i} experts {} top-{} ep {}{}",
            global.experts,
            global.k,
            global.ranks,
            if first == 1 { " not gated" } else { "" }
        );
        let cell = format!(
            "{} ep {}",
            power_law.map_or_else(|| "balanced".to_string(), |p| p.cell()),
            if global.ranks > 1 { "> 1" } else { "= 1" }
        );
        let label = Label { shape: &name, cell: &cell, size: global.tokens as f64, version };
        group.push(MoeRow { load: MoeLoad::default(), shape, peaks }, seconds, &label);
        let at = groups.iter().position(|g| {
            (g.device.as_str(), g.family.as_str(), g.precision.as_str())
                == (text(device), family.as_str(), text(precision))
        });
        wanted.push((at.expect("the group of the row"), global, power_law));
    }
    for (at, note) in fill(&groups, &mut wanted) {
        groups[at].notes.push(note);
    }
    // Many rows have the same load; each is made once.
    let mut loads: BTreeMap<(Global, Option<Power>), MoeLoad> = BTreeMap::new();
    loads.extend(wanted.iter().map(|(_, g, p)| ((*g, *p), MoeLoad::default())));
    loads.par_iter_mut().for_each(|((global, power_law), load)| {
        *load = power_law.map_or_else(|| global.balanced(), |p| global.power_law(p));
    });
    let mut next = vec![0; groups.len()];
    for (at, global, power_law) in &wanted {
        groups[*at].rows[next[*at]].load = loads[&(*global, *power_law)];
        next[*at] += 1;
    }
    leave_out_slow(&mut groups);
    let [e, k, h, i] = BY_GROUPS;
    for names in grouped {
        let model = format!("hidden {h} intermediate {i} experts {e} top-{k}: ");
        let which = if names[0] == MIN_LATENCY { "" } else { &model };
        let what = format!("{which}routed by groups of experts, loads not as stated; left out");
        note_left_out(&mut groups, table, names, &what)?;
    }
    Ok(groups)
}
