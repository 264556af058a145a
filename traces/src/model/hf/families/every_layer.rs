//! Families whose layers all have experts.

use super::Family;
use crate::model::hf::keys::Keys;
use crate::model::hf::shapes::{
    Architecture, architecture, first_dense, full_unless, gqa, layers, normed, spans, stack,
};
use crate::model::{Heads, Moe, QkNorm};
use moesim_core::Result;

pub(super) const FAMILY: Family = Family {
    names: &[
        "mixtral",
        "phimoe",
        "minimax_m2",
        "olmoe",
        "flex_olmo",
        "granitemoe",
        "granitemoeshared",
        "gpt_oss",
        "aria_text",
        "mellum",
    ],
    read,
    harmless: &["lm_head_bias", "experts_per_token_norm", "num_expert_group"],
};

fn read(k: &Keys, family: &str) -> Result<Architecture> {
    let n = layers(k)?;
    let (biases, width) = match family {
        "gpt_oss" => (true, k.need(&["intermediate_size"])?),
        "mellum" => (false, k.need(&["moe_intermediate_size"])?),
        _ => (false, k.need(&["intermediate_size"])?),
    };
    let mut attention = gqa(k, k.bool("attention_bias")?.unwrap_or(biases))?;
    attention.qk_norm = match family {
        "olmoe" | "flex_olmo" => QkNorm::Layer,
        "mellum" => QkNorm::Head,
        "minimax_m2" => normed(k, QkNorm::Layer, true)?,
        _ => QkNorm::None,
    };
    let slides = k.u32("sliding_window")?;
    let positions = k.u32("max_position_embeddings")?.unwrap_or(u32::MAX);
    attention.pattern = spans(k, n, |l| match family {
        "gpt_oss" => full_unless(k, l % 2 == 0),
        "mellum" => Ok("full".into()),
        // A window as long as the context is none.
        "phimoe" => full_unless(k, slides.is_some_and(|w| w < positions && positions < u32::MAX)),
        _ => full_unless(k, slides.is_some()),
    })?;
    let (shared_experts, shared_intermediate) = match family {
        "aria_text" => (k.u32("moe_num_shared_experts")?.unwrap_or(2), width),
        _ => match k.u32("shared_intermediate_size")? {
            Some(width) if width > 0 => (1, width),
            _ => (0, 0),
        },
    };
    let moe = Moe {
        experts: k.need(&["num_local_experts", "num_experts", "moe_num_experts"])?,
        top_k: k.need(&["num_experts_per_tok", "experts_per_token", "moe_topk"])?,
        expert_intermediate: width,
        matrices: 3,
        shared_experts,
        shared_intermediate,
        bias: family == "gpt_oss",
        ..Moe::default()
    };
    let mut decoder = stack(n, attention, None, Some(moe));
    if let Some(dense) = crate::model::hf::shapes::listed_dense(k, "mlp_layer_types", n)?
        && !dense.is_empty()
    {
        decoder.dense_layers = dense;
        decoder.dense = Some(crate::model::Dense { intermediate: k.need(&["intermediate_size"])?, matrices: 3 });
    } else if family == "mellum" {
        // The width that dense layers would have.
        k.u32("intermediate_size")?;
    }
    let mut a = architecture(k, decoder)?;
    if family == "minimax_m2" {
        minimax(k, n, &mut a)?;
    }
    Ok(a)
}

/// Multi-token prediction, and the kinds of attention and of norms, of which one each is known.
fn minimax(k: &Keys, layers: u32, a: &mut Architecture) -> Result<()> {
    if let Some(kind) = k.text("qk_norm_type")?.filter(|kind| *kind != "per_layer") {
        let problem = format!("is \"{kind}\", where norms over all heads, \"per_layer\", are what this family has");
        return Err(k.wrong("qk_norm_type", problem).cure("correct it, as the model's own configuration has it"));
    }
    if let Some(kinds) = k.u32s("attn_type_list")?
        && (kinds.len() != layers as usize || kinds.iter().any(|t| *t != 1))
    {
        return Err(k
            .wrong("attn_type_list", "has layers that are not of full attention, 1, which cannot be expressed")
            .cure("choose a model with full attention in all layers"));
    }
    let modules = k.u32("num_mtp_modules")?.unwrap_or(0);
    k.u32("mtp_transformer_layers")?;
    if k.bool("use_mtp")?.unwrap_or(false) && modules > 0 {
        a.notes.push(format!(
            "num_mtp_modules: {modules} modules for multi-token prediction are left out, since published checkpoints lack their weights"
        ));
    }
    Ok(())
}

pub(super) const DBRX: Family = Family { names: &["dbrx"], read: dbrx, harmless: &[] };

fn dbrx(k: &Keys, _: &str) -> Result<Architecture> {
    let missing =
        |key: &str| k.wrong(key, format!("`{key}` is missing")).cure("add it, as the model's own configuration has it");
    let attn = k.inner("attn_config")?;
    let ffn = k.inner("ffn_config")?.ok_or_else(|| missing("ffn_config"))?;
    let heads = k.need(&["n_heads"])?;
    let kv_heads = match &attn {
        Some(a) => a.u32("kv_n_heads")?.unwrap_or(heads),
        None => heads,
    };
    let head_dim = k.need(&["d_model"])? / heads.max(1);
    let mut attention = gqa(k, false)?;
    attention.heads = Heads::Gqa { heads, kv_heads, head_dim };
    let moe = Moe {
        experts: ffn.need(&["moe_num_experts"])?,
        top_k: ffn.need(&["moe_top_k"])?,
        expert_intermediate: ffn.need(&["ffn_hidden_size"])?,
        matrices: 3,
        ..Moe::default()
    };
    ffn.u32("hidden_size")?;
    for inner in attn.iter().chain([&ffn]) {
        inner.finish(super::harmless)?;
    }
    architecture(k, stack(layers(k)?, attention, None, Some(moe)))
}

pub(super) const JETMOE: Family = Family { names: &["jetmoe"], read: jetmoe, harmless: &["glu", "num_layers"] };

/// Mixtures of attention heads: each of the experts has queries and outputs of its own.
fn jetmoe(k: &Keys, _: &str) -> Result<Architecture> {
    let experts = k.need(&["num_local_experts", "moe_num_experts"])?;
    let top_k = k.need(&["num_experts_per_tok", "moe_top_k"])?;
    let kv_heads = k.need(&["num_key_value_heads"])?;
    // Queries of all experts that a token takes.
    k.u32("num_attention_heads")?;
    let mut attention = gqa_of(kv_heads, k.need(&["kv_channels", "head_dim"])?);
    (attention.experts, attention.top_k) = (experts, top_k);
    let moe = Moe {
        experts,
        top_k,
        expert_intermediate: k.need(&["intermediate_size", "ffn_hidden_size"])?,
        matrices: 3,
        ..Moe::default()
    };
    Ok(Architecture { tied_by_default: true, ..architecture(k, stack(layers(k)?, attention, None, Some(moe)))? })
}

fn gqa_of(heads: u32, head_dim: u32) -> crate::model::AttentionSpec {
    crate::model::AttentionSpec {
        heads: Heads::Gqa { heads, kv_heads: heads, head_dim },
        pattern: vec!["full".into()],
        bias: false,
        qk_norm: QkNorm::None,
        experts: 0,
        top_k: 0,
    }
}

pub(super) const HUNYUAN: Family = Family {
    names: &["hunyuan_v1_moe", "hunyuan"],
    read: hunyuan,
    harmless: &[
        "cla_share_factor",
        "moe_drop_tokens",
        "moe_random_routing_dropped_token",
        "org_vocab_size",
        "eod_id",
        "im_start_id",
        "im_end_id",
        "im_newline_id",
        "text_start_id",
        "text_end_id",
        "video_start_id",
        "video_end_id",
        "mask_init_id",
        "pad_id",
        "sep_id",
        "bos_id",
        "eos_id",
        "class_num",
        "pool_type",
        "skip_cls_token",
        "anyres_pooling_size",
        "anyres_vit_max_image_size",
        "anyres_vit_two_views",
        "add_classification_head",
        "max_image_size",
        "vit_type",
        "vit_path",
        "vit_mapping_type",
        "vit_patch",
        "vit_token",
        "vit_add_patchemb_bias",
        "vit_input_resolution",
        "vit_norm_type",
        "vit_remove_prenorm",
        "vit_used_rms_norm",
        "num_media_embeds",
        "position_embedding_xdrope",
        "dense_list",
    ],
};

/// Values that differ from layer to layer may be given as lists; a shared expert beside the routed ones.
fn hunyuan(k: &Keys, family: &str) -> Result<Architecture> {
    let n = layers(k)?;
    k.off("use_cla", "keys and values shared by layers")?;
    k.off("use_mla", "latent attention in this family")?;
    for key in ["q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"] {
        k.u32(key)?;
    }
    let mut attention = gqa(k, k.bool("attention_bias")?.unwrap_or(false))?;
    // The class of transformers always has norms, the older code that came with models has them if it is told to.
    attention.qk_norm = if family == "hunyuan" { normed(k, QkNorm::Head, false)? } else { QkNorm::Head };
    let plain = k.need(&["intermediate_size"])?;
    let width = k.u32("moe_intermediate_size")?.unwrap_or(plain);
    let has_shared = k.bool("use_mixed_mlp_moe")?.unwrap_or(true);
    let shared_experts = if has_shared { k.u32("num_shared_expert")?.unwrap_or(1) } else { 0 };
    let moe = Moe {
        experts: k.need(&["num_experts", "num_local_experts"])?,
        top_k: k.need(&["moe_topk", "num_experts_per_tok"])?,
        expert_intermediate: width,
        matrices: 3,
        shared_experts,
        shared_intermediate: if shared_experts > 0 { width } else { 0 },
        ..Moe::default()
    };
    let first = k.u32("moe_layer_num_skipped")?.unwrap_or(0);
    let mut decoder = stack(n, attention, Some(plain), Some(moe));
    decoder.dense_layers = first_dense(first, n);
    architecture(k, decoder)
}
