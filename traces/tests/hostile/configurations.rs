//! Configurations with every key turned into every kind of nonsense: read, or refused in one line, and soon.

use moesim_traces::model::import_config;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Small configurations that are read, with all kinds of quantisation.
fn good() -> Vec<Value> {
    let plain = json!({
        "model_type": "mixtral", "hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 100, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "num_local_experts": 8, "num_experts_per_tok": 2,
        "max_position_embeddings": 4096, "sliding_window": 64, "torch_dtype": "bfloat16",
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    });
    let latent = json!({
        "model_type": "deepseek_v3", "hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 100, "num_attention_heads": 4,
        "q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12, "n_group": 8,
        "topk_group": 4, "intermediate_size": 96, "moe_intermediate_size": [32, 32, 32], "n_routed_experts": 8, "num_experts_per_tok": 2,
        "n_shared_experts": 1, "first_k_dense_replace": 1, "num_nextn_predict_layers": 1, "mlp_layer_types": ["dense", "sparse", "sparse"],
    });
    let with = |base: &Value, key: &str, value: Value| {
        let mut c = base.clone();
        c[key] = value;
        c
    };
    let q = |value: Value| with(&latent, "quantization_config", value);
    vec![
        plain.clone(),
        json!({"model_type": "qwen3_vl_moe", "text_config": plain, "vision_config": {"depth": 2}, "image_token_id": 3}),
        q(json!({"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["self_attn"]})),
        q(
            json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": true, "dynamic": {"-:.*attn.*": {}, "+:.*": {"bits": 8}},
            "modules_in_block_to_quantize": [["self_attn.q_proj"]]}),
        ),
        q(
            json!({"quant_method": "compressed-tensors", "ignore": ["re:.*self_attn.*"], "kv_cache_scheme": {"num_bits": 8}, "config_groups":
            {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": false}}}}),
        ),
        q(
            json!({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "exclude_modules": ["*gate*"], "quantized_layers":
            {"model.layers.1.mlp.experts.3.w1": {"quant_algo": "NVFP4", "group_size": 16}}}),
        ),
        q(
            json!({"quant_method": "quark", "exclude": ["lm_head"], "global_quant_config": {"weight": [{"dtype": "fp4", "qscheme": "per_group",
            "group_size": 32}]}, "layer_quant_config": {"*attn*": {"weight": {}}}, "kv_cache_quant_config": {"*": {"output_tensors": {"dtype": "fp8_e4m3"}}}}),
        ),
        q(
            json!({"quant_method": "auto-round", "bits": 4, "group_size": 128, "extra_config": {"self_attn": {"bits": 16}}}),
        ),
        q(
            json!({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}}}),
        ),
        q(json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "llm_int8_skip_modules": ["lm_head"]})),
        with(
            &latent,
            "quantization",
            json!({"group_size": 64, "bits": 4, "lm_head": {"bits": 8, "group_size": 64}, "model.norm": false}),
        ),
    ]
}

/// What stands where something else belongs.
fn nonsense() -> Vec<Value> {
    let mut deep = json!(1);
    (0..50).for_each(|_| deep = json!([deep]));
    vec![
        Value::Null,
        json!(-1),
        json!(0),
        json!(1),
        json!(1e300),
        json!(-1e-300),
        json!(0.5),
        json!(4_294_967_296_u64),
        json!(u64::MAX),
        json!(4_294_967_295_u64),
        json!(1 << 20),
        json!(true),
        json!(false),
        json!(""),
        json!("NaN"),
        json!("re:("),
        json!("*".repeat(300)),
        json!("x".repeat(5000)),
        json!("\u{1b}[2J\n"),
        json!([]),
        json!([0]),
        json!([1, 2]),
        json!([null, null]),
        json!(["", "re:.*", "*", "\\"]),
        json!([[]]),
        json!({}),
        json!({"": {}}),
        json!({"a": {"b": [1]}}),
        deep,
    ]
}

/// Every value of an object, at any depth, by its path.
fn paths(value: &Value, at: &str, all: &mut Vec<String>) {
    if let Some(map) = value.as_object() {
        for (key, inner) in map {
            let path = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            all.push(path.clone());
            paths(inner, &path, all);
        }
    }
}

/// Reads a file; a refusal has what a user needs.
fn read(path: &Path) -> bool {
    match import_config(path, None) {
        Ok(i) => {
            assert!(i.model.facts().total > 0 && i.text.contains("[precision]"));
            true
        }
        Err(e) => {
            let text = e.to_string();
            assert_eq!(e.exit_code(), 2, "{text}");
            assert!(text.contains("config") && !e.cure.is_empty() && !text.contains(char::is_control), "{text}");
            assert!(text.len() < 1600, "{text}");
            false
        }
    }
}

#[test]
fn every_key_turned_into_nonsense() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let began = Instant::now();
    let (mut taken, mut refused) = (0, 0);
    for config in good() {
        fs::write(&path, config.to_string()).unwrap();
        assert!(read(&path), "{config}: {:?}", import_config(&path, None).map(|_| ()));
        let mut all = Vec::new();
        paths(&config, "", &mut all);
        for at in all {
            for value in nonsense() {
                let mut changed = config.clone();
                *changed.pointer_mut(&at).unwrap() = value;
                fs::write(&path, changed.to_string()).unwrap();
                if read(&path) { taken += 1 } else { refused += 1 }
            }
        }
    }
    println!("{taken} taken, {refused} refused in {:?}", began.elapsed());
    assert!(taken > 500 && refused > 2000, "{taken} {refused}");
}

#[test]
fn cut_and_flipped_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    for config in good() {
        let text = config.to_string().replace("4096", "Infinity").into_bytes();
        for at in (0..text.len()).step_by(7) {
            fs::write(&path, &text[..at]).unwrap();
            read(&path);
            for flip in [1u8, 0x20, 0x80] {
                let mut bytes = text.clone();
                bytes[at] ^= flip;
                fs::write(&path, bytes).unwrap();
                read(&path);
            }
        }
    }
}

/// Many layers, many patterns, long lists: an answer, whatever it is, within minutes on a busy machine.
#[test]
fn large_ones_take_no_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let many = |n: usize, of: &dyn Fn(usize) -> String| -> Value { (0..n).map(of).collect::<Vec<_>>().into() };
    for (layers, list) in [
        (4096, many(4000, &|i| format!("re:.*layers\\.{i}\\..*(a|b)*c.*"))),
        (4096, many(20, &|i| format!("*self_attn*{i}*experts*shared_experts*shared_mlp*ffn*moe*wg*"))),
        (61, many(40_000, &|i| format!("model.layers.{}.mlp.experts.{}.gate_proj", i % 61, i / 61))),
        (3, many(60_000, &|i| format!("*{i}*"))),
        (3, many(1000, &|_| "re:(((((a{9}){9}){9}){9}){9}){9}".into())),
    ] {
        let mut config = good().swap_remove(2);
        config["num_hidden_layers"] = layers.into();
        config.as_object_mut().unwrap().remove("mlp_layer_types");
        config["quantization_config"]["modules_to_not_convert"] = list;
        fs::write(&path, config.to_string()).unwrap();
        let began = Instant::now();
        read(&path);
        assert!(began.elapsed() < Duration::from_secs(120), "{layers} layers: {:?}", began.elapsed());
    }
}
