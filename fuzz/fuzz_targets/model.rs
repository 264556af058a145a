#![no_main]
use moesim_fuzz::{file, sound};
use moesim_traces::Model;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("a.toml", bytes);
    sound(Model::load(path.to_str().expect("a plain path")));
});
