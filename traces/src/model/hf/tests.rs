//! Configurations in the fields that each family's class has, with the sizes of the published models: the imported model
//! equals the preset, which was written from the publication by hand.

use super::super::Model;
use super::import_config;

fn import(json: &str) -> moesim_core::Result<Model> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, json).unwrap();
    import_config(&path, Some("imported")).map(|i| i.model)
}

const MIXTRAL: &str = r#"{"model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 32000, "intermediate_size": 14336, "num_local_experts": 8,
    "num_experts_per_tok": 2, "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16"}"#;

#[test]
fn every_family_gives_its_preset() {
    let cases = [
        ("mixtral-8x7b", MIXTRAL),
        (
            "qwen3-30b-a3b",
            r#"{"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
            "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "intermediate_size": 6144,
            "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1,
            "mlp_only_layers": [], "use_sliding_window": false, "sliding_window": null, "max_window_layers": 48,
            "attention_bias": false, "torch_dtype": "bfloat16"}"#,
        ),
        (
            "qwen1.5-moe-a2.7b",
            r#"{"model_type": "qwen2_moe", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
            "num_key_value_heads": 16, "vocab_size": 151936, "intermediate_size": 5632, "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632, "num_experts": 60, "num_experts_per_tok": 4,
            "decoder_sparse_step": 1, "use_sliding_window": false, "sliding_window": 32768, "max_window_layers": 21}"#,
        ),
        (
            "qwen3-8b",
            r#"{"model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32,
            "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "intermediate_size": 12288,
            "use_sliding_window": false, "sliding_window": null, "max_window_layers": 36, "attention_bias": false,
            "torch_dtype": "bfloat16"}"#,
        ),
        (
            "deepseek-v3",
            r#"{"model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
            "num_key_value_heads": 128, "vocab_size": 129280, "intermediate_size": 18432, "moe_intermediate_size": 2048,
            "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3,
            "moe_layer_freq": 1, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64, "v_head_dim": 128, "num_nextn_predict_layers": 1, "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#,
        ),
        (
            "deepseek-v2-lite",
            r#"{"model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16,
            "vocab_size": 102400, "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64,
            "num_experts_per_tok": 6, "n_shared_experts": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1,
            "q_lora_rank": null, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
            "v_head_dim": 128}"#,
        ),
        (
            "llama-4-maverick",
            r#"{"model_type": "llama4", "text_config": {"model_type": "llama4_text", "hidden_size": 5120,
            "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
            "vocab_size": 202048, "intermediate_size": 8192, "intermediate_size_mlp": 16384, "num_local_experts": 128,
            "num_experts_per_tok": 1, "interleave_moe_layer_step": 2, "attention_chunk_size": 8192,
            "no_rope_layers": []}}"#,
        ),
        (
            "gpt-oss-20b",
            r#"{"model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64,
            "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201088, "intermediate_size": 2880,
            "num_local_experts": 32, "num_experts_per_tok": 4, "experts_per_token": 4, "sliding_window": 128, "attention_bias": true,
            "quantization_config": {"quant_method": "mxfp4"}}"#,
        ),
        (
            "olmoe-1b-7b",
            r#"{"model_type": "olmoe", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
            "num_key_value_heads": 16, "vocab_size": 50304, "intermediate_size": 1024, "num_experts": 64,
            "num_experts_per_tok": 8}"#,
        ),
        (
            "phi-3.5-moe",
            r#"{"model_type": "phimoe", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 32064, "intermediate_size": 6400, "num_local_experts": 16,
            "num_experts_per_tok": 2, "attention_bias": true, "sliding_window": 131072}"#,
        ),
        (
            "dbrx",
            r#"{"model_type": "dbrx", "d_model": 6144, "n_layers": 40, "n_heads": 48, "vocab_size": 100352,
            "attn_config": {"kv_n_heads": 8}, "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16,
            "moe_top_k": 4}}"#,
        ),
    ];
    for (name, json) in cases {
        let (ours, preset) = (import(json).unwrap(), Model::load(name).unwrap());
        assert_eq!(ours.decoder, preset.decoder, "{name}");
        assert_eq!((ours.hidden, ours.vocabulary), (preset.hidden, preset.vocabulary), "{name}");
        assert_eq!((ours.mtp_layers, ours.tied_embedding), (preset.mtp_layers, preset.tied_embedding), "{name}");
        assert_eq!(ours.precision, preset.precision, "{name}");
    }
}

#[test]
fn windows_in_upper_layers_only() {
    let m = import(
        r#"{"model_type": "qwen3_moe", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "vocab_size": 100, "intermediate_size": 64, "moe_intermediate_size": 32, "num_experts": 4,
        "num_experts_per_tok": 2, "use_sliding_window": true, "sliding_window": 16, "max_window_layers": 3,
        "decoder_sparse_step": 2}"#,
    )
    .unwrap();
    use super::super::Span;
    let spans: Vec<_> = m.decoder.iter().map(|l| l.attention.span).collect();
    assert_eq!(spans, [Span::Full, Span::Full, Span::Full, Span::Window(16)]);
    assert_eq!(m.moe_layers(), [1, 3]);
}

#[test]
fn what_is_no_configuration_is_refused_with_file_place_and_cure() {
    let without = |key: &str| MIXTRAL.replace(&format!("\"{key}\""), "\"other\"");
    let cases = [
        ("{", "config.json"),
        ("[1, 2]", "config.json"),
        ("{}", "`model_type` is missing"),
        (r#"{"model_type": "mixtrel"}"#, "is not one that is imported"),
        (
            r#"{"model_type": "qwen3_next", "linear_num_value_heads": 32}"#,
            "linear_num_value_heads: family qwen3_next has",
        ),
        (&without("num_local_experts"), "`num_local_experts` is missing"),
        (&without("hidden_size"), "`hidden_size` is missing"),
        (&MIXTRAL.replace("4096", "-4096"), "config.json"),
        (&MIXTRAL.replace("4096", "0"), "hidden"),
        (&MIXTRAL.replace("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9"), "top_k"),
        (&MIXTRAL.replace("\"num_hidden_layers\": 32", "\"num_hidden_layers\": 4000000000"), "layers"),
        (&MIXTRAL.replace("bfloat16", "int3"), "torch_dtype"),
        (
            &MIXTRAL.replace("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 2, \"experts_per_token\": 4"),
            "but experts_per_token 4",
        ),
        (&MIXTRAL.replace("\"tie_word", "\"quantization_config\": {\"quant_method\": \"x\"}, \"tie_word"), "fp8"),
        (&"[".repeat(10_000), "config.json"),
    ];
    for (json, word) in cases {
        let e = import(json).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        let text = e.to_string();
        assert!(text.contains(word) && text.contains("config.json") && !e.cure.is_empty(), "{word}: {text}");
    }
}

#[test]
fn elements_of_32_bits_are_so_everywhere() {
    let p = import(&MIXTRAL.replace("bfloat16", "float32")).unwrap().precision;
    assert_eq!([p.attention, p.experts, p.embedding, p.kv, p.activation], [32.0; 5]);
}
