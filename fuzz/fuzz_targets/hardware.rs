#![no_main]
use moesim_fuzz::{file, sound};
use moesim_hwmodels::Hardware;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("a.toml", bytes);
    let Some(hardware) = sound(Hardware::load(path.to_str().expect("a plain path"))) else { return };
    assert!(hardware.devices() > 0);
});
