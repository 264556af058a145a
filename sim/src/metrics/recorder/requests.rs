//! What became of requests and of their tokens.

use crate::experiment::{Slo, Window};
use crate::metrics::histogram::Histogram;
use crate::metrics::rejection::{Reason, Rejection};
use crate::serving::Live;
use moesim_core::Picos;
use moesim_traces::arrivals::Request;

/// Requests by fate, their tokens and their latencies.
#[derive(Clone, Debug, Default)]
pub struct RequestTotals {
    window: Window,
    slo: Option<Slo>,
    /// Requests that came.
    pub admitted: u64,
    /// Requests that are done.
    pub finished: u64,
    /// Requests that could never be served.
    pub rejected: u64,
    /// Why, by reason.
    pub rejections: Vec<Rejection>,
    /// Positions computed again after preemptions.
    pub recomputed: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Prompt and output tokens of finished requests.
    pub tokens: [u64; 2],
    /// The same inside the window: prompt tokens by first token, output tokens as they appear.
    pub window_tokens: [u64; 2],
    /// Requests finished in the window.
    pub window_finished: u64,
    /// Of the requests that arrived in the window, those that met the SLO.
    pub window_good: u64,
    /// Time to first token.
    pub ttft: Histogram,
    /// Time per output token after the first.
    pub tpot: Histogram,
    /// Time between output tokens.
    pub itl: Histogram,
    /// Arrival to last token.
    pub e2e: Histogram,
    /// Requests in flight per sequence.
    in_flight: Vec<u32>,
    /// Most requests in flight on one sequence, ever.
    pub multiplicity: u32,
}

/// Latencies of a request that is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latencies {
    pub(super) first: Picos,
    pub(super) ttft: Picos,
    /// None with one output token.
    pub(super) tpot: Option<Picos>,
    pub(super) e2e: Picos,
}

impl RequestTotals {
    pub(super) fn new(window: Window, slo: Option<Slo>) -> Self {
        Self { window, slo, ..Self::default() }
    }

    fn in_window(&self, t: Picos) -> bool {
        t >= self.window.start && self.window.end.is_none_or(|end| t < end)
    }

    /// A sequence got one request more (1) or less (-1) in flight.
    pub(super) fn bound(&mut self, sequence: u32, change: i32) {
        let at = sequence as usize;
        if at >= self.in_flight.len() {
            self.in_flight.resize(at + 1, 0);
        }
        self.in_flight[at] = self.in_flight[at].wrapping_add_signed(change);
        self.multiplicity = self.multiplicity.max(self.in_flight[at]);
    }

    pub(super) fn reject(&mut self, reason: Reason, request: &Request, needed: u64, limit: u64) {
        self.rejected += 1;
        Rejection::count(&mut self.rejections, reason, request, needed, limit);
    }

    /// An output token of `live` appears at `now`.
    pub(super) fn token(&mut self, live: &Live, now: Picos) {
        if self.in_window(now) {
            self.window_tokens[1] += 1;
            if live.first_token.is_none() {
                self.window_tokens[0] += u64::from(live.prompt);
            }
        }
        if live.first_token.is_some() && self.in_window(live.arrival) {
            self.itl.add(now.since(live.last_token).0);
        }
    }

    /// `live` is done.
    pub(super) fn request(&mut self, live: &Live, now: Picos) -> Latencies {
        self.finished += 1;
        self.tokens[0] += u64::from(live.prompt);
        self.tokens[1] += u64::from(live.output);
        self.preemptions += u64::from(live.preemptions);
        let first = live.first_token.unwrap_or(now);
        let ttft = first.since(live.arrival);
        let e2e = now.since(live.arrival);
        let tpot = (live.output > 1).then(|| Picos(now.since(first).0 / u64::from(live.output - 1)));
        self.window_finished += u64::from(self.in_window(now));
        if self.in_window(live.arrival) {
            self.ttft.add(ttft.0);
            self.e2e.add(e2e.0);
            if let Some(t) = tpot {
                self.tpot.add(t.0);
            }
            let met = |limit: Option<Picos>, t: Option<Picos>| limit.zip(t).is_none_or(|(l, t)| t <= l);
            if self.slo.is_some_and(|s| met(s.ttft, Some(ttft)) && met(s.tpot, tpot)) {
                self.window_good += 1;
            }
        }
        Latencies { first, ttft, tpot, e2e }
    }
}
