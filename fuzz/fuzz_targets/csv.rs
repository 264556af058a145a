#![no_main]
use moesim_fuzz::{file, import};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    import("csv", &file("a.csv", bytes), Some(8));
});
