//! Requests in a CSV table, streamed: a time and two token counts a row.

use super::{Request, TOKENS, rate_scale_in_range, scaled};
use crate::csv_lines::{ShortLines, broken};
use moesim_core::diag::nearest;
use moesim_core::{Diag, Picos, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reads the time of a row in picoseconds since any fixed moment, or says how to write it.
pub(super) type Clock = fn(&str) -> std::result::Result<i128, &'static str>;

/// What a kind of table looks like.
pub(super) struct Layout {
    /// Columns of time, prompt and output tokens.
    pub(super) names: [&'static str; 3],
    pub(super) clock: Clock,
    /// The first request arrives at 0.
    pub(super) from_first: bool,
    /// Only rows that have these words in these columns.
    pub(super) only: Vec<(&'static str, String)>,
    /// Rows without prompt or output tokens failed, and are left out; else they are wrong.
    pub(super) failures: bool,
}

/// The rows of a table.
pub(super) struct Table {
    path: PathBuf,
    reader: csv::Reader<ShortLines>,
    record: csv::StringRecord,
    layout: Layout,
    /// Where the layout's columns are.
    columns: [usize; 3],
    only: Vec<usize>,
    rate_scale: f64,
    failed: Arc<AtomicU64>,
    first: Option<i128>,
    last: Option<i128>,
    next: u64,
    over: bool,
}

impl Table {
    /// Opens a table.
    pub(super) fn open(path: &Path, layout: Layout, rate_scale: f64) -> Result<Self> {
        rate_scale_in_range(rate_scale)?;
        let file = moesim_core::input::open(path)?;
        if file.metadata().map_err(|e| Diag::cannot_read(path, &e))?.is_dir() {
            return Err(Diag::input("is a folder").file(path).cure("give the CSV file in it"));
        }
        // Without quotes, a record is a line, and short.
        let mut reader =
            csv::ReaderBuilder::new().quoting(false).trim(csv::Trim::All).from_reader(ShortLines::new(file));
        let header = reader.headers().map_err(|e| broken(path, &e))?.clone();
        let known: Vec<&str> = header.iter().collect();
        let find = |name: &str| {
            known.iter().position(|c| c.trim_start_matches('\u{feff}') == name).ok_or_else(|| {
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
            rate_scale,
            failed: Arc::default(),
            first: None,
            last: None,
            next: 0,
            over: false,
        })
    }
    /// Rows of failed requests, so far.
    pub(super) fn failed(&self) -> Arc<AtomicU64> {
        self.failed.clone()
    }

    fn read(&mut self) -> Result<Option<Request>> {
        loop {
            if !self.reader.read_record(&mut self.record).map_err(|e| broken(&self.path, &e))? {
                return if self.next == 0 { Err(self.no_requests()) } else { Ok(None) };
            }
            if let Some(request) = self.row()? {
                return Ok(Some(request));
            }
        }
    }

    /// The request of the record, unless it is left out.
    fn row(&mut self) -> Result<Option<Request>> {
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
            match text(column).parse().ok().filter(|n| (u32::from(!failures)..=TOKENS).contains(n)) {
                Some(n) => *t = n,
                None => {
                    let problem = format!("\"{:.40}\" is not a number of tokens", text(column));
                    return wrong(column, problem, "give whole numbers from 1 to 16777216, or leave the row out");
                }
            }
        }
        self.last = Some(time);
        if self.only.iter().zip(&self.layout.only).any(|(c, (_, word))| self.record.get(*c) != Some(word)) {
            return Ok(None);
        }
        if tokens.contains(&0) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        let origin = if self.layout.from_first { *self.first.get_or_insert(time) } else { 0 };
        let Ok(arrival) = u64::try_from(scaled(time - origin, self.rate_scale)) else {
            return wrong(0, format!("\"{:.40}\" is outside of the clock", text(0)), "give times from 0 to 213 days");
        };
        let id = self.next;
        self.next += 1;
        Ok(Some(Request::new(id, Picos(arrival), tokens[0], tokens[1])))
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

impl Iterator for Table {
    type Item = Result<Request>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let item = self.read().transpose();
        self.over = !matches!(item, Some(Ok(_)));
        item
    }
}
