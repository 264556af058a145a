#![no_main]
use moesim_fuzz::{count, file, folder, import};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    file("meta_info.json", br#"{"num_experts": 8, "num_experts_per_token": 2}"#);
    file("rank0.safetensors", bytes);
    file("rank0_raw.safetensors", bytes);
    import("tensorrt-llm", folder(), None);
    count("tensorrt-llm", folder());
});
