//! When paused operations ran.

use super::graph::{NONE, UNKNOWN};

/// The runs of the operations that were ever paused, struct of arrays; empty as long as there are none.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    /// Per operation, as far as needed: its latest run, or [`NONE`].
    last: Vec<u32>,
    start: Vec<u64>,
    end: Vec<u64>,
    /// When it would have started to be as far as it is, had it not been paused.
    origin: Vec<u64>,
    /// Who released what it waited for.
    waited_for: Vec<u32>,
    /// The operation's run before.
    before: Vec<u32>,
}

/// One run: an operation from its start or resumption to its pause or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) origin: u64,
    pub(super) waited_for: u32,
    pub(super) first: bool,
}

impl Runs {
    pub(super) fn clear(&mut self) {
        self.last.clear();
        self.start.clear();
        self.end.clear();
        self.origin.clear();
        self.waited_for.clear();
        self.before.clear();
    }

    /// Whether nothing was ever paused.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    fn get(&self, at: u32) -> Option<Run> {
        let i = at as usize;
        (at != NONE).then(|| Run {
            start: self.start[i],
            end: self.end[i],
            origin: self.origin[i],
            waited_for: self.waited_for[i],
            first: self.before[i] == NONE,
        })
    }

    /// The latest run of operation `i`, nothing if it was never paused.
    pub(super) fn latest(&self, i: usize) -> Option<Run> {
        self.last.get(i).and_then(|&at| self.get(at))
    }

    /// The runs of operation `i`, latest first; none if it was never paused.
    pub(super) fn of(&self, i: usize) -> impl Iterator<Item = Run> {
        let mut at = self.last.get(i).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let run = self.get(at)?;
            at = self.before[at as usize];
            Some(run)
        })
    }

    /// Operation `i` begins to run again, or its first run (`start` to an end not known yet) gets a record.
    pub(super) fn push(&mut self, i: usize, start: u64, origin: u64, waited_for: u32) {
        if self.last.len() <= i {
            self.last.resize(i + 1, NONE);
        }
        self.before.push(self.last[i]);
        self.last[i] = self.start.len() as u32;
        self.start.push(start);
        self.end.push(UNKNOWN);
        self.origin.push(origin);
        self.waited_for.push(waited_for);
    }

    /// The latest run of operation `i` ends at `now`, if it has one that goes on.
    #[cold]
    pub(super) fn end(&mut self, i: usize, now: u64) {
        if let Some(&at) = self.last.get(i)
            && at != NONE
        {
            let end = &mut self.end[at as usize];
            *end = (*end).min(now);
        }
    }
}
