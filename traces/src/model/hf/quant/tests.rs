//! Bits of each method, on a small model: 4 layers, the first of which is dense; experts and a shared one.

use crate::model::hf::Imported;
use crate::model::import_config;
use moesim_core::Result;

const KEYS: &str = r#""model_type": "glm4_moe", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 100, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "torch_dtype": "bfloat16""#;

/// A configuration with more keys, and a file beside it.
fn import(keys: &str, beside: Option<(&str, &str)>) -> Result<Imported> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let comma = if keys.is_empty() { "" } else { "," };
    std::fs::write(&path, format!("{{{KEYS}{comma}{keys}}}")).unwrap();
    if let Some((name, text)) = beside {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    import_config(&path, Some("small"))
}

/// Bits of attention, router, experts, shared experts, dense layers, embedding, head and KV.
fn bits(i: &Imported) -> [f64; 8] {
    let p = &i.model.precision;
    [p.attention, p.router, p.experts, p.shared, p.dense, p.embedding, p.head, p.kv]
}

#[test]
fn every_method_has_its_bits() {
    let config = |c: &str| format!(r#""quantization_config": {{{c}}}"#);
    let linear = |b: f64, head: f64| [b, 16.0, b, b, b, 16.0, head, 16.0];
    let experts = |b: f64, kv: f64| [16.0, 16.0, b, 16.0, 16.0, 16.0, 16.0, kv];
    let group = r#""config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32}}}"#;
    for (keys, expected) in [
        (config(r#""quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic""#), linear(8.0 + 32.0 / 16384.0, 16.0)),
        (config(r#""quant_method": "fp8""#), linear(8.0, 16.0)),
        (config(r#""quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]"#), experts(4.25, 16.0)),
        (config(r#""quant_method": "gptq", "bits": 4, "group_size": 128, "sym": true, "desc_act": false"#), linear(4.0 + 20.0 / 128.0, 16.0)),
        (config(r#""quant_method": "gptq", "bits": 4, "group_size": 128, "lm_head": true, "dynamic": {"-:.*self_attn.*": {}}"#), {
            let b = 4.0 + 20.0 / 128.0;
            [16.0, 16.0, b, b, b, 16.0, b, 16.0]
        }),
        (config(r#""quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": true, "modules_to_not_convert": ["self_attn", "gate"]"#), {
            let b = 4.0 + 20.0 / 64.0;
            [16.0, 16.0, b, b, b, 16.0, 16.0, 16.0]
        }),
        (config(&format!(r#""quant_method": "compressed-tensors", "format": "pack-quantized", {group}, "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|down)_proj.*"], "kv_cache_scheme": {{"num_bits": 8, "type": "float"}}"#)), experts(4.5, 8.0)),
        (config(r#""quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "ignore": ["lm_head", "*self_attn*", "model.layers.0*", "*shared_experts*"], "kv_cache_scheme": {"num_bits": 8, "type": "float"}"#), experts(4.5, 8.0)),
        (config(r#""quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {"model.layers.1.mlp.experts": {"quant_algo": "NVFP4", "group_size": 16}, "model.layers.2.mlp.experts": {"quant_algo": "NVFP4", "group_size": 16}, "model.layers.3.mlp.experts": {"quant_algo": "NVFP4", "group_size": 16}, "lm_head": {"quant_algo": "FP8"}}"#), [16.0, 16.0, 4.5, 16.0, 16.0, 16.0, 8.0, 16.0]),
        (config(r#""load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true"#), linear(4.0 + 8.125 / 64.0, 16.0)),
        (config(r#""quant_method": "bitsandbytes", "load_in_4bit": true"#), linear(4.5, 16.0)),
        (config(r#""quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}}, "exclude": ["lm_head", "*self_attn*", "*shared_experts*", "re:model.layers.0.*"]"#), experts(4.25, 16.0)),
        (config(r#""quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": true, "extra_config": {"self_attn": {"bits": 16, "data_type": "float"}}"#), {
            let b = 4.0 + 20.0 / 128.0;
            [16.0, 16.0, b, b, b, 16.0, 16.0, 16.0]
        }),
        (config(r#""quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}}, "modules_to_not_convert": ["lm_head"]"#), linear(4.5, 16.0)),
        (r#""quantization": {"group_size": 64, "bits": 4}"#.into(), [4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 16.0]),
        (r#""quantization": {"group_size": 64, "bits": 4, "lm_head": false, "model.layers.1.mlp.gate": {"group_size": 64, "bits": 8}, "model.layers.2.mlp.gate": {"group_size": 64, "bits": 8}, "model.layers.3.mlp.gate": {"group_size": 64, "bits": 8}}"#.into(), [4.5, 8.5, 4.5, 4.5, 4.5, 4.5, 16.0, 16.0]),
        (r#""quantization_config": {}"#.into(), [16.0; 8]),
    ] {
        let i = import(&keys, None).unwrap_or_else(|e| panic!("{keys}: {e}"));
        assert_eq!(bits(&i), expected, "{keys}");
    }
}

#[test]
fn files_beside_a_configuration_are_read_or_refused() {
    let modelopt = |more: &str| {
        format!(
            r#"{{"producer": {{"name": "modelopt"}}, "quantization": {{"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16, "exclude_modules": ["lm_head", "*.mlp.gate", "*self_attn*"]{more}}}}}"#
        )
    };
    let i = import("", Some(("hf_quant_config.json", &modelopt("")))).unwrap();
    assert_eq!(bits(&i), [16.0, 16.0, 4.5, 4.5, 4.5, 16.0, 16.0, 8.0]);
    let e = import("", Some(("hf_quant_config.json", &modelopt(", \"odd\": 1")))).unwrap_err().to_string();
    assert!(e.contains("hf_quant_config.json") && e.contains("odd"), "{e}");
    let i = import(
        "",
        Some(("quantize_config.json", r#"{"bits": 4, "group_size": 128, "damp_percent": 0.1, "desc_act": false}"#)),
    );
    assert_eq!(i.unwrap().model.precision.experts, 4.15625);
    let i = import(
        "",
        Some(("quant_config.json", r#"{"zero_point": true, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}"#)),
    );
    assert_eq!(i.unwrap().model.precision.experts, 4.15625);
    let e = import("", Some(("quant_model_description.json", "{}"))).unwrap_err().to_string();
    assert!(e.contains("quant_model_description.json"), "{e}");
    // Where both speak, the configuration counts, and a note says what differs.
    let fp8 = r#""quantization_config": {"quant_method": "fp8"}"#;
    let i = import(fp8, Some(("hf_quant_config.json", &modelopt("")))).unwrap();
    assert_eq!(i.model.precision.experts, 8.0);
    assert!(
        i.notes.iter().any(|n| n.contains("hf_quant_config.json") && n.contains("expert 4.5 bits, not 8")),
        "{:?}",
        i.notes
    );
}

#[test]
fn classes_of_which_a_part_is_quantised_have_the_mean_and_a_note() {
    let keys = r#""quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["lm_head", "model.layers.1.self_attn*", "*norm*", "model.layers.9.mlp"]}"#;
    let i = import(keys, None).unwrap();
    assert_eq!((i.model.precision.attention, i.model.precision.experts), (10.0, 8.0));
    let notes = i.notes.join(";");
    assert!(notes.contains("attention weights: 75.0 % has 8 bits, 25.0 % has 16 bits; their mean, 10.000"), "{notes}");
    assert!(notes.contains("does not have: model.layers.9.mlp") && !notes.contains("norm"), "{notes}");
    assert!(notes.contains("activations are rounded to 8 bits"), "{notes}");
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let config = |c: &str| format!(r#""quantization_config": {{{c}}}"#);
    for (keys, words) in [
        (config(r#""quant_method": "hqq""#), &["quant_method", "hqq", "fp8"][..]),
        (config(r#""quant_method": "fp8", "expert_dtype": "fp4""#), &["expert_dtype"]),
        (config(r#""quant_method": "fp8", "odd_key": 3"#), &["quantization_config.odd_key", "fp8"]),
        (config(r#""quant_method": "modelopt", "quant_algo": "W3""#), &["quant_algo", "W3"]),
        (config(r#""quant_method": "compressed-tensors""#), &["config_groups"]),
        (config(r#""quant_method": "compressed-tensors", "format": "marlin-24""#), &["format", "sparse"]),
        (
            config(r#""quant_method": "compressed-tensors", "config_groups": {}, "ignore": ["re:("]"#),
            &["ignore", "cannot be read"],
        ),
        (config(r#""quant_method": "gptq", "bits": 99"#), &["bits", "99"]),
        (config(r#""some": 1"#), &["quant_method"]),
        (config(r#""quant_method": "fp8", "kv_cache_scheme": "FP3""#), &["kv_cache_scheme", "FP3"]),
        (r#""quantization": {"group_size": 64, "bits": 4, "mode": "odd"}"#.into(), &["mode", "odd"]),
    ] {
        let text = import(&keys, None).unwrap_err().to_string();
        assert!(words.iter().all(|w| text.to_lowercase().contains(&w.to_lowercase())), "{words:?}: {text}");
    }
}
