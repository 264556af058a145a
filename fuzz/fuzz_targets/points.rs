#![no_main]
use moesim::experiment::Profiles;
use moesim::validate::points::express::{PointRouting, express};
use moesim::validate::points::read;
use moesim_fuzz::{file, laid_out, sound};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("points.csv", bytes);
    let Some(points) = sound(read(&path)) else { return };
    for point in points.iter().take(4) {
        match express(point, PointRouting::Uniform, &Profiles::default()) {
            Ok(expressed) => laid_out(&expressed.resolved, &path),
            Err(e) => assert_eq!(e.exit_code(), 2, "{e}"),
        }
    }
});
