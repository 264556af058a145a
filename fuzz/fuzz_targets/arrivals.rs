#![no_main]
use moesim_fuzz::{arrive, file};
use moesim_traces::ArrivalSpec;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("a.csv", bytes);
    arrive(&ArrivalSpec::Azure { path: path.clone(), rate_scale: 1.0, limit: None }, &path);
    arrive(&ArrivalSpec::Csv { path: path.clone(), rate_scale: 1.0, limit: None }, &path);
});
