//! Times of a log: from when they count, and what becomes of requests that share one.
//!
//! A log whose clock is coarser than its traffic has several requests a stamp. They are spread evenly from their stamp up to
//! the next distinct one of the log, the last ones over the median gap between stamps; the first of them, and all that have
//! a stamp of their own, stay. Nothing is drawn.

use super::{Request, Requests, rate_scale_in_range, scaled};
use moesim_core::{Diag, Picos, Result};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A row of a log.
pub(super) struct StampedRow {
    /// Picoseconds since any fixed moment; never less than that of the row above.
    pub(super) at: i128,
    /// Where it stands.
    pub(super) line: u64,
    /// What it asks for; nothing if it is left out, though its time counts.
    pub(super) request: Option<Request>,
}

/// How times of a log are meant.
pub(super) struct Clock {
    /// The first request arrives at 0; else the log's 0 is the run's, unless the log counts from a moment long past.
    pub(super) from_first: bool,
    /// Whether requests that share a stamp are spread.
    pub(super) spread: bool,
    /// Rate over the recorded rate.
    pub(super) rate_scale: f64,
}

/// Requests of one stamp are held in memory.
const REQUESTS: usize = 1 << 16;
const HASHES: usize = 16 << 20;
/// Gaps of different length that are counted, for their median.
const GAPS: usize = 1 << 16;

/// What became of the stamps so far.
#[derive(Default)]
struct Moved {
    requests: u64,
    /// Picoseconds.
    farthest: i128,
    /// Requests of a log that has one stamp alone.
    together: u64,
    /// What the first stamp is, where times count from it though the log has a zero of its own.
    epoch: Option<i128>,
}

/// The requests of a log, at their times.
///
/// # Errors
/// A rate that is out of range.
pub(super) fn requests(
    path: &Path,
    rows: impl Iterator<Item = Result<StampedRow>> + Send + 'static,
    clock: Clock,
) -> Result<Requests> {
    rate_scale_in_range(clock.rate_scale)?;
    let moved = Arc::<Mutex<Moved>>::default();
    let log = Log {
        path: path.to_path_buf(),
        rows,
        clock,
        origin: None,
        ahead: None,
        ready: VecDeque::new(),
        gaps: BTreeMap::new(),
        moved: moved.clone(),
        id: 0,
        over: false,
    };
    Ok(Requests::new(log).noting(move || held(&moved).notes()))
}

fn held(moved: &Mutex<Moved>) -> MutexGuard<'_, Moved> {
    moved.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Moved {
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let seconds = |ps: i128| ps as f64 / 1e12;
        if let Some(epoch) = self.epoch {
            notes.push(format!(
                "times of the requests count from the first one, which is {} s in the file",
                seconds(epoch)
            ));
        }
        if self.requests > 0 {
            notes.push(format!(
                "{} requests share their time stamp with one before them and were moved on, evenly up to the next stamp, by {} s at most (spread = false leaves them together)",
                self.requests,
                seconds(self.farthest)
            ));
        }
        if self.together > 0 {
            notes.push(format!("all {} requests have the same time stamp and arrive together", self.together));
        }
        notes
    }
}

/// A request of the log, at a time before scaling.
struct Ready {
    stamp: i128,
    at: i128,
    line: u64,
    request: Request,
}

struct Log<I> {
    path: PathBuf,
    rows: I,
    clock: Clock,
    /// The time that is 0 in the run, once the first request is known.
    origin: Option<i128>,
    /// The first row of the next stamp.
    ahead: Option<StampedRow>,
    /// The rest of this one.
    ready: VecDeque<Ready>,
    /// Gaps between stamps so far, and how many of each.
    gaps: BTreeMap<i128, u64>,
    moved: Arc<Mutex<Moved>>,
    id: u64,
    over: bool,
}

impl<I: Iterator<Item = Result<StampedRow>>> Log<I> {
    fn row(&mut self) -> Result<Option<StampedRow>> {
        let Some(row) = self.rows.next().transpose()? else { return Ok(None) };
        if self.origin.is_none() && row.request.is_some() {
            let epoch = row.at > i128::from(Picos::MAX.0);
            self.origin = Some(if epoch || self.clock.from_first { row.at } else { 0 });
            held(&self.moved).epoch = (epoch && !self.clock.from_first).then_some(row.at);
        }
        Ok(Some(row))
    }

    /// Reads the rows of a stamp, and the one behind them; false at the end of the log.
    fn stamp(&mut self) -> Result<bool> {
        let next = match self.ahead.take() {
            Some(row) => Some(row),
            None => self.row()?,
        };
        let Some(first) = next else { return Ok(false) };
        let (at, mut hashes) = (first.at, 0);
        let mut same = Some(first);
        while let Some(row) = same.take() {
            if let Some(request) = row.request {
                hashes += request.blocks.as_ref().map_or(0, |b| b.hashes.len());
                self.ready.push_back(Ready { stamp: at, at, line: row.line, request });
            }
            // Without a need to know how many share it, a row is passed on as it comes.
            if !self.clock.spread {
                return Ok(true);
            }
            if self.ready.len() > REQUESTS || hashes > HASHES {
                return Err(Diag::input("more than 65536 requests, or 16 Mi hash_ids, have one time stamp")
                    .file(&self.path)
                    .place(format!("line {}", row.line))
                    .cure("give finer times, or set spread = false"));
            }
            match self.row()? {
                Some(row) if row.at == at => same = Some(row),
                other => self.ahead = other,
            }
        }
        let gap = match &self.ahead {
            Some(next) => {
                let gap = next.at - at;
                if self.gaps.len() < GAPS || self.gaps.contains_key(&gap) {
                    *self.gaps.entry(gap).or_default() += 1;
                }
                Some(gap)
            }
            None => median(&self.gaps),
        };
        let n = self.ready.len() as i128;
        match gap {
            Some(gap) => self.ready.iter_mut().enumerate().for_each(|(i, r)| r.at += gap * i as i128 / n),
            None if n > 1 => held(&self.moved).together = n as u64,
            None => {}
        }
        Ok(true)
    }

    fn pop(&mut self) -> Result<Option<Request>> {
        while self.ready.is_empty() {
            if !self.stamp()? {
                return Ok(None);
            }
        }
        let Some(Ready { stamp, at, line, request }) = self.ready.pop_front() else { return Ok(None) };
        if at > stamp {
            let mut moved = held(&self.moved);
            moved.requests += 1;
            moved.farthest = moved.farthest.max(at - stamp);
        }
        let since = scaled(at - self.origin.unwrap_or(0), self.clock.rate_scale);
        let arrival = u64::try_from(since).map_err(|_| {
            Diag::input("is outside of the clock")
                .file(&self.path)
                .place(format!("line {line}, time"))
                .cure("give times that span less than 213 days, or a higher rate_scale")
        })?;
        let id = self.id;
        self.id += 1;
        Ok(Some(Request { id, arrival: Picos(arrival), ..request }))
    }
}

/// The median; of an even number, the mean of the middle two.
fn median(counts: &BTreeMap<i128, u64>) -> Option<i128> {
    let n: u64 = counts.values().sum();
    let at = |rank: u64| {
        let mut left = rank;
        counts.iter().find_map(|(gap, count)| match left.checked_sub(*count) {
            None => Some(*gap),
            Some(rest) => {
                left = rest;
                None
            }
        })
    };
    Some((at(n.checked_sub(1)? / 2)? + at(n / 2)?) / 2)
}

impl<I: Iterator<Item = Result<StampedRow>>> Iterator for Log<I> {
    type Item = Result<Request>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let item = self.pop().transpose();
        self.over = !matches!(item, Some(Ok(_)));
        item
    }
}
