//! Arrivals with independent gaps: Poisson, Gamma and Weibull processes.

use super::gaps::Gaps;
use super::length::Lengths;
use super::{Request, out_of_range};
use moesim_core::rng::stream;
use moesim_core::{Diag, Picos, Result};

/// Moments of arrival, in order, of a process that was going on before 0: as many as the rate says, from the start.
pub(super) struct Times {
    gaps: Gaps,
    rate: f64,
    stream: moesim_core::rng::Stream,
    at: Option<f64>,
}

impl Times {
    pub(super) fn new(seed: u64, purpose: &str, gaps: Gaps, rate: f64, key: &str) -> Result<Self> {
        if !(1e-9..=1e12).contains(&rate) {
            return Err(out_of_range(key, rate.to_string(), "from 1e-9 to 1e12 a second"));
        }
        Ok(Self { gaps, rate, stream: stream(seed, purpose, 0), at: None })
    }
    /// None once the clock is over.
    pub(super) fn next(&mut self) -> Option<Picos> {
        let at = match self.at {
            None => self.gaps.first(&mut self.stream) / self.rate,
            Some(last) => last + self.gaps.draw(&mut self.stream) / self.rate,
        };
        self.at = Some(at);
        (at < Picos::MAX.seconds()).then(|| Picos::from_seconds(at))
    }
}

pub(super) fn open(
    seed: u64,
    gaps: Gaps,
    rate: f64,
    mut lengths: Lengths,
) -> Result<impl Iterator<Item = Result<Request>> + Send> {
    let mut times = Times::new(seed, "arrivals", gaps, rate, "rate_per_s")?;
    let mut over = false;
    Ok(std::iter::from_fn(move || {
        if over {
            return None;
        }
        let request = lengths.next()?;
        let arrival = times.next();
        over = arrival.is_none();
        Some(match arrival {
            Some(arrival) => Ok(Request { arrival, ..request }),
            None => Err(Diag::input(format!("request {} arrives after 213 days, the end of the clock", request.id))
                .place("rate_per_s")
                .cure("give a higher rate or fewer requests")),
        })
    }))
}
