#![no_main]
use moesim_fuzz::{file, sound};
use moesim_traces::{ArrivalSpec, Arrivals};
use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("a.csv", bytes);
    for azure in [false, true] {
        let (path, rate_scale, limit) = (path.clone(), 1.0, None);
        let spec = if azure {
            ArrivalSpec::Azure { path, rate_scale, limit }
        } else {
            ArrivalSpec::Csv { path, rate_scale, limit }
        };
        match sound(spec.open(1, Path::new(""))) {
            Some(Arrivals::Open(mut r) | Arrivals::Closed { requests: mut r, .. }) => {
                r.all(|r| sound(r).is_some());
            }
            None => {}
        }
    }
});
