//! Does `moesim model` read what others write, and say what it read?

use crate::common::Place;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Inputs that were answered wrongly once, which are not part of the repository.
fn case(name: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/cases")).join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// What import says of a configuration as JSON.
fn import(p: &Place, config: &Path) -> Value {
    let out = ["model", "import", config.to_str().unwrap(), "--out", "m.toml", "--format", "json"];
    let _ = std::fs::remove_file(p.path("m.toml"));
    let value: Value = serde_json::from_str(&p.ok(&out)).unwrap();
    // What was written is a model.
    assert!(p.ok(&["model", "info", "m.toml"]).contains("total"));
    value
}

#[test]
fn cases_have_the_right_answer() {
    let p = Place::new();
    for (name, total, active, tables) in [
        ("models/glm4_moe-air.json", 106.85, 12.2, 0.0),
        ("models/granitemoe-3b.json", 3.30, 0.81, 0.0),
        ("models/dots1.json", 142.8, 14.0, 1.0),
        ("models/hunyuan-lists.json", 80.4, 12.75, 1.0),
        ("infinity.json", 30.5, 2.7, 0.0),
    ] {
        let Some(path) = case(name) else { return };
        let v = import(&p, &path);
        let billions = |key: &str| v["model"][key].as_f64().unwrap() / 1e9;
        let (all, works) = (billions("total"), billions("active_without_embeddings") + tables * billions("embeddings"));
        assert!((all / total - 1.0).abs() < 0.005, "{name}: {all}");
        assert!((works / active - 1.0).abs() < 0.02, "{name}: {works}");
    }
    for (name, experts, kv) in [("nvfp4-separate/config.json", 4.5, 8.0), ("mlx-quantization.json", 4.5, 16.0)] {
        let Some(path) = case(name) else { return };
        let v = import(&p, &path);
        assert_eq!(
            (v["precision"]["experts"].as_f64(), v["precision"]["kv"].as_f64()),
            (Some(experts), Some(kv)),
            "{name}"
        );
    }
}

const SMALL: &str = r#"{"model_type": "mixtral", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 100, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": null,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16"KEYS}"#;

#[test]
fn import_says_what_it_read() {
    let p = Place::new();
    p.write("config.json", SMALL.replace("KEYS", ""));
    let out = p.command(&["model", "import", "config.json"]).output().unwrap();
    let (file, said) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert!(file.contains("context = 4096") && file.contains("[decoder"), "{file}");
    // 4 x (12288 + 8 x 9216 + 512) and two tables of 6400.
    assert!(said.contains("0.4 M total"), "{said}");
    assert!(
        said.contains("active without embeddings")
            && said.contains("KV 512 bytes a token: 4 layers full (gqa 4/2 x 16) 128 bytes each; context 4096"),
        "{said}"
    );
    let said = p.ok(&["model", "import", "config.json", "--out", "m.toml"]);
    assert!(said.contains("embeddings and head"), "{said}");
    assert_eq!(p.text("m.toml"), file);
}

#[test]
fn names_come_from_the_configuration_or_the_folder() {
    let p = Place::new();
    let name = |config: &str, args: &[&str]| {
        let out = p.command(&[&["model", "import", config], args].concat()).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().find(|l| l.starts_with("name")).map(str::to_string).unwrap_or_default()
    };
    let folder = "models--org--Some-Model/snapshots/0123456789abcdef";
    std::fs::create_dir_all(p.path(folder)).unwrap();
    let config = format!("{folder}/config.json");
    p.write(&config, SMALL.replace("KEYS", ""));
    assert_eq!(name(&config, &[]), "name = \"some-model\"");
    assert_eq!(name(&config, &["--name", "mine"]), "name = \"mine\"");
    p.write(&config, SMALL.replace("KEYS", r#", "_name_or_path": "org/Other""#));
    assert_eq!(name(&config, &[]), "name = \"other\"");
}

#[test]
fn info_counts_what_devices_hold_and_traces_activate() {
    let p = Place::new();
    let json = |args: &[&str]| -> Value {
        serde_json::from_str(&p.ok(&[&["model", "info"], args, &["--format", "json"]].concat())).unwrap()
    };
    let v = json(&["mixtral-8x7b", "--devices", "8", "--attention-tp", "4", "--expert-tp", "2"]);
    let d = &v["per_device"];
    // 32 layers of two of the eight experts, of which each device has half; a router a layer whole, and a quarter of the rest.
    assert_eq!(d["expert_bytes"].as_u64(), Some(32 * 2 * 3 * 4096 * 14336));
    let rest: u64 = 32 * 2 * 4096 * (4096 + 1024) + 2 * 32000 * 4096;
    assert_eq!(d["common_bytes"].as_u64(), Some(2 * rest / 4 + 2 * 32 * 8 * 4096));
    assert!(p.ok(&["model", "info", "deepseek-v3", "--hardware", "h100-8"]).contains("a device"));
    p.ok(&["trace", "synth", "--model", "gpt-oss-20b", "--sequences", "4", "--decode-rows", "8", "--out", "t.arrow"]);
    let v = json(&["gpt-oss-20b", "--trace", "t.arrow"]);
    let t = &v["trace"];
    assert_eq!(t["selections_per_layer"].as_f64(), Some(4.0));
    // 24 layers of four experts of 24,883,200 weights and 8,640 biases in 4.25 bits.
    assert_eq!(t["expert_bytes_per_token"].as_f64(), Some(f64::from(24 * 4 * 17) * f64::from(24_891_840 / 32)));
    let wrong = p.command(&["model", "info", "mixtral-8x7b", "--trace", "t.arrow"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("MoE layers"));
    for bad in
        [&["mixtral-8x7b", "--devices", "0"][..], &["mixtral-8x7b", "--devices", "8", "--expert-tp", "3"], &["nothing"]]
    {
        assert_eq!(p.command(&[&["model", "info"], bad].concat()).output().unwrap().status.code(), Some(2));
    }
}
