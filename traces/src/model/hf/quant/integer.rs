//! Methods that round weights in groups after training: GPTQ, AWQ, AutoRound, bitsandbytes, torchao, MLX.

use super::methods::kv_cache;
use super::modules::{CLASSES, Class};
use super::patterns::Patterns;
use super::{LINEAR, Layout, Over, Scheme, WITH_HEAD};
use crate::model::hf::keys::Keys;
use moesim_core::Result;

/// A scale of 16 bits and a zero point as wide as an element for each group; no group: for each row.
fn grouped(bits: f64, group: Option<f64>) -> Layout {
    let over = group.filter(|g| *g > 0.0).map_or(Over::Row, Over::Elements);
    Layout::new(bits, 16.0 + bits, over)
}

fn bits(k: &Keys, keys: &[&str]) -> Result<Option<f64>> {
    for key in keys {
        if let Some(bits) = k.f64(key)? {
            if !(1.0..=16.0).contains(&bits) {
                return Err(k.wrong(key, format!("{bits} bits an element is out of range")).cure("give 1 to 16"));
            }
            return Ok(Some(bits));
        }
    }
    Ok(None)
}

fn group(k: &Keys, keys: &[&str]) -> Result<Option<f64>> {
    for key in keys {
        if let Some(n) = k.f64(key)? {
            return Ok(Some(n));
        }
    }
    Ok(None)
}

pub(super) fn gptq(k: &Keys) -> Result<Scheme> {
    let width = bits(k, &["bits", "wbits"])?.unwrap_or(4.0);
    let size = group(k, &["group_size", "groupsize"])?.unwrap_or(128.0);
    k.bool("sym")?;
    let layout = grouped(width, Some(size));
    let head = k.bool("lm_head")?.unwrap_or(false);
    let mut s = Scheme::new(Some(layout), if head { WITH_HEAD } else { LINEAR });
    if let Some(dynamic) = k.inner("dynamic")? {
        // "-:" leaves out what a regular expression matches, "+:" or nothing changes it.
        for name in dynamic.names() {
            let inner = dynamic.inner(name)?;
            let pattern = name.trim_start_matches(['-', '+']).trim_start_matches(':');
            let differs = match (&inner, name.starts_with('-')) {
                (Some(o), false) => {
                    let of =
                        grouped(bits(o, &["bits"])?.unwrap_or(width), Some(group(o, &["group_size"])?.unwrap_or(size)));
                    o.bool("sym")?;
                    o.finish(|key| matches!(key, "desc_act" | "act_group_aware" | "mse" | "damp_percent"))?;
                    Some(of)
                }
                _ => None,
            };
            s.rules
                .push((Patterns::new(&[&format!("re:{pattern}")]).map_err(|d| d.place(k.name("dynamic")))?, differs));
        }
    }
    if let Some(inside) = k.get("modules_in_block_to_quantize").and_then(|v| v.as_array()) {
        let names: Vec<&str> = inside
            .iter()
            .flat_map(|v| v.as_array().map_or(vec![v], |l| l.iter().collect()))
            .filter_map(|v| v.as_str())
            .collect();
        s.rules.push((Patterns::new(&names).map_err(|d| d.place(k.name("modules_in_block_to_quantize")))?, s.default));
        s.default = None;
    }
    s.exclude(k, &["modules_to_not_convert", "ignore"])?;
    Ok(s)
}

pub(super) fn awq(k: &Keys) -> Result<Scheme> {
    let width = bits(k, &["bits", "w_bit"])?.unwrap_or(4.0);
    let size = group(k, &["group_size", "q_group_size"])?.unwrap_or(128.0);
    k.bool("zero_point")?;
    let mut s = Scheme::new(Some(grouped(width, Some(size))), LINEAR);
    s.exclude(k, &["modules_to_not_convert"])?;
    Ok(s)
}

pub(super) fn auto_round(k: &Keys) -> Result<Scheme> {
    let (width, size) = (bits(k, &["bits"])?.unwrap_or(4.0), group(k, &["group_size"])?);
    let kind = k.text("data_type")?.unwrap_or("int");
    k.bool("sym")?;
    k.off("super_bits", "scales that are quantised themselves, as in GGUF,")?;
    k.f64("super_group_size")?;
    let layout = |bits: f64, size: Option<f64>, kind: &str| -> Result<Option<Layout>> {
        Ok(match kind {
            _ if bits >= 16.0 => None,
            "int" | "int_sym" | "int_asym" => Some(grouped(bits, Some(size.unwrap_or(128.0)))),
            k if k.starts_with("mx") => Some(Layout::new(bits, 8.0, Over::Elements(size.unwrap_or(32.0)))),
            k if k.starts_with("nv") => Some(Layout::new(bits, 8.0, Over::Elements(size.unwrap_or(16.0)))),
            k if k.starts_with("fp8") => Some(Layout::new(8.0, 32.0, Over::Tensor)),
            "float" | "fp" => None,
            other => {
                return Err(k
                    .wrong("data_type", format!("elements of type \"{other}\" cannot be read"))
                    .cure("int, mx_fp, nv_fp and fp8 can"));
            }
        })
    };
    let mut s = Scheme::new(layout(width, size, kind)?, LINEAR);
    if let Some(extra) = k.inner("extra_config")? {
        for name in extra.names() {
            let Some(o) = extra.inner(name)? else { continue };
            let of = layout(
                bits(&o, &["bits"])?.unwrap_or(width),
                group(&o, &["group_size"])?.or(size),
                o.text("data_type")?.unwrap_or(kind),
            )?;
            for harmless in [
                "sym",
                "act_bits",
                "act_data_type",
                "act_dynamic",
                "act_sym",
                "act_group_size",
                "in_blocks",
                "scale_dtype",
            ] {
                o.get(harmless);
            }
            o.finish(|key| matches!(key, "super_bits" | "super_group_size"))?;
            s.rules.push((Patterns::new(&[name]).map_err(|d| d.place(k.name("extra_config")))?, of));
        }
    }
    s.exclude(k, &["modules_to_not_convert"])?;
    for key in ["act_data_type", "act_dynamic", "act_sym", "act_group_size"] {
        k.get(key);
    }
    s.activations = k.f64("act_bits")?;
    s.kv = kv_cache(k)?;
    Ok(s)
}

/// QLoRA (arXiv 2305.14314): 64 elements share a scale of 32 bits, or one of 8 of which 256 share one of 32. LLM.int8(): a
/// scale a row.
pub(super) fn bitsandbytes(k: &Keys) -> Result<Scheme> {
    let four = k.bool("load_in_4bit")?.unwrap_or(false) || k.bool("_load_in_4bit")?.unwrap_or(false);
    let double = k.bool("bnb_4bit_use_double_quant")?.unwrap_or(false);
    k.text("bnb_4bit_quant_type")?;
    let eight = k.bool("load_in_8bit")?.unwrap_or(false) || k.bool("_load_in_8bit")?.unwrap_or(false);
    let layout = match (four, eight) {
        (true, _) => Some(Layout::new(4.0, if double { 8.0 + 32.0 / 256.0 } else { 32.0 }, Over::Elements(64.0))),
        (_, true) => Some(Layout::new(8.0, 32.0, Over::Row)),
        _ => None,
    };
    let mut s = Scheme::new(layout, LINEAR);
    s.exclude(k, &["llm_int8_skip_modules", "modules_to_not_convert"])?;
    s.notes.push(
        "bitsandbytes: experts are taken as quantised; checkpoints that keep them as one tensor a layer leave them as they are".into(),
    );
    Ok(s)
}

pub(super) fn torchao(k: &Keys) -> Result<Scheme> {
    let missing = || k.wrong("quant_type", "`quant_type` is missing").cure("add it, as torchao writes it");
    let value = k.get("quant_type").ok_or_else(missing)?;
    let mut size = None;
    let kind = if value.is_object() {
        let outer = k.inner("quant_type")?.ok_or_else(missing)?;
        let default = outer.inner("default")?.ok_or_else(missing)?;
        outer.finish(|_| false)?;
        if let Some(data) = default.inner("_data")? {
            size = group(&data, &["group_size"])?;
        }
        default.text("_type")?.ok_or_else(missing)?
    } else {
        if let Some(args) = k.inner("quant_type_kwargs")? {
            size = group(&args, &["group_size"])?;
        }
        k.text("quant_type")?.ok_or_else(missing)?
    };
    // Groups have a scale and a zero point of 16 bits each.
    let four = |default: f64| Layout::new(4.0, 32.0, Over::Elements(size.unwrap_or(default)));
    let eight = size.map_or(Layout::new(8.0, 16.0, Over::Row), |g| Layout::new(8.0, 16.0, Over::Elements(g)));
    let (layout, activations) = match kind {
        "Int4WeightOnlyConfig" | "int4_weight_only" => (four(128.0), None),
        "Int8DynamicActivationInt4WeightConfig" | "int8_dynamic_activation_int4_weight" => (four(32.0), Some(8.0)),
        "Float8DynamicActivationInt4WeightConfig" => (four(128.0), Some(8.0)),
        "Int8WeightOnlyConfig" | "int8_weight_only" => (eight, None),
        "Int8DynamicActivationInt8WeightConfig" | "int8_dynamic_activation_int8_weight" => (eight, Some(8.0)),
        "Float8WeightOnlyConfig" | "float8_weight_only" => (Layout::new(8.0, 32.0, Over::Row), None),
        "Float8DynamicActivationFloat8WeightConfig" | "float8_dynamic_activation_float8_weight" => {
            (Layout::new(8.0, 32.0, Over::Row), Some(8.0))
        }
        other => {
            return Err(k
                .wrong("quant_type", format!("\"{other}\" is not known"))
                .cure("import a configuration without the quantisation and set the bits in [precision]"));
        }
    };
    let tables = k.bool("include_input_output_embeddings")?.unwrap_or(false);
    const WITH_TABLES: &[Class] =
        &[Class::Attention, Class::Experts, Class::Shared, Class::Dense, Class::Embedding, Class::Head];
    let mut s = Scheme::new(Some(layout), if tables { WITH_TABLES } else { LINEAR });
    s.exclude(k, &["modules_to_not_convert"])?;
    k.get("quant_type_kwargs");
    s.activations = activations;
    Ok(s)
}

/// MLX quantises every matrix, tables and routers too, unless a module's own entry says otherwise.
pub(super) fn mlx(k: &Keys) -> Result<Scheme> {
    let of = |k: &Keys, bits_default: f64, group_default: Option<f64>, mode: &str| -> Result<Layout> {
        let size = group(k, &["group_size"])?.or(group_default);
        let width = bits(k, &["bits"])?;
        Ok(match k.text("mode")?.unwrap_or(mode) {
            // A scale and a bias of 16 bits each.
            "affine" => Layout::new(width.unwrap_or(bits_default), 32.0, Over::Elements(size.unwrap_or(64.0))),
            "mxfp4" => Layout::new(4.0, 8.0, Over::Elements(32.0)),
            "nvfp4" => Layout::new(4.0, 8.0, Over::Elements(16.0)),
            "mxfp8" => Layout::new(8.0, 8.0, Over::Elements(32.0)),
            other => {
                return Err(k
                    .wrong("mode", format!("mode \"{other}\" is not known"))
                    .cure("affine, mxfp4, nvfp4 and mxfp8 are"));
            }
        })
    };
    let default = of(k, 4.0, None, "affine")?;
    let (width, size) = (k.f64("bits")?.unwrap_or(4.0), k.f64("group_size")?);
    let mut s = Scheme::new(Some(default), &CLASSES);
    for name in k.unread() {
        let Some(value) = k.get(name) else { continue };
        let layout = match (value.as_bool(), value.is_object()) {
            (Some(true), _) => Some(default),
            (Some(false), _) => None,
            (_, true) => {
                let Some(inner) = k.inner(name)? else { continue };
                let layout = of(&inner, width, size, "affine")?;
                inner.finish(|_| false)?;
                Some(layout)
            }
            _ if name == "quant_method" || name == "linear_class" || name == "quantization_mode" => continue,
            _ => {
                return Err(k
                    .wrong(name, "is neither an object of bits and group_size nor true or false")
                    .cure("give each module its bits, or remove the key"));
            }
        };
        // Modules that differ alike share a rule.
        s.rules.push((Patterns::new(&[name]).map_err(|d| d.place(k.name(name)))?, layout));
    }
    Ok(s)
}
