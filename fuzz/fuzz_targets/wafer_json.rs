#![no_main]
use moesim_fuzz::{file, import};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    import("wafer-json", &file("a.json", bytes), Some(8));
});
