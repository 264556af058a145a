//! Families without experts, as baselines: one feed-forward part a layer.

use super::Family;
use crate::model::QkNorm;
use crate::model::hf::keys::Keys;
use crate::model::hf::shapes::{Architecture, architecture, full_unless, gqa, layers, normed, spans, stack};
use moesim_core::Result;

pub(super) const FAMILY: Family = Family {
    names: &[
        "llama",
        "mistral",
        "ministral",
        "ministral3",
        "qwen2",
        "qwen2_vl_text",
        "qwen2_vl",
        "qwen2_5_vl_text",
        "qwen2_5_vl",
        "qwen3",
        "qwen3_vl_text",
        "phi3",
        "gemma",
        "gemma2",
        "gemma3_text",
        "smollm3",
        "olmo",
        "olmo2",
        "olmo3",
        "granite",
        "glm",
        "glm4",
        "exaone4",
        "seed_oss",
        "cohere",
        "cohere2",
        "hunyuan_v1_dense",
        "ernie4_5",
        "internlm3",
        "mimo",
        "arcee",
        "nemotron",
        "apertus",
        "starcoder2",
        "helium",
    ],
    read,
    harmless: &[
        "no_rope_layers",
        "no_rope_layer_interval",
        "sliding_window_size",
        "use_mrope",
        "attention_out_bias",
        "model_parallel_size",
        "im_start_id",
        "im_end_id",
        "im_newline_id",
        "text_start_id",
        "text_end_id",
        "org_vocab_size",
        "eod_id",
        "cla_share_factor",
    ],
};

fn read(k: &Keys, family: &str) -> Result<Architecture> {
    let n = layers(k)?;
    k.off("use_cla", "keys and values shared by layers")?;
    k.off("use_bidirectional_attention", "attention to later tokens")?;
    let biases = matches!(family, "glm" | "glm4" | "seed_oss") || family.starts_with("qwen2");
    let mut attention = gqa(k, biases)?;
    attention.qk_norm = match family {
        "qwen3" | "qwen3_vl_text" | "gemma3_text" | "exaone4" | "apertus" | "hunyuan_v1_dense" => QkNorm::Head,
        "olmo2" | "olmo3" => QkNorm::Layer,
        "cohere" => normed(k, QkNorm::Head, false)?,
        _ => QkNorm::None,
    };
    for key in ["attention_bias", "qkv_bias", "use_bias", "use_qkv_bias"] {
        attention.bias = k.bool(key)?.unwrap_or(attention.bias);
    }
    let window = k.u32("sliding_window")?;
    let used = k.bool("use_sliding_window")?;
    let upper = k.u32("max_window_layers")?;
    let (every, spelt) = match k.get("sliding_window_pattern") {
        Some(v) if v.is_string() => (4, k.text("sliding_window_pattern")?),
        _ => (k.any(&["sliding_window_pattern", "_sliding_window_pattern"])?.unwrap_or(0), None),
    };
    // All but every so manieth layer have a window, counted from 1.
    let all_but = |l: u32, default: u32| {
        let every = if every > 0 { every } else { default };
        !(l + 1).is_multiple_of(every)
    };
    attention.pattern = spans(k, n, |l| {
        let sliding = window.is_some()
            && match family {
                "mistral" | "ministral" | "ministral3" | "phi3" | "starcoder2" => true,
                "gemma2" => all_but(l, 2),
                "gemma3_text" => all_but(l, 6),
                "olmo3" | "cohere2" => all_but(l, 4),
                "exaone4" => match spelt.filter(|t| !t.is_empty()) {
                    Some(t) => t.as_bytes()[l as usize % t.len()] == b'L',
                    None => all_but(l, 4),
                },
                _ => used == Some(true) && l >= upper.unwrap_or(28),
            };
        full_unless(k, sliding)
    })?;
    let mut a = architecture(k, stack(n, attention, Some(k.need(&["intermediate_size"])?), None))?;
    if matches!(family, "arcee" | "nemotron" | "apertus" | "starcoder2") {
        // Up and down only, without a gate.
        a.decoder.dense.iter_mut().for_each(|d| d.matrices = 2);
    }
    a.tied_by_default =
        family.starts_with("gemma") || matches!(family, "smollm3" | "cohere" | "cohere2" | "ernie4_5" | "starcoder2");
    Ok(a)
}
