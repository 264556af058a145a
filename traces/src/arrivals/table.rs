//! Requests in a CSV table, streamed: a time and two token counts a row.

use super::{Request, TOKENS, rate_scale_in_range, scaled};
use crate::csv_lines::{ShortLines, broken};
use moesim_core::diag::nearest;
use moesim_core::{Diag, Picos, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Reads the time of a row in picoseconds since any fixed moment, or says how to write it.
pub(super) type Clock = fn(&str) -> std::result::Result<i128, &'static str>;

/// The rows of a table.
pub(super) struct Table {
    path: PathBuf,
    reader: csv::Reader<ShortLines>,
    record: csv::StringRecord,
    columns: [usize; 3],
    names: [&'static str; 3],
    clock: Clock,
    rate_scale: f64,
    /// The first row arrives at 0.
    from_first: bool,
    first: Option<i128>,
    last: i128,
    next: u64,
    over: bool,
}

impl Table {
    /// Opens a table whose columns of time, prompt and output tokens have these names.
    pub(super) fn open(
        path: &Path,
        names: [&'static str; 3],
        clock: Clock,
        from_first: bool,
        rate_scale: f64,
    ) -> Result<Self> {
        rate_scale_in_range(rate_scale)?;
        let file = File::open(path).map_err(|e| Diag::cannot_read(path, &e))?;
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
                let cure = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean it by `{near:.40}`? (needed: {})", names.join(", ")),
                    None => format!("give a table with the columns {}", names.join(", ")),
                };
                Diag::input(format!("lacks the column `{name}`")).file(path).place("line 1").cure(cure)
            })
        };
        let columns = [find(names[0])?, find(names[1])?, find(names[2])?];
        Ok(Self {
            path: path.to_path_buf(),
            reader,
            record: csv::StringRecord::new(),
            columns,
            names,
            clock,
            rate_scale,
            from_first,
            first: None,
            last: 0,
            next: 0,
            over: false,
        })
    }
    fn read(&mut self) -> Result<Option<Request>> {
        if !self.reader.read_record(&mut self.record).map_err(|e| broken(&self.path, &e))? {
            if self.next == 0 {
                return Err(Diag::input("has no requests")
                    .file(&self.path)
                    .place("line 2")
                    .cure("give a table with rows"));
            }
            return Ok(None);
        }
        let line = self.record.position().map_or(0, csv::Position::line);
        let place = |column: usize| format!("line {line}, {}", self.names[column]);
        let wrong = |column: usize, problem: String, cure: &str| {
            Err(Diag::input(problem).file(&self.path).place(place(column)).cure(cure))
        };
        let text = |column: usize| self.record.get(self.columns[column]).unwrap_or_default();
        let time = match (self.clock)(text(0)) {
            Ok(time) => time,
            Err(rule) => return wrong(0, format!("\"{:.40}\" is not a time", text(0)), rule),
        };
        if self.first.is_some() && time < self.last {
            return wrong(0, format!("\"{:.40}\" is before the row above", text(0)), "sort the rows by time");
        }
        let origin = if self.from_first { *self.first.get_or_insert(time) } else { 0 };
        self.first.get_or_insert(time);
        self.last = time;
        let since = time - origin;
        let Ok(arrival) = u64::try_from(scaled(since, self.rate_scale)) else {
            return wrong(0, format!("\"{:.40}\" is outside of the clock", text(0)), "give times from 0 to 213 days");
        };
        let mut tokens = [0; 2];
        for (t, column) in tokens.iter_mut().zip([1, 2]) {
            match text(column).parse().ok().filter(|n| (1..=TOKENS).contains(n)) {
                Some(n) => *t = n,
                None => {
                    let problem = format!("\"{:.40}\" is not a number of tokens", text(column));
                    return wrong(column, problem, "give whole numbers from 1 to 16777216, or leave the row out");
                }
            }
        }
        let id = self.next;
        self.next += 1;
        Ok(Some(Request::new(id, Picos(arrival), tokens[0], tokens[1])))
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
