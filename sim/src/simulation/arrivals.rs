//! Requests on their way in, one looked ahead.

use crate::metrics::summary::Sessions;
use moesim_core::{Picos, Result};
use moesim_traces::arrivals::{Arrivals, Request, Session, Turn};
use std::collections::BTreeMap;

/// Open arrivals, closed loops and sessions behind one face.
pub(super) struct Line {
    arrivals: Arrivals,
    /// The next open arrival.
    next: Option<Request>,
    /// Arrivals that wait for their time, by time and number: of a closed loop or of sessions.
    due: BTreeMap<(Picos, u64), Request>,
    /// Sessions that are going on, and the next one.
    sessions: BTreeMap<u64, Session>,
    counts: SessionCounts,
    /// Users of a closed loop send no more.
    closed: bool,
    /// From a request's arrival until the scheduler can see that request.
    front_end: Picos,
}

/// Sessions so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SessionCounts {
    /// Their first turn came.
    begun: u64,
    /// They ended early, because a turn was rejected.
    cut: u64,
    /// Turns that came.
    requests: u64,
    /// Most turns of a session.
    most: u32,
}

impl From<SessionCounts> for Sessions {
    fn from(c: SessionCounts) -> Self {
        Self {
            begun: c.begun,
            cut: c.cut,
            requests_per_session: c.requests as f64 / c.begun.max(1) as f64,
            most_requests: c.most,
        }
    }
}

impl Line {
    pub(super) fn new(arrivals: Arrivals, front_end: Picos) -> Result<Self> {
        let mut line = Self {
            arrivals,
            next: None,
            due: BTreeMap::new(),
            sessions: BTreeMap::new(),
            counts: SessionCounts::default(),
            closed: false,
            front_end,
        };
        match &mut line.arrivals {
            Arrivals::Open(requests) => line.next = requests.next().transpose()?,
            Arrivals::Closed { concurrency, .. } => {
                for _ in 0..*concurrency {
                    line.send(Picos::ZERO)?;
                }
            }
            Arrivals::Sessions(_) => line.look_ahead()?,
        }
        Ok(line)
    }

    /// What the reader of the summary should know of the requests that came.
    pub(super) fn notes(&self) -> Vec<String> {
        match &self.arrivals {
            Arrivals::Open(requests) | Arrivals::Closed { requests, .. } => requests.notes(),
            Arrivals::Sessions(sessions) => sessions.notes(),
        }
    }

    /// What came of sessions, if requests belong to any.
    pub(super) fn sessions(&self) -> Option<SessionCounts> {
        matches!(self.arrivals, Arrivals::Sessions(_)).then_some(self.counts)
    }

    /// The next request that has come through the front end by `now`.
    pub(super) fn take(&mut self, now: Picos) -> Result<Option<Request>> {
        let Some(now) = now.0.checked_sub(self.front_end.0).map(Picos) else { return Ok(None) };
        if let Arrivals::Open(requests) = &mut self.arrivals {
            if self.next.as_ref().is_some_and(|r| r.arrival <= now) {
                let taken = self.next.take();
                self.next = requests.next().transpose()?;
                return Ok(taken);
            }
            return Ok(None);
        }
        let first = self.due.first_entry().filter(|e| e.key().0 <= now);
        let taken = first.map(|e| e.remove_entry()).map(|((arrival, _), r)| Request { arrival, ..r });
        if let Some(turn) = taken.as_ref().and_then(|r| r.turn) {
            self.counts.requests += 1;
            self.counts.most = self.counts.most.max(turn.number + 1);
            if turn.number == 0 {
                self.counts.begun += 1;
                self.look_ahead()?;
            }
        }
        Ok(taken)
    }

    /// When the next request is through the front end, if one is on its way.
    pub(super) fn next_arrival(&self) -> Option<Picos> {
        let arrival = match &self.arrivals {
            Arrivals::Open(_) => self.next.as_ref().map(|r| r.arrival),
            Arrivals::Closed { .. } | Arrivals::Sessions(_) => self.due.first_key_value().map(|(k, _)| k.0),
        };
        arrival.map(|at| at + self.front_end)
    }

    /// A request left at `now`: in a closed loop its user sends the next one after thinking, and so in a session, unless it
    /// was rejected: later turns would be longer still.
    pub(super) fn release(&mut self, now: Picos, turn: Option<Turn>, rejected: bool) -> Result<()> {
        match &self.arrivals {
            Arrivals::Open(_) => Ok(()),
            Arrivals::Closed { think, .. } => self.send(now + *think),
            Arrivals::Sessions(_) => {
                let Some(turn) = turn else { return Ok(()) };
                let Some(session) = self.sessions.get_mut(&turn.session) else { return Ok(()) };
                let next = session.after(now)?;
                if let (Some(request), false) = (&next, rejected) {
                    self.due.insert((request.arrival, request.id), request.clone());
                } else {
                    self.counts.cut += u64::from(next.is_some());
                    self.sessions.remove(&turn.session);
                }
                Ok(())
            }
        }
    }

    /// Users of a closed loop send no more; what they have sent still comes.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// A user of a closed loop sends the next request at `at`.
    fn send(&mut self, at: Picos) -> Result<()> {
        if let (Arrivals::Closed { requests, .. }, false) = (&mut self.arrivals, self.closed)
            && let Some(request) = requests.next().transpose()?
        {
            self.due.insert((at, request.id), request);
        }
        Ok(())
    }

    /// The session that comes next is known before its time.
    fn look_ahead(&mut self) -> Result<()> {
        if let Arrivals::Sessions(sessions) = &mut self.arrivals
            && let Some((session, first)) = sessions.next().transpose()?
        {
            self.sessions.extend(first.turn.map(|t| (t.session, session)));
            self.due.insert((first.arrival, first.id), first);
        }
        Ok(())
    }
}
