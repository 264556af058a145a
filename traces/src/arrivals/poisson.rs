//! Independent arrivals: exponential gaps.

use super::length::Lengths;
use super::{Request, out_of_range};
use moesim_core::rng::stream;
use moesim_core::{Diag, Picos, Result};
use rand::Rng;

pub(super) fn open(seed: u64, rate: f64, mut lengths: Lengths) -> Result<impl Iterator<Item = Result<Request>> + Send> {
    if !(1e-9..=1e12).contains(&rate) {
        return Err(out_of_range("rate_per_s", rate.to_string(), "from 1e-9 to 1e12 requests a second"));
    }
    let mut gaps = stream(seed, "arrivals", 0);
    let mut at = 0.0;
    let mut over = false;
    Ok(std::iter::from_fn(move || {
        if over {
            return None;
        }
        let request = lengths.next()?;
        // Uniform in (0, 1], 53 bits; its negative logarithm is exponential.
        let u = ((gaps.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        at -= libm::log(u) / rate;
        over = at >= Picos::MAX.seconds();
        Some(if over {
            Err(Diag::input(format!("request {} arrives after 213 days, the end of the clock", request.id))
                .place("rate_per_s")
                .cure("give a higher rate or fewer requests"))
        } else {
            Ok(Request { arrival: Picos::from_seconds(at), ..request })
        })
    }))
}
