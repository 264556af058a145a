//! One small configuration a family, with parameters counted by hand: projections of attention (A), feed-forward parts of
//! three matrices (F), routers (R), tables (T).

use crate::model::hf::Imported;
use crate::model::{QkNorm, import_config};
use moesim_core::Result;

fn import(json: &str) -> Result<Imported> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, json).unwrap();
    import_config(&path, Some("small"))
}

/// Keys that all of them have: 64 wide, 4 layers, 100 rows of tables.
fn small(family: &str, keys: &str) -> String {
    format!(r#"{{"model_type": "{family}", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 100, {keys}}}"#)
}

const T: u64 = 100 * 64;
/// 4 query heads and 2 of keys and values, of 16 elements.
const A: u64 = 2 * 64 * (64 + 32);
/// Of biases in all four projections.
const BIAS: u64 = 64 + 2 * 32 + 64;
const HEADS: &str = r#""num_attention_heads": 4, "num_key_value_heads": 2"#;
/// Latent attention: 4 heads, ranks 24 and 32, elements 16 + 8 and 12.
const MLA: &str = r#""num_attention_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 12"#;
const L: u64 = 24 * 64 + 24 * 4 * 24 + 64 * 40 + 32 * 4 * 28 + 4 * 12 * 64;

fn f(width: u64) -> u64 {
    3 * 64 * width
}

#[test]
fn parameters_of_every_family() {
    let plain = format!(r#"{HEADS}, "intermediate_size": 48, "num_local_experts": 8, "num_experts_per_tok": 2"#);
    let r = 8 * 64;
    let moe = |n: u64, width: u64| n * f(width) + r;
    let all = 2 * T + 4 * (A + moe(8, 48));
    // One dense layer of width 96 first, then 8 experts and a shared one, all of width 32.
    let first = r#""intermediate_size": 96, "moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1,
        "first_k_dense_replace": 1"#;
    let shared = |a: u64| 2 * T + 4 * a + f(96) + 3 * moe(9, 32);
    let dense = format!(r#"{HEADS}, "intermediate_size": 96"#);
    for (json, total) in [
        (small("mixtral", &plain), all),
        (small("olmoe", &plain.replace("num_local_experts", "num_experts")), all),
        (small("flex_olmo", &plain), all),
        (small("phimoe", &format!(r#"{plain}, "attention_bias": true"#)), all + 4 * BIAS),
        (small("minimax_m2", &format!(r#"{plain}, "shared_intermediate_size": 0, "use_mtp": true, "num_mtp_modules": 3"#)), all),
        (small("granitemoe", &format!(r#"{plain}, "tie_word_embeddings": true"#)), all - T),
        (small("granitemoeshared", &format!(r#"{plain}, "shared_intermediate_size": 20"#)), all + 4 * f(20)),
        (small("aria_text", &plain.replace("num_local", "moe_num").replace("num_experts_per_tok", "moe_topk")), all + 4 * 2 * f(48)),
        (
            small("hunyuan_v1_moe", &format!(r#"{HEADS}, "intermediate_size": 48, "num_experts": [8, 8, 8, 8], "moe_topk": [2, 2, 2, 2],
                "num_shared_expert": [1, 1, 1, 1], "tie_word_embeddings": true"#)),
            all - T + 4 * f(48),
        ),
        (small("gpt_oss", &format!(r#"{plain}, "sliding_window": 16, "head_dim": 16"#)), {
            all + 4 * (BIAS + 8 * (2 * 48 + 64) + 8)
        }),
        (
            small("jetmoe", r#""num_key_value_heads": 2, "kv_channels": 16, "num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 48"#),
            // A query and an output of 32 for each expert, keys and values once, and a router of attention's own.
            T + 4 * (8 * 2 * 64 * 32 + 2 * 64 * 32 + r + moe(8, 48)),
        ),
        (
            r#"{"model_type": "dbrx", "d_model": 64, "n_layers": 4, "n_heads": 4, "vocab_size": 100, "attn_config": {"kv_n_heads": 2},
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 8, "moe_top_k": 2}}"#
                .to_string(),
            all,
        ),
        (
            small("qwen2_moe", &format!(r#"{HEADS}, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 20, "num_experts": 8, "num_experts_per_tok": 2"#)),
            all + 4 * (BIAS + f(20)),
        ),
        (
            small("qwen3_moe", &format!(r#"{HEADS}, "moe_intermediate_size": 48, "intermediate_size": 96, "num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": [3]"#)),
            all - moe(8, 48) + f(96),
        ),
        (small("glm4_moe", &format!(r#"{HEADS}, "attention_bias": true, {first}"#)), shared(A + BIAS)),
        (small("dots1", &format!("{HEADS}, {first}")), shared(A)),
        (small("deepseek", &format!("{HEADS}, {first}")), shared(A)),
        (small("hy_v3", &format!("{HEADS}, {first}")), shared(A)),
        (small("sarvam_moe", &format!("{HEADS}, {first}")), shared(A)),
        (
            small("exaone_moe", &format!(r#"{HEADS}, {}, "is_moe_layer": [false, true, true, true], "sliding_window": 8, "sliding_window_pattern": "LLLG""#, first.replace("first_k", "first_last_k"))),
            shared(A),
        ),
        (
            small("solar_open", &format!(r#"{HEADS}, "moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 2"#)),
            2 * T + 4 * (A + moe(9, 32)),
        ),
        (
            small("bailing_moe_v2", &format!("{HEADS}, {}", first.replace("n_routed", "num").replace("n_shared", "num_shared"))),
            shared(A),
        ),
        (
            small("ernie4_5_moe", &format!(r#"{HEADS}, "intermediate_size": 96, "moe_intermediate_size": 32, "moe_num_experts": 8, "moe_k": 2, "moe_num_shared_experts": 1, "moe_layer_end_index": -1"#)),
            shared(A) - T,
        ),
        (small("deepseek_v2", &format!("{MLA}, {first}")), shared(L)),
        (small("deepseek_v3", &format!("{MLA}, {first}")), shared(L)),
        (small("kimi_k2", &format!("{MLA}, {first}")), shared(L)),
        (small("glm4_moe_lite", &format!("{MLA}, {first}")), shared(L)),
        (small("mistral4", &format!("{MLA}, {first}")), shared(L)),
        (small("llama4_text", &format!(r#"{plain}, "intermediate_size_mlp": 96, "head_dim": 16, "interleave_moe_layer_step": 2"#)), {
            2 * T + 4 * A + 2 * (f(96) + moe(9, 48))
        }),
        (small("llama", &dense), 2 * T + 4 * (A + f(96))),
        (small("mistral", &dense), 2 * T + 4 * (A + f(96))),
        (small("qwen2", &dense), 2 * T + 4 * (A + BIAS + f(96))),
        (small("qwen3", &format!(r#"{dense}, "tie_word_embeddings": true"#)), T + 4 * (A + f(96))),
        (small("gemma2", &format!(r#"{dense}, "sliding_window": 8"#)), T + 4 * (A + f(96))),
        (small("arcee", &dense), 2 * T + 4 * (A + 2 * 64 * 96)),
    ] {
        let i = import(&json).unwrap_or_else(|e| panic!("{json}: {e}"));
        assert_eq!(i.model.facts().total, total, "{json}");
        // What was written is read as what was said.
        assert!(i.text.contains("[precision]") && i.model.name == "small");
    }
}

#[test]
fn text_models_inside_others_are_read_and_the_rest_is_named() {
    let text = small(
        "qwen3_moe",
        &format!(r#"{HEADS}, "moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 2"#),
    );
    let inner = text.replace("qwen3_moe", "qwen3_vl_moe_text");
    for (json, word) in [
        (
            format!(
                r#"{{"model_type": "qwen3_vl_moe", "text_config": {inner}, "vision_config": {{"depth": 2}}, "image_token_id": 3}}"#
            ),
            "vision_config",
        ),
        (
            format!(
                r#"{{"model_type": "internvl_chat", "llm_config": {text}, "vision_config": {{"x": 1}}, "downsample_ratio": 0.5}}"#
            ),
            "downsample_ratio",
        ),
        (
            format!(
                r#"{{"model_type": "omni", "thinker_config": {{"text_config": {text}, "audio_config": {{"x": 1}}}}}}"#
            ),
            "thinker_config.audio_config",
        ),
    ] {
        let i = import(&json).unwrap();
        assert_eq!(i.model.facts().total, 2 * T + 4 * (A + 8 * f(48) + 8 * 64), "{json}");
        assert!(i.notes.iter().any(|n| n.contains(word)), "{word}: {:?}", i.notes);
    }
    let tied = format!(r#"{{"model_type": "qwen3_vl_moe", "tie_word_embeddings": true, "text_config": {inner}}}"#);
    assert!(import(&tied).unwrap().model.tied_embedding);
    let odd = format!(r#"{{"model_type": "qwen3_vl_moe", "extra_layers": 3, "text_config": {inner}}}"#);
    assert!(import(&odd).unwrap_err().to_string().contains("extra_layers"));
}

#[test]
fn how_long_a_sequence_may_be_follows_rope_scaling() {
    let of = |keys: &str| {
        let i = import(&small("llama", &format!(r#"{HEADS}, "intermediate_size": 96, {keys}"#))).unwrap();
        (i.model.context, i.notes.join(";"))
    };
    assert_eq!(of(r#""use_cache": true"#), (None, String::new()));
    assert_eq!(of(r#""max_position_embeddings": 4096, "rope_scaling": null"#), (Some(4096), String::new()));
    let (yarn, note) = of(
        r#""max_position_embeddings": 40960, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}"#,
    );
    assert_eq!(yarn, Some(131_072));
    assert!(note.contains("131072, which is original_max_position_embeddings 32768 times 4"), "{note}");
    assert_eq!(
        of(r#""max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4.0}"#).0,
        Some(8192)
    );
    let llama3 = r#""max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}"#;
    assert_eq!(of(llama3), (Some(131_072), String::new()));
}

#[test]
fn keys_that_bear_on_size_or_attention_are_refused_by_name() {
    let mixtral = format!(r#"{HEADS}, "intermediate_size": 48, "num_local_experts": 8, "num_experts_per_tok": 2"#);
    for (json, words) in [
        (small("mixtral", &format!(r#"{mixtral}, "index_topk": 2048"#)), &["index_topk", "family mixtral"][..]),
        (
            small("mixtral", &mixtral.replace("48", "[48, 48, 48, 64]")),
            &["intermediate_size", "different values", "mixtral"],
        ),
        (small("mixtral", &mixtral.replace(": 8", ": Infinity")), &["num_local_experts", "\"Infinity\"", "mixtral"]),
        (small("minimax_m2", &format!(r#"{mixtral}, "attn_type_list": [1, 0, 1, 1]"#)), &["attn_type_list"]),
        (small("hunyuan", &format!(r#"{mixtral}, "use_cla": true"#)), &["use_cla", "shared by layers"]),
        (
            small(
                "llama",
                &format!(
                    r#"{HEADS}, "intermediate_size": 96, "layer_types": ["full_attention", "linear_attention", "full_attention", "full_attention"]"#
                ),
            ),
            &["layer_types", "linear_attention"],
        ),
        (small("glm_moe_dsa", r#""index_topk": 2048"#), &["index_topk", "glm_moe_dsa", "sparse attention"]),
        (small("nemotron_h", r#""hybrid_override_pattern": "ME""#), &["hybrid_override_pattern", "Mamba"]),
        (small("longcat_flash", r#""zero_expert_num": 256"#), &["zero_expert_num", "two attentions"]),
    ] {
        let e = import(&json).unwrap_err();
        let text = e.to_string();
        assert_eq!(e.exit_code(), 2);
        assert!(words.iter().all(|w| text.contains(w)) && !e.cure.is_empty(), "{words:?}: {text}");
        assert!(!text.contains("did you mean"), "{text}");
    }
    let same = mixtral.replace("48", "[48, 48, 48, 48]");
    assert_eq!(import(&small("mixtral", &same)).unwrap().model, import(&small("mixtral", &mixtral)).unwrap().model);
    let bare = format!(r#"{mixtral}, "_limit": [0.0, Infinity, NaN]"#);
    assert!(import(&small("mixtral", &bare)).is_ok());
}

/// Norms of queries and keys are those of a family's class, or what its flag says; a flag that means nothing to a
/// family is noted.
#[test]
fn queries_and_keys_are_normed_as_the_family_does() {
    let mixtral = format!(r#"{HEADS}, "intermediate_size": 48, "num_local_experts": 8, "num_experts_per_tok": 2"#);
    let glm = format!(
        r#"{HEADS}, "intermediate_size": 96, "moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 2"#
    );
    let bailing = glm.replace("n_routed", "num");
    let dense = format!(r#"{HEADS}, "intermediate_size": 96"#);
    let (on, off) = (r#""use_qk_norm": true"#, r#""use_qk_norm": false"#);
    for (family, keys, flag, norm) in [
        ("qwen3", &dense, "", QkNorm::Head),
        ("qwen2", &dense, "", QkNorm::None),
        ("olmo2", &dense, "", QkNorm::Layer),
        ("cohere", &dense, "", QkNorm::None),
        ("cohere", &dense, on, QkNorm::Head),
        ("olmoe", &mixtral, "", QkNorm::Layer),
        ("mixtral", &mixtral, "", QkNorm::None),
        ("minimax_m2", &mixtral, r#""use_qk_norm": true, "qk_norm_type": "per_layer""#, QkNorm::Layer),
        ("minimax_m2", &mixtral, "", QkNorm::Layer),
        ("minimax_m2", &mixtral, off, QkNorm::None),
        ("hunyuan_v1_moe", &mixtral, "", QkNorm::Head),
        ("hunyuan", &mixtral, "", QkNorm::None),
        ("glm4_moe", &glm, "", QkNorm::None),
        ("glm4_moe", &glm, on, QkNorm::Head),
        ("dots1", &glm, "", QkNorm::Head),
        ("bailing_moe", &bailing, "", QkNorm::None),
        ("bailing_moe_v2", &bailing, "", QkNorm::Head),
        ("bailing_moe_v2", &bailing, off, QkNorm::None),
    ] {
        let keys = [keys, ", ", flag].concat();
        let i = import(&small(family, keys.trim_end_matches(", "))).unwrap();
        assert!(i.model.decoder.iter().all(|l| l.attention.qk_norm == norm), "{family} {flag}");
        assert!(!i.notes.iter().any(|n| n.contains("norms of queries")), "{family}: {:?}", i.notes);
    }
    for flag in ["use_qk_norm", "qk_layernorm", "use_qk_layernorm", "query_key_norm"] {
        let i = import(&small("mixtral", &format!(r#"{mixtral}, "{flag}": true"#))).unwrap();
        assert_eq!(i.model.decoder[0].attention.qk_norm, QkNorm::None);
        assert!(
            i.notes.iter().any(|n| n.starts_with(flag) && n.contains("norms of queries and keys")),
            "{:?}",
            i.notes
        );
    }
    let e = import(&small("minimax_m2", &format!(r#"{mixtral}, {on}, "qk_norm_type": "per_head""#))).unwrap_err();
    assert!(e.exit_code() == 2 && e.to_string().contains("per_head") && !e.cure.is_empty(), "{e}");
}
