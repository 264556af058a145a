//! The families of models that are imported, one line each: names, who reads them, which of their keys are harmless.

mod dense;
mod every_layer;
mod first_dense;
mod lacking;
mod latent;
mod llama4;
mod qwen;

use super::keys::Keys;
use super::shapes::Architecture;
use moesim_core::{Diag, Result};

pub(super) use lacking::refuse_lacking;

/// A group of families that one function reads.
pub(super) struct Family {
    /// Values of `model_type`.
    pub names: &'static [&'static str],
    /// Reads an architecture; the second argument is the name.
    pub read: fn(&Keys, &str) -> Result<Architecture>,
    /// Keys that bear on neither sizes nor precision nor attention in these families, beside [`HARMLESS`].
    pub harmless: &'static [&'static str],
}

pub(super) const FAMILIES: &[Family] = &[
    every_layer::FAMILY,
    every_layer::DBRX,
    every_layer::JETMOE,
    every_layer::HUNYUAN,
    qwen::FAMILY,
    first_dense::FAMILY,
    first_dense::BAILING,
    first_dense::ERNIE,
    latent::FAMILY,
    llama4::FAMILY,
    dense::FAMILY,
];

/// Finds the family of that name.
///
/// # Errors
/// Families that need what model files cannot express, by what they need, and names that are not known.
pub(super) fn find(k: &Keys, name: &str) -> Result<&'static Family> {
    refuse_lacking(k, name)?;
    if let Some(family) = FAMILIES.iter().find(|f| f.names.contains(&name)) {
        return Ok(family);
    }
    let short: String = name.chars().take(60).collect();
    let known: Vec<&str> = FAMILIES.iter().flat_map(|f| f.names).copied().collect();
    Err(Diag::input(format!("family \"{short}\" is not one that is imported")).place(k.name("model_type")).cure(
        format!(
            "write a model file, as `moesim show mixtral-8x7b` prints one (imported are, among {}: {})",
            known.len(),
            known.iter().filter(|n| !n.contains("_text")).take(40).copied().collect::<Vec<_>>().join(", ")
        ),
    ))
}

/// Whether a key bears on neither sizes nor precision nor attention, in any family that is imported.
pub(super) fn harmless(key: &str) -> bool {
    key.starts_with('_')
        || HARMLESS.contains(&key)
        || ENDINGS.iter().any(|e| key.ends_with(e))
        || OTHER_PARTS.contains(&key)
}

/// Ids of tokens, rates of dropout, small numbers in norms, weights of losses.
const ENDINGS: &[&str] = &[
    "_token_id",
    "_token_ids",
    "_token_index",
    "_dropout",
    "_dropout_prob",
    "_pdrop",
    "_eps",
    "_epsilon",
    "_loss_coef",
    "_loss_alpha",
    "_loss_weight",
    "_loss_factor",
    "_loss_scaling_factor",
    "_jitter_noise",
    "_softcapping",
];

/// Parts of a model beside the language model, which are left out with a note.
pub(super) const OTHER_PARTS: &[&str] = &[
    "vision_config",
    "audio_config",
    "talker_config",
    "code2wav_config",
    "vit_config",
    "visual",
    "vision_tower",
    "projector_config",
    "speech_config",
    "sam_config",
    "aligner_config",
    "gen_vision_config",
    "mm_projector_config",
    "img_processor",
    "embd_layer",
    "audio_processor",
];

#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    // What a configuration is, and who wrote it.
    "architectures", "auto_map", "model_type", "transformers_version", "torchscript", "use_bfloat16", "is_decoder",
    "is_encoder_decoder", "add_cross_attention", "cross_attention_hidden_size", "tie_encoder_decoder", "pruned_heads",
    "finetuning_task", "id2label", "label2id", "num_labels", "problem_type", "task_specific_params", "tokenizer_class", "prefix",
    "chunk_size_feed_forward", "tf_legacy_loss", "gradient_checkpointing", "pretraining_tp", "ep_size", "initializer_range",
    "initializer_factor", "init_method", "init_std", "seq_aux", "name", "framework", "base_model", "custom_generate",
    "unsloth_version", "unsloth_fixed", "model_name", "language", "license", "save_dtype", "embed_init_std",
    "scale_attn_weights", "time_step_limit", "use_flash_attn", "use_flash_attention_2", "use_fused_rms_norm", "use_fused_crossentropy",
    "use_fused_rope", "attn_implementation", "experts_implementation", "fuse_rms_norm", "fuse_linear", "fuse_rope", "recompute",
    "recompute_use_reentrant", "sequence_parallel", "tensor_parallel_output", "tensor_parallel_degree", "context_parallel_degree",
    "fp16_opt_level", "position_embedding_type", "pipeline_parallel_degree", "using_precision_check", "float32_dtype",
    // How tokens are chosen.
    "max_length", "max_new_tokens", "min_length", "min_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
    "diversity_penalty", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "length_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores",
    "output_attentions", "output_hidden_states", "return_dict", "return_dict_in_generate", "remove_invalid_values",
    "exponential_decay_length_penalty", "cache_implementation", "suppress_tokens", "begin_suppress_tokens", "use_cache", "use_return_dict",
    // Activations, norms and factors, which have no weights or vectors only.
    "hidden_act", "hidden_activation", "hidden_activation_param", "activation_function", "ffn_act_fn", "mlp_hidden_act",
    "normalization_type", "norm_type", "use_rmsnorm", "use_rms_norm", "rms_norm", "zero_centered_gamma", "norm_head",
    "use_qk_norm", "qk_layernorm", "qk_norm", "qk_norm_type", "use_qk_layernorm", "use_norm", "norm_after", "sandwich_norm", "query_key_norm",
    "embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier", "logit_scale", "scale_emb",
    "query_pre_attn_scalar", "attention_scale", "scale_depth", "dim_model_base", "mup_enabled", "clip_qkv", "swiglu_limit",
    "swiglu_alpha", "output_multiplier", "attn_scale", "floor_scale", "attn_temperature_tuning", "softmax_scale", "use_sink_attention",
    // Rotary positions; what they make of the length is read.
    "rope_theta", "rope_scaling", "rope_parameters", "rope_type", "rope_interleave", "rope_interleaved", "rope_ratio", "rope_3d", "rotary_dim",
    "rotary_pct", "rotary_emb_base", "rotary_type", "partial_rotary_factor", "rope_local_base_freq", "swa_rope_theta", "mrope_section",
    "global_rope_theta", "local_rope_theta", "original_max_position_embeddings", "max_rope_theta", "use_rotary_pos_emb", "initial_context_length",
    "rope_percent", "long_rope", "use_rotary",
    // How the gate scores and mixes: which experts it selects is the trace's.
    "norm_topk_prob", "scoring_func", "score_function", "topk_method", "topk_group", "n_group", "routed_scaling_factor", "route_scale",
    "router_scaling_factor", "moe_routed_scaling_factor", "moe_router_activation_func", "moe_renormalize", "moe_norm_topk_prob",
    "moe_router_enable_expert_bias", "use_expert_bias", "use_routing_bias", "moe_router_enable_routed_scaling",
    "moe_router_topk_scaling_factor", "moe_router_score_function", "moe_router_use_sigmoid", "enable_moe_fp32_combine", "router_dtype",
    "router_bias", "moe_norm_min", "moe_gate_act", "moe_use_aux_free", "moe_use_hard_gate", "use_correction_bias", "moe_correction_bias",
    "output_router_logits", "router_aux_loss", "aux_loss_alpha", "aux_loss_coef", "moe_aux_loss_lambda", "moe_orthogonal_loss_lambda",
    "moe_z_loss_lambda", "router_z_loss", "moe_router_dtype", "moe_router_force_load_balancing", "group_limited_greedy", "moe_gate",
    "moe_group", "moe_multimodal_dispatch_use_allgather", "multi_gate", "moe_reverse_token_drop", "moe_gate_type", "ep_communication_type",
    "moe_dropout_prob", "moe_all_to_all_dropout", "router_jitter", "moe_jitter_eps", "moe_normalize_expert_weights", "load_balance_coeff",
];

#[cfg(test)]
mod tests;
