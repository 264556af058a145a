//! Requests on their way in, one looked ahead.

use moesim_core::{Picos, Result};
use moesim_traces::arrivals::{Arrivals, Request};
use std::collections::BTreeMap;

/// Open or closed arrivals behind one face.
pub(super) struct Line {
    arrivals: Arrivals,
    /// The next open arrival.
    next: Option<Request>,
    /// Arrivals of a closed loop whose time is known, by time and number.
    due: BTreeMap<(Picos, u64), Request>,
}

impl Line {
    pub(super) fn new(arrivals: Arrivals) -> Result<Self> {
        let mut line = Self { arrivals, next: None, due: BTreeMap::new() };
        match &mut line.arrivals {
            Arrivals::Open(requests) => line.next = requests.next().transpose()?,
            Arrivals::Closed { concurrency, .. } => {
                for _ in 0..*concurrency {
                    line.send(Picos::ZERO)?;
                }
            }
        }
        Ok(line)
    }

    /// What the reader of the summary should know of the requests that came.
    pub(super) fn notes(&self) -> Vec<String> {
        match &self.arrivals {
            Arrivals::Open(requests) | Arrivals::Closed { requests, .. } => requests.notes(),
        }
    }

    /// The next request that has arrived by `now`.
    pub(super) fn take(&mut self, now: Picos) -> Result<Option<Request>> {
        match &mut self.arrivals {
            Arrivals::Open(requests) => {
                if self.next.as_ref().is_some_and(|r| r.arrival <= now) {
                    let taken = self.next.take();
                    self.next = requests.next().transpose()?;
                    return Ok(taken);
                }
                Ok(None)
            }
            Arrivals::Closed { .. } => {
                let first = self.due.first_entry().filter(|e| e.key().0 <= now);
                Ok(first.map(|e| e.remove_entry()).map(|((arrival, _), r)| Request { arrival, ..r }))
            }
        }
    }

    /// When the next request comes, if one is on its way.
    pub(super) fn next_arrival(&self) -> Result<Option<Picos>> {
        Ok(match &self.arrivals {
            Arrivals::Open(_) => self.next.as_ref().map(|r| r.arrival),
            Arrivals::Closed { .. } => self.due.first_key_value().map(|(k, _)| k.0),
        })
    }

    /// A request left at `now`: in a closed loop its user sends the next one after thinking.
    pub(super) fn release(&mut self, now: Picos) -> Result<()> {
        let think = if let Arrivals::Closed { think, .. } = &self.arrivals { *think } else { Picos::ZERO };
        self.send(now + think)
    }

    /// A user of a closed loop sends the next request at `at`.
    fn send(&mut self, at: Picos) -> Result<()> {
        if let Arrivals::Closed { requests, .. } = &mut self.arrivals
            && let Some(request) = requests.next().transpose()?
        {
            self.due.insert((at, request.id), request);
        }
        Ok(())
    }
}
