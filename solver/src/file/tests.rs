use super::*;
use proptest::prelude::*;

/// A placement file of so many layers, devices and experts, with replicas, unequal slots, and names.
fn any_file(repeats: bool) -> impl Strategy<Value = PlacementFile> {
    let shape = (1usize..5, 1usize..7, 1usize..40);
    let filled = move |(layers, devices, experts): (usize, usize, usize)| {
        let slot = proptest::collection::vec(0..experts as u16, 0..6);
        let extra = proptest::collection::vec(proptest::collection::vec(slot, devices), layers);
        let order = proptest::collection::vec(any::<u32>(), experts * layers);
        (Just((layers, devices, experts)), extra, order, 0u32..50, any::<bool>())
    };
    type Drawn = ((usize, usize, usize), Vec<Vec<Vec<u16>>>, Vec<u32>, u32, bool);
    let build = move |((layers, devices, experts), mut extra, order, first, named): Drawn| {
        for l in 0..layers {
            for e in 0..experts {
                // Each expert somewhere, before or behind what is there.
                let at = order[l * experts + e] as usize;
                let slots = &mut extra[l][at % devices];
                let i = at / devices % (slots.len() + 1);
                slots.insert(i, e as u16);
            }
            if !repeats {
                for slots in &mut extra[l] {
                    let mut seen = std::collections::BTreeSet::new();
                    slots.retain(|e| seen.insert(*e));
                }
            }
        }
        PlacementFile {
            format: "moesim",
            model: named.then(|| "a \"model\"\n".to_string()),
            layer_numbers: (0..layers as u32).map(|l| first + 2 * l).collect(),
            placed: Placed { experts, devices: extra },
            result: named.then(|| serde_json::json!({"gap": 0.5, "method": "x", "[": [1, null, {}]})),
            notes: Vec::new(),
        }
    };
    shape.prop_flat_map(filled).prop_map(build)
}

/// What comes back of a file that is written.
fn back(file: &PlacementFile, format: &str, name: &str, options: &ReadOptions) -> Result<PlacementFile> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    write(file, format, &path)?;
    let detected = formats().iter().find(|f| f.detect(&path)).map(|f| f.name());
    assert_eq!(detected, Some(format), "{name} is taken for {detected:?}");
    read(&path, options)
}

fn refused(name: &str, bytes: &[u8], options: &ReadOptions, word: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let e = read(&path, options).unwrap_err();
    let text = e.to_string();
    assert!(text.contains(word), "{text} lacks {word}");
    assert!(e.exit_code() == 2 && e.file.is_some() && !e.cure.is_empty(), "{text}");
    assert!(!text.chars().any(char::is_control) && text.len() < 1200, "{text}");
}

proptest! {
    #[test]
    fn our_own_format_keeps_everything(file in any_file(true)) {
        let got = back(&file, "moesim", "p.json", &ReadOptions::default()).unwrap();
        prop_assert_eq!(&got.placed, &file.placed);
        prop_assert_eq!((&got.model, &got.layer_numbers, &got.result), (&file.model, &file.layer_numbers, &file.result));
        let repeated = file.check().unwrap().repeated;
        prop_assert_eq!(got.notes.len(), usize::from(repeated > 0));
    }

    #[test]
    fn omnis_pattern_keeps_the_homes(file in any_file(false)) {
        let numbers = file.layer_numbers.clone();
        let options = ReadOptions { layer_numbers: Some(&numbers), ..Default::default() };
        let got = back(&file, "omni", "p.npy", &options).unwrap();
        prop_assert_eq!(got.placed.homes(), file.placed.homes());
        prop_assert_eq!((got.layer_numbers, got.notes), (numbers, vec![]));
        // Slots come back in ascending order.
        prop_assert!(got.placed.devices.iter().flatten().all(|d| d.is_sorted()));
        prop_assert_eq!(Placed::from_homes(&file.placed.homes(), file.placed.devices()).unwrap(), got.placed);
    }
}

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
    refused("p.json", &with("[4]", &format!("[{}]", "[],".repeat(1_100_000))), &none, "too many lists");
    refused("p.json", &with("[4]", &format!("[{}]", "0,".repeat(19_000_000))), &none, "too many lists or numbers");
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
    let models = ReadOptions { layer_numbers: Some(&[3, 4]), ..none.clone() };
    refused("p.npy", &pattern(&[1, 1, 2], &[1, 1]), &models, "has 1 layers; the model has 2 with experts");
    let twice = PlacementFile { placed: Placed { experts: 1, devices: vec![vec![vec![0, 0]]] }, ..small() };
    let e = write(&twice, "omni", Path::new("p.npy")).unwrap_err();
    assert!(e.to_string().contains("layer 0: device 0 holds expert 0 twice; place replicas on distinct"), "{e}");
    let e = write(&small(), "omni", Path::new("p.npz")).unwrap_err();
    assert!(e.to_string().contains("is not named .npy"), "{e}");
}

/// Three experts on two devices, the first twice.
fn small() -> PlacementFile {
    let placed = Placed { experts: 3, devices: vec![vec![vec![2, 0], vec![0, 1]]] };
    PlacementFile { format: "moesim", model: None, layer_numbers: vec![7], placed, result: None, notes: vec![] }
}

#[test]
fn replicas_and_moves_are_counted() {
    let a = small().placed;
    assert_eq!(a.check().unwrap(), Checked { slots: Some(2), repeated: 0 });
    let expected = Replicas { slots: 4, redundant: 1, replicated: 1, most: 2, per_device: (2, 2) };
    assert_eq!(a.replicas(), expected);
    assert_eq!((a.layers(), a.devices(), a.slots(0)), (1, 2, 4));
    assert_eq!(a.homes(), vec![vec![vec![0, 1], vec![1], vec![0]]]);
    // Other slots of the same device are no moves; a repeated expert is loaded once.
    let b = Placed { experts: 3, devices: vec![vec![vec![0, 2, 1, 1], vec![0]]] };
    assert_eq!((a.moves(&a), a.moves(&b), b.moves(&a)), (0, 1, 1));
    assert_eq!(b.check().unwrap(), Checked { slots: None, repeated: 1 });
    // From nothing, everything is loaded.
    assert_eq!(Placed::default().moves(&b), 4);
    for (homes, devices, word) in [
        (vec![vec![vec![0], vec![2]]], 2, "expert 1 is on device 2 of 2"),
        (vec![vec![vec![0], vec![]]], 2, "expert 1 of 2 is on no device"),
        (vec![vec![vec![0]], vec![]], 1, "layer 1: has 0 experts, not 1"),
        (vec![], 1, "has 0 layers"),
        (vec![vec![vec![0]]], 0, "0 devices"),
    ] {
        let e = Placed::from_homes(&homes, devices).unwrap_err().to_string();
        assert!(e.contains(word), "{e}");
    }
}

/// omni-infer's nine placements of DeepSeek-V3.
#[test]
fn placements_that_are_deployed() {
    let name = "routing/placements/deepseek-v3_device_layer_expert.npz";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if !path.exists() {
        return println!("skipped: {} is not there", path.display());
    }
    let e = read(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(e.contains("has 9 arrays of 3 dimensions; name the array to read with --array: DSV3_"), "{e}");
    // Devices; slots over all layers; slots of a device, if equal; fewest and most slots.
    let expected = [
        ("DSV3_baseline_8_devices_58_MoE_Layers", 8, 58 * 256, Some(32)),
        ("DSV3_baseline_16_devices_58_MoE_Layers", 16, 58 * 256, Some(16)),
        ("DSV3_baseline_32_devices_58_MoE_Layers", 32, 58 * 256, Some(8)),
        ("placement_pattern_3d_v3_base_4devices", 4, 58 * 256, Some(64)),
    ];
    let numbers: Vec<u32> = (3..61).collect();
    let open = |name: &str| {
        let array = Some(name.to_string());
        read(&path, &ReadOptions { array, layer_numbers: Some(&numbers), ..Default::default() }).unwrap()
    };
    for (name, devices, slots, each) in expected {
        let p = open(name).placed;
        assert_eq!((p.layers(), p.experts, p.devices()), (58, 256, devices));
        assert_eq!((p.replicas().slots, p.check().unwrap().slots), (slots, each), "{name}");
        // Contiguous.
        let homes = p.homes();
        assert!((0..256).all(|e| homes[57][e] == [(e / (256 / devices)) as u32]), "{name}");
    }
    // Layers with one more expert on each device: 10 of 58, all; then as many as there are.
    let replicas = |slots, replicated, most, per_device| Replicas {
        slots,
        redundant: slots - 58 * 256,
        replicated,
        most,
        per_device,
    };
    for (name, expected, each) in [
        (
            "DSV3_0427_GSM8K_decode_RedFullLays_+10_58_MoELayers_32_dies_epmaxdeploy_12",
            replicas(58 * 256 + 10 * 32, 320, 2, (8, 9)),
            None,
        ),
        ("DSV3_RedFullLays_+58_58_MoELayers_64_dies_Rand_0411", replicas(58 * (256 + 64), 2341, 12, (5, 5)), Some(5)),
        ("placement_pattern_3d_v3_supersuperrr4_32devices_SC", replicas(16_696, 1018, 4, (8, 9)), None),
        ("placement_pattern_3d_v3_naivebalance3_16devices_HE", replicas(58 * 256, 0, 1, (16, 16)), Some(16)),
        (
            "placement_pattern_20250626_221356_58_rearrange_layers_58_layers_16_ranks_prefill_step0to100000",
            replicas(58 * 256, 0, 1, (16, 16)),
            Some(16),
        ),
    ] {
        let p = open(name).placed;
        assert_eq!((p.replicas(), p.check().unwrap()), (expected, Checked { slots: each, repeated: 0 }), "{name}");
        // What is taken away is what comes back, where no device holds more.
        let base = open(&format!("DSV3_baseline_{}_devices_58_MoE_Layers", p.devices().min(32))).placed;
        if base.devices() == p.devices() {
            assert_eq!(base.moves(&p), p.moves(&base) + expected.redundant, "{name}");
        }
    }
}
