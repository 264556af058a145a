//! Families that need what model files cannot express: refused by what that is.

use crate::model::hf::keys::Keys;
use moesim_core::{Diag, Result};

/// Names of families, a key that says what is lacking, and what it is.
type Lacking = (&'static [&'static str], &'static [&'static str], &'static str);

const SPARSE: &str = "sparse attention whose tokens an indexer chooses";
const DELTA: &str = "layers of linear attention (gated delta rule)";
const MAMBA: &str = "Mamba layers";
const SHORT: &str = "layers of short convolutions";
const GATED: &str = "attention with an output gate";

const LACKING: &[Lacking] = &[
    (&["deepseek_v32", "glm_moe_dsa", "hy_v4", "dots3_note", "dots3_note_text", "glm5_next"], &["index_topk"], SPARSE),
    (
        &["deepseek_v4", "deepseek_ref"],
        &["compress_ratios", "index_topk"],
        "compressed sparse attention and hyper-connections",
    ),
    (&["minimax_m3", "minimax_m3_vl", "minimax_m3_vl_text"], &["sparse_attention_config"], SPARSE),
    (
        &["qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5", "qwen3_5_text", "olmo_hybrid", "qwen4_exp"],
        &["linear_num_value_heads", "layer_types"],
        DELTA,
    ),
    (
        &["kimi_linear", "kimi_k3", "bailing_hybrid"],
        &["linear_attn_config", "layer_group_size"],
        "layers of linear attention (Kimi delta)",
    ),
    (&["bailing_moe_linear", "bailing_moe_v2_5"], &["layer_group_size"], "layers of linear attention"),
    (
        &["minimax_m1", "minimax_text_01", "minimax", "MiniMaxText01"],
        &["attn_type_list", "layer_types"],
        "layers of linear (lightning) attention",
    ),
    (&["nemotron_h", "nemotron_h_omni", "nemotron_h_nas"], &["hybrid_override_pattern", "layers_block_type"], MAMBA),
    (&["jamba"], &["attn_layer_period"], MAMBA),
    (&["granitemoehybrid", "bamba", "falcon_h1", "zamba2", "zamba"], &["layer_types", "mamba_n_heads"], MAMBA),
    (&["lfm2_moe", "lfm2"], &["conv_L_cache"], SHORT),
    (&["step3_text", "step3", "step3_vl"], &["share_q_dim"], "attention that factorises queries (MFA)"),
    (&["step3p5", "step3p7", "step3p7_text"], &["use_head_wise_attn_gate", "layer_types"], GATED),
    (
        &["longcat_flash", "longcat_flash_ngram"],
        &["zero_expert_num", "ffn_hidden_size"],
        "two attentions and two dense parts a layer",
    ),
    (&["mimo_v2_flash", "mimo_v2"], &["v_head_dim", "swa_v_head_dim"], "values narrower than keys"),
    (&["afmoe", "laguna"], &["gating", "global_attn_every_n_layers"], GATED),
    (
        &["gemma4", "gemma4_text", "gemma4_unified"],
        &["global_head_dim", "attention_k_eq_v"],
        "heads of another size in full layers, and values that are keys",
    ),
    (
        &["gemma3n", "gemma3n_text"],
        &["altup_num_inputs", "hidden_size_per_layer_input"],
        "embeddings of each layer and alternating updates",
    ),
    (&["nemotron-nas"], &["block_configs"], "widths and attention that differ from layer to layer"),
    (&["arctic"], &["use_residual"], "a dense part beside the experts of a layer"),
    (
        &["ernie4_5_vl_moe", "ernie4_5_moe_vl", "ernie4_5_vl_moe_text"],
        &["moe_intermediate_size", "moe_num_experts"],
        "experts of text and of pictures with gates of their own",
    ),
    (&["mllama", "mllama_text_model"], &["cross_attention_layers"], "attention to pictures between layers"),
];

/// Refuses families that this format cannot express yet.
///
/// # Errors
/// With the key that says so, if the configuration has it.
pub(in crate::model::hf) fn refuse_lacking(k: &Keys, family: &str) -> Result<()> {
    let Some((_, keys, what)) = LACKING.iter().find(|l| l.0.contains(&family)) else { return Ok(()) };
    let key = keys.iter().find(|key| k.names().any(|n| n == **key)).copied().unwrap_or("model_type");
    Err(Diag::input(format!("family {family} has {what}, which model files cannot express yet"))
        .place(k.name(key))
        .cure("choose a model with full, windowed, chunked or latent attention in every layer"))
}
