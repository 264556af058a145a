#![no_main]
use moesim_fuzz::{file, import};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    import("json-lines", &file("a.jsonl", bytes), Some(8));
});
