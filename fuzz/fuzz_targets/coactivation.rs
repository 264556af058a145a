#![no_main]
use moesim_fuzz::{count, file};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    count("coactivation", &file("a.json", bytes));
});
