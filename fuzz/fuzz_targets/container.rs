#![no_main]
use moesim_fuzz::{describe, file, sound};
use moesim_traces::Trace;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("a.arrow", bytes);
    let Some(trace) = sound(Trace::open(&path)) else { return };
    // What `run` and `trace stats` do before they use a row.
    if (0..trace.sequences()).all(|i| sound(trace.check_sequence(i)).is_some()) {
        sound(trace.verify());
        describe(&trace);
    }
});
