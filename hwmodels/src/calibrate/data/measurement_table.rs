//! A file of rows with named columns: CSV, or what becomes CSV.

use flate2::read::GzDecoder;
use moesim_core::output::content_hash;
use moesim_core::{Diag, Result, input};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes of a file, unpacked, at most: measurements are written by benchmarks, not by machines in a loop.
const MAX_BYTES: u64 = 1 << 30;

/// Rows as text, by column.
pub struct MeasurementTable {
    path: PathBuf,
    header: Vec<String>,
    records: Vec<(u64, csv::StringRecord)>,
    /// Hash of the file's bytes, in hex.
    pub hash: String,
}

impl MeasurementTable {
    /// Reads a CSV file, perhaps packed by gzip; `map` renames columns, (theirs, ours).
    ///
    /// # Errors
    /// What cannot be read, is not CSV, or has a column twice.
    pub fn read(path: &Path, map: &[(String, String)]) -> Result<Self> {
        Self::read_or(path, map, |path| {
            let cure = "save it as CSV, for example with python3 -c \"import pandas; pandas.read_parquet('t.parquet').to_csv('t.csv', index=False)\"";
            Err(Diag::input("is a Parquet file, not text").file(path).cure(cure))
        })
    }

    /// The same, or a Parquet file that `parquet` makes CSV text of.
    ///
    /// # Errors
    /// As [`MeasurementTable::read`], and what `parquet` says.
    pub fn read_or(path: &Path, map: &[(String, String)], parquet: impl Fn(&Path) -> Result<Vec<u8>>) -> Result<Self> {
        let wrong = |problem: String| Diag::input(problem).file(path);
        let file = input::open(path)?;
        let mut packed = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut packed).map_err(|e| Diag::cannot_read(path, &e))?;
        let hash = content_hash(&packed);
        let mut text = Vec::new();
        if packed.starts_with(&[0x1f, 0x8b]) {
            let unpacked = GzDecoder::new(&packed[..]).take(MAX_BYTES + 1).read_to_end(&mut text);
            unpacked
                .map_err(|e| wrong(format!("cannot be unpacked: {e}")).cure("give a whole gzip file, or plain CSV"))?;
        } else {
            text = packed;
        }
        if text.starts_with(b"PAR1") {
            text = parquet(path)?;
        }
        // What some editors write before the first character.
        if text.starts_with(b"\xef\xbb\xbf") {
            text.drain(..3);
        }
        if text.len() as u64 > MAX_BYTES {
            return Err(wrong("is larger than 1 GiB".into()).cure("give fewer measurements"));
        }
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(BufReader::new(&text[..]));
        let not_csv = |e: csv::Error| {
            let line = e.position().map_or(1, csv::Position::line);
            wrong("is not CSV, or its rows differ in length".into())
                .place(format!("line {line}"))
                .cure("write one header line, then rows of as many fields")
        };
        let mut header: Vec<String> = reader.headers().map_err(not_csv)?.iter().map(str::to_string).collect();
        for (theirs, ours) in map {
            let at = header.iter().position(|h| h == theirs).ok_or_else(|| {
                wrong(format!("has no column {theirs}")).place("line 1").cure("name a column of the file before the =")
            })?;
            header[at].clone_from(ours);
        }
        if let Some(twice) = header.iter().enumerate().find(|(i, h)| header[..*i].contains(h)) {
            return Err(wrong(format!("has the column {} twice", twice.1)).place("line 1").cure("keep one of them"));
        }
        let mut records = Vec::new();
        for record in reader.records() {
            let record = record.map_err(not_csv)?;
            records.push((record.position().map_or(0, csv::Position::line), record));
        }
        if records.is_empty() {
            return Err(wrong("has no rows".into()).cure("give measurements"));
        }
        Ok(Self { path: path.to_path_buf(), header, records, hash })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.records.len()
    }

    /// Place of a column, if the file has it.
    pub fn find(&self, column: &str) -> Option<usize> {
        self.header.iter().position(|h| h == column)
    }

    /// Place of a column that a schema needs.
    ///
    /// # Errors
    /// The file has no such column.
    pub fn column(&self, column: &str) -> Result<usize> {
        self.find(column).ok_or_else(|| {
            Diag::input(format!("has no column {column}"))
                .file(&self.path)
                .place("line 1")
                .cure(format!("add it, or map one of {} to it", self.header.join(", ")))
        })
    }

    /// A field as text.
    pub fn text(&self, row: usize, column: usize) -> &str {
        self.records[row].1.get(column).unwrap_or_default()
    }

    /// A field as a number within bounds.
    ///
    /// # Errors
    /// Anything else.
    pub fn number(&self, row: usize, column: usize, [low, high]: [f64; 2]) -> Result<f64> {
        let text = self.text(row, column);
        let value = text.parse::<f64>().ok().filter(|v| (low..=high).contains(v));
        value.ok_or_else(|| {
            self.wrong(row, column, format!("{text:?} is not a number from {low} to {high}"))
                .cure("mend the field or leave the row out")
        })
    }

    /// A field as a whole number within bounds.
    ///
    /// # Errors
    /// Anything else.
    pub fn whole(&self, row: usize, column: usize, bounds: [u64; 2]) -> Result<u64> {
        let value = self.number(row, column, bounds.map(|b| b as f64))?;
        if value.fract() != 0.0 {
            let problem = format!("{value} is not a whole number");
            return Err(self.wrong(row, column, problem).cure("mend the field or leave the row out"));
        }
        Ok(value as u64)
    }

    /// A field as a number of microseconds, in seconds: from a nanosecond to an hour.
    ///
    /// # Errors
    /// Anything else.
    pub fn micros(&self, row: usize, column: usize) -> Result<f64> {
        Ok(self.number(row, column, [1e-3, 3.6e9])? * 1e-6)
    }

    /// What is wrong with a field.
    pub fn wrong(&self, row: usize, column: usize, problem: String) -> Diag {
        let place = format!("line {}, {}", self.records[row].0, self.header[column]);
        Diag::input(problem).file(&self.path).place(place)
    }
}
