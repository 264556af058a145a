//! Files of engines: round trips, the very text, and what they cannot say.

use super::*;

/// A placement with the same slots on all devices; with `repeats`, an expert may be twice on a device.
fn any_equal(repeats: bool) -> impl Strategy<Value = PlacementFile> {
    let shape = (1usize..5, 1usize..6, 1usize..8);
    let rows = move |(layers, devices, each): (usize, usize, usize)| {
        (1..=devices * each).prop_flat_map(move |experts| {
            // Without repeats, consecutive slots go through a permutation; a device then has at most all experts.
            let each = if repeats { each } else { each.min(experts) };
            let ids = (0..devices * each).map(|s| (s % experts) as u16).collect::<Vec<_>>();
            let order = if repeats { Just(ids).prop_shuffle().boxed() } else { Just(ids).boxed() };
            let names = Just((0..experts as u16).collect::<Vec<_>>()).prop_shuffle();
            let row = (order, names).prop_map(move |(order, names)| {
                let ids: Vec<u16> = order.iter().map(|i| names[usize::from(*i)]).collect();
                ids.chunks(each).map(<[u16]>::to_vec).collect::<Vec<_>>()
            });
            (Just(experts), proptest::collection::vec(row, layers), 0u32..9)
        })
    };
    shape.prop_flat_map(rows).prop_map(|(experts, devices, first)| PlacementFile {
        format: "moesim",
        model: None,
        layer_numbers: (0..devices.len() as u32).map(|l| first + 2 * l).collect(),
        placed: Placed { experts, devices },
        result: None,
        notes: vec![],
    })
}

/// Writes, reads with what the file does not say, and compares.
fn round(file: &PlacementFile, format: &'static str, name: &str) {
    let options = ReadOptions {
        format: (format == "vllm").then_some(format),
        devices: Some(file.placed.devices()),
        experts: Some(file.placed.experts),
        layer_numbers: Some(&file.layer_numbers),
        array: None,
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    write(file, format, &path).unwrap();
    let taken = formats().iter().find(|f| f.detect(&path)).map(|f| f.name());
    assert_eq!(taken, Some(if format == "vllm" { "eplb" } else { format }));
    let got = read(&path, &options).unwrap();
    assert_eq!((&got.placed, &got.layer_numbers, got.format), (&file.placed, &file.layer_numbers, format));
    // Without the numbers, what the file says of its layers.
    let got = read(&path, &ReadOptions { layer_numbers: None, ..options }).unwrap();
    let own = file.layer_numbers.last().map_or(0, |l| *l as usize + 1);
    let expected = match format {
        "tensorrt-llm" => file.layer_numbers.clone(),
        "sglang" => (0..own as u32).collect(),
        _ => (0..file.placed.layers() as u32).collect(),
    };
    assert_eq!(got.layer_numbers, expected);
    assert_eq!(got.placed.devices.last(), file.placed.devices.last());
}

proptest! {
    #[test]
    fn maps_of_slots_keep_every_slot(file in any_equal(true)) {
        for name in ["p.npy", "p.json", "p.csv"] {
            round(&file, "eplb", name);
        }
        round(&file, "vllm", "p.json");
        round(&file, "sglang", "p.json");
        round(&file, "tensorrt-llm", "p.yaml");
    }

    #[test]
    fn vllm_ascends_map_keeps_every_slot(file in any_equal(false)) {
        prop_assert_eq!(file.check().unwrap().repeated, 0);
        round(&file, "vllm-ascend", "p.json");
    }
}

/// Four experts on two devices with three slots, in layers 1 and 2.
fn two_layers() -> PlacementFile {
    let devices = vec![vec![vec![0, 1, 2], vec![3, 0, 1]], vec![vec![3, 2, 1], vec![0, 3, 2]]];
    PlacementFile { layer_numbers: vec![1, 2], placed: Placed { experts: 4, devices }, ..small() }
}

#[test]
fn what_engines_load() {
    let dir = tempfile::tempdir().unwrap();
    let text = |format: &str, name: &str| {
        write(&two_layers(), format, &dir.path().join(name)).unwrap();
        std::fs::read_to_string(dir.path().join(name)).unwrap()
    };
    assert_eq!(text("eplb", "p.csv"), "0,1,2,3,0,1\n3,2,1,0,3,2\n");
    assert_eq!(text("eplb", "p.json"), "[\n[0,1,2,3,0,1],\n[3,2,1,0,3,2]\n]\n");
    assert_eq!(text("vllm", "p.json"), text("eplb", "p.json"));
    // Layer 0, which is dense, as SGLang would begin.
    let rows = "[0,1,2,3,0,1],\n[0,1,2,3,0,1],\n[3,2,1,0,3,2]";
    assert_eq!(text("sglang", "p.json"), format!("{{\"physical_to_logical_map\": [\n{rows}\n]}}\n"));
    let yaml = "initial_global_assignments:\n  1: [0,1,2,3,0,1]\n  2: [3,2,1,0,3,2]\nlayer_updates_per_iter: 0\nnum_slots: 6\n";
    assert_eq!(text("tensorrt-llm", "p.yaml"), yaml);
    let ascend: serde_json::Value = serde_json::from_str(&text("vllm-ascend", "p.json")).unwrap();
    assert_eq!((ascend["moe_layer_count"].as_u64(), ascend["layer_list"][1]["layer_id"].as_u64()), (Some(2), Some(1)));
    let device = &ascend["layer_list"][1]["device_list"][1];
    assert_eq!(device, &serde_json::json!({"device_id": 1, "device_expert": [0, 3, 2]}));
    assert_eq!(ascend["layer_list"][0]["device_count"], 2);
}

#[test]
fn what_engines_cannot_say() {
    let unequal = PlacementFile { placed: Placed { experts: 2, devices: vec![vec![vec![0, 1], vec![1]]] }, ..small() };
    let twice = PlacementFile { placed: Placed { experts: 2, devices: vec![vec![vec![0, 0], vec![1, 1]]] }, ..small() };
    let dir = tempfile::tempdir().unwrap();
    let refuses = |file: &PlacementFile, format: &str, name: &str, word: &str| {
        let path = dir.path().join(name);
        let e = write(file, format, &path).unwrap_err();
        assert!(e.to_string().contains(word) && e.file.is_some() && !e.cure.is_empty() && !path.exists(), "{e}");
    };
    for (format, name) in
        [("eplb", "p.npy"), ("vllm", "p.json"), ("vllm-ascend", "p.json"), ("sglang", "p.json"), ("tensorrt-llm", "p")]
    {
        refuses(&unequal, format, name, "layer 0: device 1 has 1 slots, others 2; give all devices the same slots");
    }
    refuses(&twice, "vllm-ascend", "p.json", "2 slots repeat an expert that their device holds; place replicas on");
    refuses(&two_layers(), "eplb", "p.pt", "name it .npy, .json or .csv");
    refuses(&two_layers(), "sglang", "p.txt", "is not named .json");
    refuses(&PlacementFile { layer_numbers: vec![1, 5000], ..two_layers() }, "sglang", "p.json", "has a layer 5000");
    refuses(&PlacementFile { layer_numbers: vec![2, 2], ..two_layers() }, "moesim", "p", "has layer 2 behind layer 2");
    refuses(&PlacementFile { layer_numbers: vec![2], ..two_layers() }, "moesim", "p", "numbers 1 layers and places 2");
    let lacking = PlacementFile { placed: Placed { experts: 5, ..two_layers().placed }, ..two_layers() };
    refuses(&lacking, "tensorrt-llm", "p", "layer 0: expert 4 of 5 is on no device");
}

#[test]
fn what_pyyaml_may_write() {
    let text = "# made by a tool\n---\ninitial_global_assignments:\n  3: &id001 [0, 1,\n    2, 3,]  # on\n  '4': *id001\n  7:\n  - 3\n  - 2\n  - 1\n  - 0\nnum_slots: 4\nlayer_updates_per_iter: 2\n";
    let b = yaml::read(text.as_bytes()).unwrap();
    assert_eq!((b.num_slots, b.layer_updates_per_iter), (Some(4), Some(2)));
    let same = vec![0, 1, 2, 3];
    assert_eq!(b.assignments, [(3, same.clone()), (4, same), (7, vec![3, 2, 1, 0])]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.yaml");
    std::fs::write(&path, text).unwrap();
    let options = ReadOptions { devices: Some(2), layer_numbers: Some(&[4, 7]), ..Default::default() };
    let file = read(&path, &options).unwrap();
    assert_eq!((file.layer_numbers, &file.placed.devices[0]), (vec![4, 7], &vec![vec![0, 1], vec![2, 3]]));
    assert_eq!(file.notes.len(), 2, "{:?}", file.notes);
    assert!(file.notes[0].contains("2 layers an iteration") && file.notes[1].contains("1 layers"), "{:?}", file.notes);
}

#[test]
fn how_a_running_server_stands() {
    // A recording of SGLang: expert (slot + layer) mod 6 in each of 8 slots; its layer 0 is dense.
    let golden = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/testdata").join(name);
    let options = ReadOptions { devices: Some(4), layer_numbers: Some(&[1, 2]), ..Default::default() };
    let file = read(&golden("sglang_per_pass.pt"), &options).unwrap();
    assert_eq!((file.format, file.placed.experts), ("sglang", 6));
    assert_eq!(file.placed.devices[0], [[1, 2], [3, 4], [5, 0], [1, 2]]);
    assert_eq!(file.placed.replicas().redundant, 4);
    let e = read(&golden("sglang_stat.pt"), &options).unwrap_err().to_string();
    assert!(e.contains("holds no placement in a known format"), "{e}");
    // Loads of EPLB are no map of slots.
    let e = read(&golden("eplb.pt"), &ReadOptions { layer_numbers: None, ..options }).unwrap_err();
    assert!(e.exit_code() == 2 && e.file.is_some() && !e.cure.is_empty(), "{e}");
}

#[test]
fn what_vllm_ascend_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.json");
    let text = r#"{"moe_layer_count": 1, "strategy_version": 3, "layer_list": [{"layer_id": 3, "device_list": [{"device_expert": [0]}, {"device_expert": [1]}]}]}"#;
    std::fs::write(&path, text).unwrap();
    let file = read(&path, &ReadOptions::default()).unwrap();
    assert_eq!((file.format, file.placed.devices(), file.layer_numbers), ("vllm-ascend", 2, vec![0]));
    assert!(file.notes[0].contains("goes by positions"), "{:?}", file.notes);
}
