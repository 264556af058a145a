#![no_main]
use moesim_fuzz::{count, file};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let table = [b"layer_id,expert_id,count", bytes].concat();
    count("sglang", &file("a.csv", &table));
});
