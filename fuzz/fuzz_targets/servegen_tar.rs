#![no_main]
use moesim_core::Picos;
use moesim_fuzz::{arrive, file, tar};
use moesim_traces::ArrivalSpec;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("clients.tar", &tar(bytes));
    arrive(
        &ArrivalSpec::ServeGen { path: path.clone(), rate_scale: 1.0, limit: None, from: Picos::ZERO, to: None },
        &path,
    );
});
