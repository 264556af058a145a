//! As many requests in flight as there are users.

use super::length::Lengths;
use super::{Arrivals, Requests, out_of_range};
use moesim_core::{Picos, Result};

pub(super) fn open(concurrency: u32, think: Picos, lengths: Lengths) -> Result<Arrivals> {
    if !(1..=1 << 24).contains(&concurrency) {
        return Err(out_of_range("concurrency", concurrency.to_string(), "from 1 to 16777216 users"));
    }
    Ok(Arrivals::Closed { concurrency, think, requests: Requests::new(lengths.map(Ok)) })
}
