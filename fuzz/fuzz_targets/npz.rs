#![no_main]
use moesim_fuzz::{file, import};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    import("npz", &file("a.npz", bytes), Some(8));
});
