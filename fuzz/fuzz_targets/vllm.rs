#![no_main]
use moesim_fuzz::{file, import};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    import("vllm", &file("a.jsonl", bytes), Some(8));
});
