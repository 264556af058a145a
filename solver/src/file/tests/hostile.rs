//! Files that are damaged, lie or are none.

use super::*;

#[test]
fn what_is_wrong_with_our_own_files() {
    let good = r#"{"format": "moesim-placement", "version": 1, "experts": 3, "devices": 2, "layer_numbers": [4], "layers": [[[0, 2], [1]]]}"#;
    let none = ReadOptions::default();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from));
        good.replace(from, to).into_bytes()
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p"), good).unwrap();
    assert_eq!(read(&dir.path().join("p"), &none).unwrap().layer_numbers, [4]);
    for (from, to, word) in [
        ("\"version\": 1", "\"version\": 2", "of version 2, not moesim-placement of version 1"),
        ("[1]", "[-1]", "invalid value: integer `-1`"),
        ("[1]", "[1.5]", "expected u16"),
        ("[1]", "[70000]", "invalid value: integer `70000`"),
        ("[1]", "[NaN]", "expected value"),
        ("[1]", "[3]", "layer 0, device 1: expert 3 of 3 does not exist"),
        ("[1]", "[]", "layer 0: expert 1 of 3 is on no device"),
        (", [1]", "", "layer 0: has 1 devices, not 2"),
        ("[[[0, 2], [1]]]", "[]", "has 0 layers"),
        ("[[[0, 2], [1]]]", "[[0, 1]]", "invalid type: integer `0`"),
        ("[4]", "[4, 5]", "numbers 2 layers and places 1"),
        ("\"experts\": 3", "\"experts\": 0", "0 experts"),
        ("\"experts\": 3", "\"experts\": 70000", "70000 experts"),
        ("\"experts\": 3", "\"experts\": 99999999999999999999", "invalid type"),
        ("\"devices\": 2", "\"devices\": 2, \"devices\": 2", "duplicate field"),
        ("\"devices\": 2", "\"devices\": 2, \"slots\": 2", "unknown field `slots`"),
        ("\"devices\": 2, ", "", "missing field `devices`"),
        ("]]]}", "]]", "EOF"),
    ] {
        refused("p.json", &with(from, to), &none, word);
    }
    refused("p.json", &with("\"version\"", "\"result\": [1, 2, \u{1b}], \"version\""), &none, "expected value");
    let long = format!("\"result\": \"{}\", \"version\"", "x".repeat(1 << 20));
    refused("p.json", &with("\"version\"", &long), &none, "result: is larger than 1 MiB");
    let deep = format!("\"result\": {}{}, \"version\"", "[".repeat(500), "]".repeat(500));
    refused("p.json", &with("\"version\"", &deep), &none, "recursion limit");
    refused("p.json", &with("[4]", &format!("[{}]", "[],".repeat(2_200_000))), &none, "too many lists");
    refused("p.json", &with("[4]", &format!("[{}]", "0,".repeat(21_000_000))), &none, "too many lists or numbers");
    let two = ReadOptions { devices: Some(3), ..Default::default() };
    refused("p.json", good.as_bytes(), &two, "devices: has 2 devices, not 3");
    let four = ReadOptions { experts: Some(4), ..Default::default() };
    refused("p.json", good.as_bytes(), &four, "has 3 experts a layer, not 4");
    let other = ReadOptions { layer_numbers: Some(&[3]), ..Default::default() };
    refused("p.json", good.as_bytes(), &other, "has no layer 3");
    let odd = ReadOptions { format: Some("moesimm"), ..Default::default() };
    let e = read(&dir.path().join("p"), &odd).unwrap_err().to_string();
    assert!(e.contains("\"moesimm\" is not a placement format; did you mean \"moesim\"?"), "{e}");
    refused("p.json", b"", &none, "holds no placement in a known format");
    let forced = ReadOptions { format: Some("moesim"), ..Default::default() };
    refused("p.json", b"", &forced, "EOF while parsing");
    refused("p.json", b"\xff\xfe", &forced, "is no placement");
}

#[test]
fn what_is_wrong_with_omnis_patterns() {
    let none = ReadOptions { format: Some("omni"), ..Default::default() };
    let pattern = |shape: &[usize], cells: &[u16]| npy::array(shape, 1, cells.iter().copied());
    refused("p.npy", &pattern(&[1, 1, 2], &[1, 2]), &none, "device 0, layer 0, expert 1: has 2 where 0 or 1 should be");
    refused("p.npy", &pattern(&[2, 1, 2], &[1, 0, 1, 0]), &none, "layer 0: expert 1 of 2 is on no device");
    refused("p.npy", &pattern(&[1, 1, 2], &[1]), &none, "ends early");
    refused("p.npy", &pattern(&[2, 2], &[1, 1, 1, 1]), &none, "not 3 dimensions");
    refused("p.npy", &pattern(&[1, 5000, 1], &vec![1; 5000]), &none, "5000 layers");
    refused("p.npy", &pattern(&[1, 1, 65_535], &vec![1; 65_535]), &none, "65535 experts");
    refused("p.npy", &pattern(&[1 << 40, 1 << 40, 1], &[]), &none, "16777216 elements are the most");
    refused("p.npy", b"", &none, "is not a numpy array");
    // What cannot be read is not called unknown.
    let unnamed = ReadOptions::default();
    refused("p.npy", b"", &unnamed, "is not a numpy array");
    refused("p.npz", b"", &unnamed, "is not a sound archive");
    let bytes = pattern(&[1, 1, 1], &[1]);
    let fortran: Vec<u8> = String::from_utf8_lossy(&bytes[10..]).replace("False", "True ").into_bytes();
    refused("p.npy", &[&bytes[..10], &fortran].concat(), &unnamed, "is in Fortran order");
    let models = ReadOptions { layer_numbers: Some(&[3, 4]), ..none.clone() };
    refused("p.npy", &pattern(&[1, 1, 2], &[1, 1]), &models, "has 1 layers; the model has 2 with experts");
    let twice = PlacementFile { placed: Placed { experts: 1, devices: vec![vec![vec![0, 0]]] }, ..small() };
    let e = write(&twice, "omni", Path::new("p.npy")).unwrap_err();
    assert!(e.to_string().contains("layer 0: device 0 holds expert 0 twice; place replicas on distinct"), "{e}");
    let e = write(&small(), "omni", Path::new("p.npz")).unwrap_err();
    assert!(e.to_string().contains("is not named .npy"), "{e}");
}

#[test]
fn what_is_wrong_with_maps_of_slots() {
    let two = ReadOptions { devices: Some(2), ..Default::default() };
    let csv = |text: &str, word: &str| {
        refused("p.csv", text.as_bytes(), &ReadOptions { format: Some("eplb"), ..two.clone() }, word)
    };
    csv("0,1\n0,1,2\n", "layer 1: has 3 slots, not 2");
    csv("0,x\n", "line 1: has a field that is no expert");
    csv("0,1\n\n", "line 2: has a field that is no expert");
    csv("0,-1\n", "line 1");
    csv("0,NaN\n", "line 1");
    csv("0,65536\n", "line 1");
    csv("0,65535\n", "65536 experts");
    csv("0,2\n", "layer 0: expert 1 of 3 is on no device");
    csv("0,1,2\n", "has 3 slots, which 2 devices cannot share evenly");
    csv("", "has 0 slots");
    csv(&"0,0\n".repeat(4097), "4097 layers");
    csv(&"0,".repeat(21_000_000), "too many lists or numbers");
    refused("p.csv", b"0,\xff\n", &ReadOptions { format: Some("eplb"), ..two.clone() }, "is not UTF-8 text");
    refused("p.csv", b"layer,slot\n0,1\n", &two, "holds no placement in a known format");
    refused(
        "p.json",
        b"[[0, 1], [1, 0]]",
        &ReadOptions::default(),
        "maps 2 slots and does not say to how many devices",
    );
    refused("p.json", b"[[0, 1], [1, 0]]", &ReadOptions { devices: Some(0), ..two.clone() }, "0 devices cannot share");
    refused("p.json", b"[[0, 1], [1.5, 0]]", &two, "1:13: is no map from slots to experts");
    refused("p.json", b"[[0, 1], [[], 0]]", &two, "invalid type: sequence");
    refused("p.json", b"[[0, 1], [1, 0]", &two, "EOF");
    refused("p.json", b"[[], []]", &two, "has 0 slots");
    let five = ReadOptions { experts: Some(5), ..two.clone() };
    refused("p.json", b"[[0, 1], [1, 0]]", &five, "layer 0: expert 2 of 5 is on no device");
    let one = ReadOptions { experts: Some(1), ..two.clone() };
    refused("p.json", b"[[0, 1], [1, 0]]", &one, "expert 1 of 1 does not exist");
    let npy = |shape: &[usize], data: &[u16]| npy::array(shape, 8, data.iter().copied());
    refused("p.npy", &npy(&[1, 2], &[0, 65_534]), &two, "layer 0, slot 1: 65534 is no expert");
    refused("p.npy", &npy(&[5000, 1], &[0; 5000]), &two, "has the shape [5000, 1]");
    refused("p.npy", &npy(&[1, 1 << 25], &[]), &two, "16777216 elements are the most");
    refused("p.npy", &npy(&[1, 2], &[0]), &two, "ends early");
    let named = ReadOptions { array: Some("x".into()), ..two };
    refused("p.pt", b"PK\x03\x04", &ReadOptions { format: Some("eplb"), ..named }, "is not a sound archive");
}

#[test]
fn what_is_wrong_with_engines_files() {
    let two = ReadOptions { devices: Some(2), ..Default::default() };
    let sglang = |text: &str, word: &str| {
        refused("p.json", text.as_bytes(), &ReadOptions { format: Some("sglang"), ..two.clone() }, word)
    };
    sglang(r#"{"physical_to_logical_map": [[0, 1], [1]]}"#, "layer 1: has 1 slots, not 2");
    sglang(r#"{"physical_to_logical_map": [[0, -1]]}"#, "invalid value: integer `-1`");
    sglang(r#"{"physical_to_logical_map": []}"#, "has 0 slots");
    sglang(r#"{"logical_count": [[5, 6]]}"#, "logical_count: holds counts, of which SGLang makes a placement");
    sglang("{}", "has no physical_to_logical_map");
    sglang("[]", "is no expert location of SGLang");
    sglang(r#"{"physical_to_logical_map": [[0, 1]], "physical_to_logical_map": [[0, 1]]}"#, "duplicate field");
    sglang(&format!(r#"{{"physical_to_logical_map": [{}[0, 1]]}}"#, "[0, 1],".repeat(5000)), "has 5001 layers");
    let ascend = |text: &str, word: &str| {
        refused("p.json", text.as_bytes(), &ReadOptions { format: Some("vllm-ascend"), ..Default::default() }, word);
    };
    let layer = |more: &str| format!(r#"{{"moe_layer_count": 1, "layer_list": [{{{more}}}]}}"#);
    ascend(r#"{"moe_layer_count": 2, "layer_list": []}"#, "layer_list: has 0 layers, not 2");
    ascend(r#"{"moe_layer_count": 0, "layer_list": []}"#, "has 0 layers");
    ascend(r#"{"layer_list": []}"#, "missing field `moe_layer_count`");
    ascend(&layer(""), "missing field `device_list`");
    ascend(&layer(r#""device_list": []"#), "0 devices");
    ascend(&layer(r#""device_count": 2, "device_list": [{"device_expert": [0]}]"#), "layer 0: has 1 devices, not 2");
    ascend(&layer(r#""device_list": [{"device_expert": [0, 65535]}]"#), "65536 experts");
    ascend(&layer(r#""device_list": [{"device_expert": [0, 1e9]}]"#), "invalid type: floating point");
    ascend(&layer(r#""device_list": [{"device_expert": [0, 2]}]"#), "expert 1 of 3 is on no device");
    let yaml = |text: &str, word: &str| {
        refused("p.yaml", text.as_bytes(), &ReadOptions { format: Some("tensorrt-llm"), ..two.clone() }, word)
    };
    let assigned = |text: &str| format!("initial_global_assignments:\n{text}\n");
    for (text, word) in [
        ("", "assigns no expert"),
        ("  3: [0, 1]\n  3: [0, 1]", "assigns layer 3 twice"),
        ("  3: [0, 1]\n 4: [0, 1]", "line 3: is indented unlike"),
        ("  3: [0, 1", "line 2: ends within a list"),
        ("  3: [0, 1\n  4: [0, 1]", "line 3: has two experts without a comma"),
        ("  3: [0 1]", "two experts without a comma"),
        ("  3: [0,, 1]", "a comma where an expert should be"),
        ("  3: [0, 1] 2", "goes on behind the list"),
        ("  3: [0, a]", "line 2: \"a\" is no expert"),
        ("  3: [0, .nan]", "\".nan\" is no expert"),
        ("  3: [0, 99999999999]", "is no expert"),
        ("  3: [0, 65534]", "65534 is no expert"),
        ("  3: [0, [1]]", "\"[1\" is no expert"),
        ("  3: 7", "has no list of experts"),
        ("  3: *a", "\"*a\" names no list before"),
        ("  3:\n  - 0\n  - 1\n  - x", "line 5: \"x\" is no expert"),
        ("  3:", "has 0 slots"),
        ("  x: [0, 1]", "\"x\" is no number of a layer"),
        ("  99999999999: [0, 1]", "is no number of a layer"),
        ("  3: [0, 1]\n  4: [0, 1, 1, 0]", "layer 1: has 4 slots, not 2"),
        ("  3: [0, 1]\nnum_slots: 4", "num_slots: is 4; layer 3 has 2"),
        ("  3: [0, 1]\nnum_slots: x", "is no number of slots"),
        ("  3: [0, 1]\nnum_slots:", "is no number of slots"),
        ("  3: [0, 1]\nnum_slots: 2\nnum_slots: 2", "line 4: \"num_slots\" is twice here"),
        ("  3: [0, 1]\nmoe_config: 2", "TensorRT-LLM knows no key \"moe_config\" here"),
        ("  3: [0, 1]\n\u{7}", "line 3: has no key"),
        ("  3:[0, 1]", "has no space behind a key"),
        ("  3: [0, 2]", "expert 1 of 3 is on no device"),
    ] {
        yaml(&assigned(text), word);
    }
    yaml("", "assigns no expert");
    yaml("initial_global_assignments: {3: [0, 1]}", "has the layers on the line of their key");
    yaml("initial_global_assignments:\n  1: [0, 1]\ninitial_global_assignments:\n", "is twice here");
    yaml(&assigned(&"  1: [0, 1]\n".repeat(4097)), "more than 4096 layers");
    // A list of 2^16 slots, named 4095 times.
    let many = format!("  0: &a [{}]\n{}", "0, ".repeat(1 << 16), "  1: *a\n".repeat(4095));
    yaml(&assigned(&many), "line 258: has more than 2^24 slots");
    refused("p.yaml", b"\xff\xfe", &ReadOptions { format: Some("tensorrt-llm"), ..two }, "is not UTF-8 text");
}
