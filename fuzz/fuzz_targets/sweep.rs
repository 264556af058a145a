#![no_main]
use moesim::sweep::Sweep;
use moesim_fuzz::{file, laid_out, sound};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("a.toml", bytes);
    let Some(sweep) = sound(Sweep::load(path.to_str().expect("a plain path"))) else { return };
    assert_eq!(sweep.keys().len(), sweep.points[0].labels.len());
    for point in sweep.points.iter().take(4) {
        if let Some(resolved) = sound(sweep.resolve(point)) {
            laid_out(&resolved, &path);
        }
    }
});
