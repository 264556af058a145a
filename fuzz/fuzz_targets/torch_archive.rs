#![no_main]
use moesim_fuzz::{count, file, import};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("a.pt", bytes);
    import("sglang", &path, None);
    count("sglang", &path);
    count("eplb", &path);
});
