#![no_main]
use moesim_fuzz::{file, sound};
use moesim_traces::model::import_config;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sound(import_config(&file("config.json", bytes), None));
});
