//! Qwen's mixtures of experts: every so manieth layer, with exceptions.

use super::Family;
use crate::model::hf::keys::Keys;
use crate::model::hf::shapes::{Architecture, architecture, full_unless, gqa, layers, spans, stack};
use crate::model::{Moe, QkNorm};
use moesim_core::Result;

pub(super) const FAMILY: Family = Family {
    names: &["qwen2_moe", "qwen3_moe", "qwen3_vl_moe_text", "qwen3_vl_moe", "qwen3_omni_moe_text"],
    read,
    harmless: &["max_window_layers", "shared_expert_gate"],
};

fn read(k: &Keys, family: &str) -> Result<Architecture> {
    let n = layers(k)?;
    let old = family == "qwen2_moe";
    let bias = k.bool("qkv_bias")?.or(k.bool("attention_bias")?).unwrap_or(old);
    let mut attention = gqa(k, bias)?;
    attention.qk_norm = if old { QkNorm::None } else { QkNorm::Head };
    let slides = k.bool("use_sliding_window")?.unwrap_or(false) && k.u32("sliding_window")?.is_some();
    k.u32("sliding_window")?;
    let upper = k.u32("max_window_layers")?;
    attention.pattern = spans(k, n, |l| {
        full_unless(k, slides && if old { l % 2 == 0 && l < upper.unwrap_or(28) } else { l >= upper.unwrap_or(0) })
    })?;
    let shared = if old {
        Some(k.need(&["shared_expert_intermediate_size"])?)
    } else {
        k.off("shared_expert_intermediate_size", "a shared expert in this family")?;
        None
    };
    let moe = Moe {
        experts: k.need(&["num_experts", "num_local_experts"])?,
        top_k: k.need(&["num_experts_per_tok"])?,
        expert_intermediate: k.need(&["moe_intermediate_size"])?,
        matrices: 3,
        shared_experts: u32::from(shared.is_some()),
        shared_intermediate: shared.unwrap_or(0),
        ..Moe::default()
    };
    // Layer l is sparse if (l + 1) % step == 0 and it is not listed.
    let step = k.u32("decoder_sparse_step")?.unwrap_or(1).max(1);
    let mut decoder = stack(n, attention, k.u32("intermediate_size")?, Some(moe));
    (decoder.moe_every, decoder.moe_offset) = (step, step - 1);
    decoder.dense_layers = k.u32s("mlp_only_layers")?.unwrap_or_default();
    architecture(k, decoder)
}
