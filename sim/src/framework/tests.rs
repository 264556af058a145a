use super::*;

fn engine(text: &str) -> Result<Framework> {
    Framework::new(&config::from_toml(text, "test").unwrap())
}

#[test]
fn a_name_sets_all_and_a_key_one() {
    for (name, own) in
        [("vllm", "vllm"), ("sglang", "sglang"), ("tensorrt-llm", "tensorrt-llm"), ("trtllm", "tensorrt-llm")]
    {
        let e = engine(&format!("framework = {name:?}")).unwrap();
        assert_eq!((e.framework, e.graphs, e.dispatch.value.as_str()), (Some(own), true, "all-gather"));
        assert_eq!(e.kernels.len(), 5, "{e:?}");
        assert!(e.kernels.values().all(|k| !k.value.is_empty() && !k.origin.is_empty()));
    }
    let e = engine("framework = \"vllm\"\ngraphs = false\nhost_time = \"50 us\"\nkernels = { experts = \"mine\" }")
        .unwrap();
    assert_eq!((e.asked(Use::Experts), e.asked(Use::Gemm)), (Some("mine"), None));
    assert_eq!((e.suits(Use::Experts, "mine"), e.suits(Use::Experts, "vllm_fused_moe")), (Some(0), None));
    assert!(!e.graphs && e.host_time.unwrap().origin == "user");
}

#[test]
fn an_unknown_framework_is_refused_by_the_nearest_known_name() {
    let e = engine("framework = \"vlm\"").unwrap_err().to_string();
    assert!(e.contains("vllm") && e.contains("engine.framework"), "{e}");
}

#[test]
fn earlier_patterns_are_preferred_and_a_star_is_any_rest() {
    let e = engine("framework = \"sglang\"").unwrap();
    let at = |family: &str| e.suits(Use::DecodeAttention, family);
    assert!(at("decode fa3") < at("decode triton") && at("decode fa3").is_some());
    assert_eq!((at("decode torch_flow"), e.suits(Use::Gemm, "sglang_torch_linear")), (None, Some(0)));
}

#[test]
fn dispatch_follows_the_engine_where_it_is_left_to_it() {
    let (auto, own) = (Choice::named(Choice::AUTO), Choice::named("hierarchical"));
    let vllm = engine("framework = \"vllm\"").unwrap();
    assert_eq!(dispatch(&auto, None).kind, "flat");
    assert_eq!(dispatch(&auto, Some(&vllm)).kind, "all-gather");
    assert_eq!(dispatch(&own, Some(&vllm)).kind, "hierarchical");
}

/// What was fitted to served points names those of role calibration; rows for judging are no source.
#[test]
fn constants_come_from_rows_for_calibration_alone() {
    for (name, _, text) in PRESETS {
        let origins = text.split("origin = \"").skip(1).filter_map(|t| t.split('"').next());
        let served: Vec<&str> = origins.filter(|o| o.contains("served points") || o.contains("InferenceX")).collect();
        assert!(!served.is_empty(), "{name}");
        for origin in served {
            assert!(origin.contains("role calibration") && !origin.contains("figure"), "{name}: {origin}");
        }
    }
}

#[test]
fn memory_is_kept_by_the_size_of_the_memory() {
    let left = |text: &str, gib: u64, devices, dp| {
        Some(engine(text).unwrap().memory_left(Bytes(gib << 30), devices, dp)?.value)
    };
    let sglang = "framework = \"sglang\"";
    // 9.5 GiB and half a GiB a device below 90 GiB, 12 GiB below 160, 32 GiB above; 4 GiB more with data-parallel attention.
    for (gib, devices, dp, kept) in [(80, 8, 1, 13.5), (140, 4, 1, 14.0), (180, 8, 1, 32.0), (180, 8, 8, 36.0)] {
        let found = left(sglang, gib, devices, dp).unwrap();
        assert!((found - (1.0 - kept / gib as f64)).abs() < 1e-12, "{gib} {devices} {dp}: {found}");
    }
    assert_eq!(left("framework = \"sglang\"\nmemory_share = 0.7", 80, 8, 1), Some(0.7));
    assert_eq!((left("framework = \"vllm\"", 80, 8, 1), left("graphs = true", 80, 8, 1)), (Some(0.9), None));
}
