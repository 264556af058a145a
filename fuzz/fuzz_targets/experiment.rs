#![no_main]
use moesim::experiment;
use moesim_fuzz::{file, laid_out, sound};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("a.toml", bytes);
    if let Some(resolved) = sound(experiment::load(path.to_str().expect("a plain path"), &[])) {
        laid_out(&resolved, &path);
    }
});
