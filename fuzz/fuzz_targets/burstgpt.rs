#![no_main]
use moesim_fuzz::{arrive, file};
use moesim_traces::ArrivalSpec;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("a.csv", bytes);
    for model in [None, Some("GPT-4".to_string())] {
        let spec = ArrivalSpec::BurstGpt { path: path.clone(), rate_scale: 3.0, limit: None, spread: true, model, log_type: None };
        arrive(&spec, &path);
    }
});
