#![no_main]
use moesim_core::Picos;
use moesim_fuzz::{arrive, file};
use moesim_traces::ArrivalSpec;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A client's two files, with a byte 0 between them.
    let mut parts = bytes.splitn(2, |b| *b == 0);
    let trace = file("clients/chunk-1-trace.csv", parts.next().unwrap_or_default());
    file("clients/chunk-1-dataset.json", parts.next().unwrap_or_default());
    let path = trace.with_file_name("");
    arrive(
        &ArrivalSpec::ServeGen { path: path.clone(), rate_scale: 1.0, limit: None, from: Picos::ZERO, to: None },
        &path,
    );
});
