//! Requests on their way in, one looked ahead.

use crate::engine::EventQueue;
use moesim_core::{Picos, Result};
use moesim_traces::arrivals::{Arrivals, Request};

/// Open or closed arrivals behind one face.
pub(super) struct Line {
    arrivals: Arrivals,
    /// The next open arrival.
    next: Option<Request>,
    /// Arrivals of a closed loop whose time is known.
    due: EventQueue<Request>,
}

impl Line {
    pub(super) fn new(arrivals: Arrivals) -> Result<Self> {
        let mut line = Self { arrivals, next: None, due: EventQueue::default() };
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

    /// The next request that has arrived by `now`.
    pub(super) fn take(&mut self, now: Picos) -> Result<Option<Request>> {
        match &mut self.arrivals {
            Arrivals::Open(requests) => {
                if self.next.is_some_and(|r| r.arrival <= now) {
                    let taken = self.next.take();
                    self.next = requests.next().transpose()?;
                    return Ok(taken);
                }
                Ok(None)
            }
            Arrivals::Closed { .. } => {
                if self.due.peek_time().is_some_and(|t| t <= now.0) {
                    return Ok(self.due.pop().map(|(t, r)| Request { arrival: Picos(t), ..r }));
                }
                Ok(None)
            }
        }
    }

    /// When the next request comes, if one is on its way.
    pub(super) fn next_arrival(&self) -> Result<Option<Picos>> {
        Ok(match &self.arrivals {
            Arrivals::Open(_) => self.next.map(|r| r.arrival),
            Arrivals::Closed { .. } => self.due.peek_time().map(Picos),
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
            self.due.push(at.0, request);
        }
        Ok(())
    }
}
