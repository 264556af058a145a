//! Do other tools' own files become traces and counts?

use crate::common::{Place, number};
use serde_json::{Value, json};

/// A file that another tool's library wrote: see `traces/testdata/make.py`.
fn golden(name: &str) -> String {
    format!("{}/../traces/testdata/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_recording_of_sglang_is_a_trace_and_counts() {
    let p = Place::new();
    let said = p.ok(&["trace", "import", &golden("sglang_per_token.pt"), "--out", "t.arrow"]);
    assert!(said.starts_with("t.arrow: 4 sequences, 22 rows"), "{said}");
    let info: Value = serde_json::from_str(&p.ok(&["trace", "info", "t.arrow", "--format", "json"])).unwrap();
    assert_eq!([number(&info, "prefill_rows"), number(&info, "experts"), number(&info, "k")], [13.0, 6.0, 2.0]);
    // Layer 0 is dense.
    assert_eq!((&info["layer_numbers"], &info["imbalance_layers"]), (&json!([1, 2]), &json!([1, 1, 2])));
    assert_eq!(info["gate_weights"], false);
    let counts =
        |path: &str| -> Value { serde_json::from_str(&p.ok(&["trace", "counts", path, "--format", "json"])).unwrap() };
    let of_trace = counts("t.arrow");
    for name in ["sglang_stat.pt", "sglang_per_pass.pt"] {
        let c = counts(&golden(name));
        assert_eq!((&c["layers"], &c["format"]), (&of_trace["layers"], &Value::from("sglang")), "{name}");
    }
    assert_eq!(of_trace["layers"][0]["total"], 44);
    let table = p.ok(&["trace", "counts", "t.arrow"]);
    assert!(table.contains("2 layers of 6 experts, k = 2") && table.lines().count() == 4, "{table}");
}

#[test]
fn a_trace_says_its_layers() {
    let p = Place::new();
    let row = |l: u32| format!("0,0,{l},0,1\n");
    let layers: String = [0, 3, 4, 5, 9].map(row).concat();
    p.write("t.csv", format!("sequence,position,layer,expert0,expert1\n{layers}"));
    p.ok(&["trace", "import", "t.csv", "--experts", "4", "--out", "t.arrow"]);
    let said = p.ok(&["trace", "info", "t.arrow"]);
    let line = |key: &str| {
        let found = said.lines().find_map(|l| l.strip_prefix(key).filter(|rest| rest.starts_with("  ")));
        found.unwrap_or_else(|| panic!("no {key} in {said}")).trim().to_string()
    };
    assert_eq!(line("layer numbers"), "0, 3-5, 9");
    assert_eq!(line("imbalance"), "2.00 (layer 0), 2.00 (layer 4), 2.00 (layer 9)");
    assert_eq!((line("gate weights"), line("rows")), ("none".into(), "1".into()));
}

/// Gate weights come with the ids, and are shown.
#[test]
fn gate_weights_are_kept_and_shown() {
    let p = Place::new();
    let rows: String =
        (0..40).map(|i| format!("{},{},0,{},{},0.75,0.25\n", i / 20, i % 20, i % 3, 3 + i % 2)).collect();
    p.write("t.csv", format!("\"sequence\",position,layer,expert0,expert1,weight0,weight1\n{rows}"));
    p.ok(&["trace", "import", "t.csv", "--experts", "8", "--out", "t.arrow"]);
    let said = p.ok(&["trace", "stats", "t.arrow"]);
    let line = |key: &str| said.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("{said}")).to_string();
    assert!(line("gate weight of the expert of rank 1").contains("0.750"), "{said}");
    assert!(line("gate weight of the expert of rank 2").contains("0.250"), "{said}");
    let stats: Value = serde_json::from_str(&p.ok(&["trace", "stats", "t.arrow", "--format", "json"])).unwrap();
    assert_eq!(stats["gates"], json!({"by_rank": [0.75, 0.25], "layers": [[0.75, 0.25]]}));
    // Measured ones, out of an archive.
    let Some(folder) = crate::common::data("routing/gpt-oss-20b-gates") else { return };
    p.ok(&["trace", "import", folder.to_str().unwrap(), "--model", "gpt-oss-20b", "--out", "g.arrow"]);
    let info = p.ok(&["trace", "info", "g.arrow"]);
    assert!(info.contains("62856"), "{info}");
    let stats: Value = serde_json::from_str(&p.ok(&["trace", "stats", "g.arrow", "--format", "json"])).unwrap();
    let found: Vec<f64> = stats["gates"]["by_rank"].as_array().unwrap().iter().map(|w| w.as_f64().unwrap()).collect();
    for (found, published) in found.iter().zip([0.351, 0.264, 0.211, 0.174]) {
        assert!((found - published).abs() < 0.001, "{found}, not {published}");
    }
}

#[test]
fn a_folder_of_tensorrt_llm_is_a_trace_and_counts() {
    let p = Place::new();
    let said = p.ok(&["trace", "import", &golden("tensorrt_llm"), "--out", "t.arrow"]);
    assert!(said.starts_with("t.arrow: 4 sequences, 10 rows"), "{said}");
    let layers = |path: &str| {
        let c: Value = serde_json::from_str(&p.ok(&["trace", "counts", path, "--format", "json"])).unwrap();
        c["layers"].clone()
    };
    assert_eq!(layers("t.arrow"), layers(&golden("tensorrt_llm")));
}

#[test]
fn what_is_no_trace_is_refused() {
    let p = Place::new();
    p.write("x.gguf", b"GGUF\x03\x00\x00\x00");
    for (args, word) in [
        (["import", &golden("sglang_stat.pt"), "--out", "x"], "moesim trace counts"),
        (["import", &golden("legacy.pt"), "--out", "x"], "before 1.6"),
        (["import", &golden("module.pt"), "--out", "x"], "not only tensors"),
        (["counts", "x.gguf", "--format", "json"], "ends early"),
        (["counts", "absent", "--format", "json"], "no such file"),
        (["counts", "x.gguf", "--source-format", "gguf"], "is not a count format"),
    ] {
        let out = p.command(&[&["trace"], &args[..]].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && said.contains(word) && said.lines().count() == 1, "{args:?}: {said}");
        assert!(out.stdout.is_empty());
    }
    assert_eq!(p.names(), ["x.gguf"]);
}
