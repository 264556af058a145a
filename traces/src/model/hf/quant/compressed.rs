//! Methods that describe tensors by groups of modules: compressed-tensors, ModelOpt, Quark.

use super::methods::kv_cache;
use super::patterns::Patterns;
use super::{Layout, Over, Scheme, WITH_HEAD};
use crate::model::hf::keys::Keys;
use moesim_core::{Diag, Result};
use std::collections::BTreeMap;

/// Reads what a list of exclusions says. Without any list the head is taken as not quantised, as recipes have it.
fn exclusions(s: &mut Scheme, k: &Keys, keys: &[&str]) -> Result<()> {
    if !s.exclude(k, keys)? {
        s.classes = super::LINEAR;
    }
    Ok(())
}

/// One tensor, as compressed-tensors describes it (its class QuantizationArgs).
fn tensor(k: &Keys, format: &str) -> Result<Layout> {
    let bits = k.f64("num_bits")?.unwrap_or(8.0);
    if !(1.0..=16.0).contains(&bits) {
        return Err(k.wrong("num_bits", format!("{bits} bits an element is out of range")).cure("give 1 to 16"));
    }
    let float = k.text("type")?.unwrap_or("int") == "float";
    let group = k.f64("group_size")?.filter(|g| *g > 0.0);
    let block = k.f64s("block_structure")?;
    let given = k.text("strategy")?;
    let zero = if !float && k.bool("symmetric")? == Some(false) { bits } else { 0.0 };
    let narrow = k.text("scale_dtype")?.is_some_and(|d| d.contains("uint8") || d.contains("float8"));
    k.get("zp_dtype");
    k.finish(|key| {
        matches!(
            key,
            "dynamic" | "actorder" | "observer" | "observer_kwargs" | "symmetric" | "granularity" | "is_static"
        )
    })?;
    // A 4-bit float has a scale of 8 bits in both of its formats, NVFP4 and MXFP4.
    let scale = if narrow || (float && bits < 8.0) || format.starts_with("mx") { 8.0 } else { 16.0 };
    let strategy = given.unwrap_or(match (group, &block) {
        (Some(_), _) => "group",
        (_, Some(_)) => "block",
        _ => "tensor",
    });
    Ok(match (strategy, group, block) {
        ("tensor", ..) => Layout::new(bits, 0.0, Over::Tensor),
        ("channel" | "token", ..) => Layout::new(bits, scale + zero, Over::Row),
        ("group" | "tensor_group", Some(g), _) => Layout::new(bits, scale + zero, Over::Elements(g)),
        ("block", _, Some(b)) => Layout::new(bits, 32.0, Over::Elements(b.iter().product::<f64>().max(1.0))),
        (other, ..) => {
            return Err(k
                .wrong(
                    "strategy",
                    format!("strategy \"{other}\" lacks its group_size or block_structure, or is not known"),
                )
                .cure("tensor, channel, group, tensor_group and block are"));
        }
    })
}

/// Groups of modules with what their weights have; class names make the default.
fn groups(k: &Keys, s: &mut Scheme, format: &str) -> Result<bool> {
    let Some(groups) = k.inner("config_groups")? else { return Ok(false) };
    s.default = None;
    for name in groups.names() {
        let Some(g) = groups.inner(name)? else { continue };
        let format = g.text("format")?.unwrap_or(format);
        let layout = match g.inner("weights")? {
            Some(weights) => Some(tensor(&weights, format)?),
            None => None,
        };
        if let Some(a) = g.inner("input_activations")? {
            s.activations = s.activations.or(a.f64("num_bits")?.or(Some(8.0)));
        }
        g.get("output_activations");
        let targets = g.texts("targets")?.unwrap_or_else(|| vec!["Linear"]);
        g.finish(|_| false)?;
        let (classes, names): (Vec<&str>, Vec<&str>) =
            targets.into_iter().partition(|t| t.starts_with(char::is_uppercase) && !t.contains('.'));
        if !classes.is_empty() {
            s.default = layout;
        }
        if !names.is_empty() {
            s.rules.push((Patterns::new(&names).map_err(|d| d.place(groups.name(name)))?, layout));
        }
    }
    Ok(true)
}

pub(super) fn compressed_tensors(k: &Keys) -> Result<Scheme> {
    let format = k.text("format")?.unwrap_or("dense");
    if format.contains("24") || format.starts_with("sparse") {
        return Err(k
            .wrong("format", format!("\"{format}\": sparse weights cannot be expressed"))
            .cure("choose a dense checkpoint"));
    }
    let mut s = Scheme::new(None, WITH_HEAD);
    if k.get("sparsity_config").is_some_and(|v| v.as_object().is_none_or(|o| !o.is_empty()))
        && let Some(sparse) = k.inner("sparsity_config")?
        && sparse.text("format")?.is_some_and(|f| f != "dense")
    {
        return Err(k
            .wrong("sparsity_config", "sparse weights cannot be expressed")
            .cure("choose a checkpoint that keeps all weights"));
    }
    if k.get("transform_config").is_some_and(|v| v.as_object().is_none_or(|o| !o.is_empty())) {
        s.notes.push("transform_config: rotations that are computed beside the products are not counted".into());
    }
    exclusions(&mut s, k, &["ignore"])?;
    if !groups(k, &mut s, format)? {
        return Err(k
            .wrong("config_groups", "`config_groups` is missing")
            .cure("add it, as compressed-tensors writes it"));
    }
    s.kv = kv_cache(k)?;
    Ok(s)
}

/// What ModelOpt's names of algorithms mean, and the bits of activations.
fn algorithm(k: &Keys, name: &str, group: Option<f64>) -> Result<(Layout, Option<f64>)> {
    let of = |default: f64| Over::Elements(group.filter(|g| *g > 0.0).unwrap_or(default));
    Ok(match name.to_ascii_uppercase().as_str() {
        "FP8" => (Layout::new(8.0, 32.0, Over::Tensor), Some(8.0)),
        "FP8_PER_CHANNEL_PER_TOKEN" | "FP8_PC_PT" => (Layout::new(8.0, 32.0, Over::Row), Some(8.0)),
        "FP8_PB_WO" | "FP8_PB_REAL" | "FP8_PB" => (Layout::new(8.0, 32.0, Over::Elements(16384.0)), Some(8.0)),
        "NVFP4" | "NVFP4_AWQ" | "NVFP4_SVD" | "NVFP4_MSE" => (Layout::new(4.0, 8.0, of(16.0)), Some(4.0)),
        "W4A16_NVFP4" => (Layout::new(4.0, 8.0, of(16.0)), None),
        "W4A8_NVFP4_FP8" => (Layout::new(4.0, 8.0, of(16.0)), Some(8.0)),
        "MXFP4" | "W4A16_MXFP4" => (Layout::new(4.0, 8.0, of(32.0)), None),
        "W4A8_MXFP4_FP8" => (Layout::new(4.0, 8.0, of(32.0)), Some(8.0)),
        "MXFP8" => (Layout::new(8.0, 8.0, of(32.0)), Some(8.0)),
        "W4A16_AWQ" | "INT4_AWQ" | "W4A16" => (Layout::new(4.0, 16.0, of(128.0)), None),
        "W4A8_AWQ" => (Layout::new(4.0, 16.0, of(128.0)), Some(8.0)),
        "W8A16" => (Layout::new(8.0, 16.0, Over::Row), None),
        "W8A8_SQ_PER_CHANNEL" | "INT8_SQ" | "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN" => {
            (Layout::new(8.0, 32.0, Over::Row), Some(8.0))
        }
        other => {
            return Err(k
                .wrong(
                    "quant_algo",
                    format!("algorithm \"{}\" is not known", other.chars().take(60).collect::<String>()),
                )
                .cure("import a configuration without the quantisation and set the bits in [precision]"));
        }
    })
}

pub(super) fn modelopt(k: &Keys) -> Result<Scheme> {
    let mut s = Scheme::new(None, WITH_HEAD);
    exclusions(&mut s, k, &["ignore", "exclude_modules"])?;
    let algo = k.text("quant_algo")?;
    let size = k.f64("group_size")?;
    let mixed = algo.is_some_and(|a| a.eq_ignore_ascii_case("MIXED_PRECISION"));
    if let Some(layers) = k.inner("quantized_layers")? {
        // Thousands of names with few algorithms.
        let mut by: BTreeMap<(String, u64), Vec<&str>> = BTreeMap::new();
        for name in layers.names() {
            let Some(layer) = layers.inner(name)? else { continue };
            let of = layer.text("quant_algo")?.unwrap_or("none").to_string();
            let size = layer.f64("group_size")?.unwrap_or(0.0);
            layer.finish(|key| {
                matches!(key, "awq_block_size" | "has_zero_point" | "pre_quant_scale" | "quantization")
            })?;
            by.entry((of, size.clamp(0.0, 1e9) as u64)).or_default().push(name);
        }
        for ((of, size), names) in by {
            let layout = match of.as_str() {
                "none" => None,
                of => Some(algorithm(k, of, Some(size as f64))?.0),
            };
            s.rules.push((Patterns::new(&names).map_err(|d| d.place(k.name("quantized_layers")))?, layout));
        }
        k.get("config_groups");
    } else if !mixed && let Some(algo) = algo {
        let (layout, activations) = algorithm(k, algo, size)?;
        (s.default, s.activations) = (Some(layout), activations);
        // They say the same once more, module by module where it is not for all.
        let mut grouped = Scheme::new(None, WITH_HEAD);
        if groups(k, &mut grouped, "")? && !grouped.rules.is_empty() {
            s.default = grouped.default;
            s.rules.extend(grouped.rules);
        }
    } else if !groups(k, &mut s, "")? && mixed {
        return Err(k
            .wrong("quantized_layers", "mixed precision without `quantized_layers` or `config_groups`")
            .cure("add one of them"));
    }
    s.kv = kv_cache(k)?;
    for key in ["has_zero_point", "pre_quant_scale", "smoothquant_val", "clamp_val", "use_custom_all_reduce"] {
        k.get(key);
    }
    Ok(s)
}

/// One tensor of Quark: the last, where it is quantised twice.
fn quark_tensor(k: &Keys, key: &str) -> Result<Option<Layout>> {
    let wrong = |k: &Keys, problem: String| k.wrong("dtype", problem).cure("fp4, fp6, fp8, int4 and int8 are known");
    let Some(value) = k.get(key) else { return Ok(None) };
    let last = value.as_array().map_or(Some(value), |l| l.last());
    let Some(map) = last.and_then(|v| v.as_object()).filter(|m| !m.is_empty()) else { return Ok(None) };
    let t = Keys::new(map, &format!("{}.", k.name(key)), k.reader());
    let Some(kind) = t.text("dtype")? else { return Ok(None) };
    let kind = if kind == "mx" { t.text("mx_element_dtype")?.unwrap_or("fp4") } else { kind };
    let bits = match kind {
        k if k.starts_with("fp4") || k.ends_with("int4") => 4.0,
        k if k.starts_with("fp6") => 6.0,
        k if k.starts_with("fp8") || k.ends_with("int8") => 8.0,
        "float16" | "bfloat16" | "float32" => return Ok(None),
        other => {
            return Err(wrong(
                &t,
                format!("elements of type \"{}\" are not known", other.chars().take(60).collect::<String>()),
            ));
        }
    };
    let narrow = t.text("scale_format")?.is_some_and(|f| f.eq_ignore_ascii_case("e8m0"));
    let zero = if kind.contains("int") && t.bool("symmetric")? == Some(false) { bits } else { 0.0 };
    let group = t.f64("group_size")?.filter(|g| *g > 0.0);
    Ok(Some(match (t.text("qscheme")?.unwrap_or("per_tensor"), group) {
        ("per_group" | "per_block", Some(g)) => {
            Layout::new(bits, if narrow { 8.0 } else { 16.0 } + zero, Over::Elements(g))
        }
        ("per_channel", _) => Layout::new(bits, 16.0 + zero, Over::Row),
        _ => Layout::new(bits, 0.0, Over::Tensor),
    }))
}

pub(super) fn quark(k: &Keys) -> Result<Scheme> {
    let mut s = Scheme::new(None, WITH_HEAD);
    exclusions(&mut s, k, &["exclude"])?;
    k.off("layer_type_quant_config", "bits by class of layer")?;
    if let Some(layers) = k.inner("layer_quant_config")? {
        for name in layers.names() {
            let Some(layer) = layers.inner(name)? else { continue };
            let layout = quark_tensor(&layer, "weight")?;
            s.rules.push((Patterns::new(&[name]).map_err(|d| d.place(layers.name(name)))?, layout));
        }
    }
    let Some(global) = k.inner("global_quant_config")? else {
        return Err(Diag::input("`global_quant_config` is missing (quantisation quark)")
            .place(k.name("global_quant_config"))
            .cure("add it, as Quark writes it"));
    };
    s.default = quark_tensor(&global, "weight")?;
    s.activations = quark_tensor(&global, "input_tensors")?.map(|l| l.element);
    global.get("output_tensors");
    global.get("bias");
    global.finish(|key| matches!(key, "target_device"))?;
    if let Some(kv) = k.inner("kv_cache_quant_config")? {
        for name in kv.names() {
            if let Some(of) = kv.inner(name)?
                && let Some(layout) = quark_tensor(&of, "output_tensors")?
            {
                s.kv = Some(layout.bits(1e9));
            }
        }
    }
    Ok(s)
}
