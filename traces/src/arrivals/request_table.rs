//! Requests in a CSV table, streamed: a time and two token counts a row.

use super::stamps::StampedRow;
use super::{Request, TOKENS};
use crate::csv_lines::{self, ShortRows, broken};
use moesim_core::diag::nearest;
use moesim_core::{Diag, Picos, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reads the time of a row in picoseconds since any fixed moment, or says how to write it.
pub(super) type ReadTime = fn(&str) -> std::result::Result<i128, &'static str>;

/// What a kind of table looks like.
pub(super) struct Layout {
    /// Columns of time, prompt and output tokens.
    pub(super) names: [&'static str; 3],
    pub(super) clock: ReadTime,
    /// Only rows that have these words in these columns.
    pub(super) only: Vec<(&'static str, String)>,
    /// Rows without prompt or output tokens failed, and are left out; else they are wrong.
    pub(super) failures: bool,
}

/// The rows of a table.
pub(super) struct RequestTable {
    path: PathBuf,
    reader: csv::Reader<ShortRows>,
    record: csv::StringRecord,
    layout: Layout,
    /// Where the layout's columns are.
    columns: [usize; 3],
    only: Vec<usize>,
    failed: Arc<AtomicU64>,
    last: Option<i128>,
    any: bool,
}

impl RequestTable {
    /// Opens a table.
    pub(super) fn open(path: &Path, layout: Layout) -> Result<Self> {
        let mut reader = csv_lines::open(path, csv::ReaderBuilder::new().trim(csv::Trim::All))?;
        let header = reader.headers().map_err(|e| broken(path, &e))?.clone();
        let known: Vec<&str> = header.iter().collect();
        let find = |name: &str| {
            known.iter().position(|c| *c == name).ok_or_else(|| {
                let needed = layout.names.join(", ");
                let cure = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean it by `{near:.40}`? (needed: {needed})"),
                    None => format!("give a table with the columns {needed}"),
                };
                Diag::input(format!("lacks the column `{name}`")).file(path).place("line 1").cure(cure)
            })
        };
        let columns = [find(layout.names[0])?, find(layout.names[1])?, find(layout.names[2])?];
        let only = layout.only.iter().map(|(name, _)| find(name)).collect::<Result<_>>()?;
        Ok(Self {
            path: path.to_path_buf(),
            reader,
            record: csv::StringRecord::new(),
            layout,
            columns,
            only,
            failed: Arc::default(),
            last: None,
            any: false,
        })
    }
    /// Rows of failed requests, so far.
    pub(super) fn failed(&self) -> Arc<AtomicU64> {
        self.failed.clone()
    }

    fn read(&mut self) -> Result<Option<StampedRow>> {
        if !self.reader.read_record(&mut self.record).map_err(|e| broken(&self.path, &e))? {
            return if self.any { Ok(None) } else { Err(self.no_requests()) };
        }
        let row = self.row()?;
        self.any |= row.request.is_some();
        Ok(Some(row))
    }

    /// The record.
    fn row(&mut self) -> Result<StampedRow> {
        let line = self.record.position().map_or(0, csv::Position::line);
        let place = |column: usize| format!("line {line}, {}", self.layout.names[column]);
        let wrong = |column: usize, problem: String, cure: &str| {
            Err(Diag::input(problem).file(&self.path).place(place(column)).cure(cure))
        };
        let text = |column: usize| self.record.get(self.columns[column]).unwrap_or_default();
        let time = match (self.layout.clock)(text(0)) {
            Ok(time) => time,
            Err(rule) => return wrong(0, format!("\"{:.40}\" is not a time", text(0)), rule),
        };
        if self.last.is_some_and(|last| time < last) {
            return wrong(0, format!("\"{:.40}\" is before the row above", text(0)), "sort the rows by time");
        }
        let failures = self.layout.failures;
        let mut tokens = [0u32; 2];
        for (t, column) in tokens.iter_mut().zip([1, 2]) {
            match whole(text(column)).filter(|n| (u32::from(!failures)..=TOKENS).contains(n)) {
                Some(n) => *t = n,
                None => {
                    let problem = format!("\"{:.40}\" is not a number of tokens", text(column));
                    return wrong(column, problem, "give whole numbers from 1 to 16777216, or leave the row out");
                }
            }
        }
        self.last = Some(time);
        if self.only.iter().zip(&self.layout.only).any(|(c, (_, word))| self.record.get(*c) != Some(word)) {
            return Ok(StampedRow { at: time, line, request: None });
        }
        if tokens.contains(&0) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return Ok(StampedRow { at: time, line, request: None });
        }
        Ok(StampedRow { at: time, line, request: Some(Request::new(0, Picos::ZERO, tokens[0], tokens[1])) })
    }

    fn no_requests(&self) -> Diag {
        let only: Vec<String> = self.layout.only.iter().map(|(c, word)| format!("{c} \"{word:.40}\"")).collect();
        let (of, cure) = match only.is_empty() {
            true => (String::new(), "give a table with rows"),
            false => (format!(" of {}", only.join(", ")), "use words that are in these columns"),
        };
        Diag::input(format!("has no requests{of}")).file(&self.path).place("line 2").cure(cure)
    }
}

impl Iterator for RequestTable {
    type Item = Result<StampedRow>;
    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// A whole number, perhaps written as pandas writes columns with gaps: `10.0`.
fn whole(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    whole.parse().ok().filter(|_| fraction.bytes().all(|b| b == b'0'))
}

/// Picoseconds of a time in seconds, which is not negative: decimal ones are exact.
pub(super) fn seconds(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if (1..=11).contains(&whole.len()) && digits(whole) && digits(fraction) {
        let picos: i128 = format!("{fraction:0<12.12}").parse().ok()?;
        return Some(whole.parse::<i128>().ok()? * 1_000_000_000_000 + picos);
    }
    let seconds: f64 = text.parse().ok().filter(|s| (0.0..1e11).contains(s))?;
    // Apart, because whole seconds times 1e12 have more than 53 bits.
    Some(seconds.trunc() as i128 * 1_000_000_000_000 + (seconds.fract() * 1e12).round() as i128)
}
