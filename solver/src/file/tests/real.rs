//! Placements that are deployed.

use super::*;

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
