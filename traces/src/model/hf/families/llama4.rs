//! Llama 4: every so manieth layer has experts, one shared expert as wide as a routed one, and chunks of attention.

use super::Family;
use crate::model::Moe;
use crate::model::hf::keys::Keys;
use crate::model::hf::shapes::{Architecture, architecture, gqa, layers, spans, stack};
use moesim_core::Result;

pub(super) const FAMILY: Family =
    Family { names: &["llama4_text", "llama4"], read, harmless: &["for_llm_compressor", "use_cache"] };

fn read(k: &Keys, _: &str) -> Result<Architecture> {
    let n = layers(k)?;
    let mut attention = gqa(k, k.bool("attention_bias")?.unwrap_or(false))?;
    let chunk = format!("chunk:{}", k.u32("attention_chunk_size")?.unwrap_or(8192));
    let every = k.u32("no_rope_layer_interval")?.unwrap_or(4).max(1);
    // 1: rotary positions within a chunk; 0: no positions, full attention.
    let listed = k.u32s("no_rope_layers")?.filter(|l| !l.is_empty());
    let rope = |l: u32| match &listed {
        Some(list) => list.get(l as usize).is_none_or(|r| *r != 0),
        None => !(l + 1).is_multiple_of(every),
    };
    attention.pattern = spans(k, n, |l| Ok(if rope(l) { chunk.clone() } else { "full".into() }))?;
    let width = k.need(&["intermediate_size"])?;
    let moe = Moe {
        experts: k.need(&["num_local_experts", "num_experts"])?,
        top_k: k.need(&["num_experts_per_tok"])?,
        expert_intermediate: width,
        matrices: 3,
        shared_experts: 1,
        shared_intermediate: width,
        ..Moe::default()
    };
    let mut decoder = stack(n, attention, k.u32("intermediate_size_mlp")?, Some(moe));
    let step = k.u32("interleave_moe_layer_step")?.unwrap_or(1).max(1);
    (decoder.moe_every, decoder.moe_offset) = (step, step - 1);
    if let Some(sparse) = k.u32s("moe_layers")?.filter(|l| !l.is_empty()) {
        (decoder.moe_every, decoder.moe_offset) = (1, 0);
        decoder.dense_layers = (0..n.min(4096)).filter(|l| !sparse.contains(l)).collect();
    }
    architecture(k, decoder)
}
