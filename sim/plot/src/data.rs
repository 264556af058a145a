//! A finished run directory, read lazily: every file in it is untrusted.

use moesim_core::diag::{Diag, Result};
use moesim_core::input;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The file that marks a run directory.
const SUMMARY: &str = "summary.json";
/// A larger summary is not one of ours.
const SUMMARY_LIMIT: u64 = 16 << 20;

/// A finished run directory. Only the summary is held; tables are streamed when a plot asks for them.
#[derive(Debug)]
pub struct RunData {
    /// The directory, as the user named it.
    pub dir: PathBuf,
    summary: serde_json::Map<String, serde_json::Value>,
}

impl RunData {
    /// Opens the directory and reads its summary.
    ///
    /// # Errors
    /// An input error if `dir` holds no `summary.json`, or one that is not a JSON object of at most 16 MiB.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        let path = dir.join(SUMMARY);
        let cure = "name the folder that `moesim run EXPERIMENT.toml --out DIR` wrote";
        if !path.is_file() {
            return Err(Diag::input("is not a run directory: it has no summary.json").file(&dir).cure(cure));
        }
        let mut text = Vec::new();
        let file = input::open(&path)?;
        file.take(SUMMARY_LIMIT + 1).read_to_end(&mut text).map_err(|e| Diag::cannot_read(&path, &e))?;
        if text.len() as u64 > SUMMARY_LIMIT {
            return Err(Diag::input("is larger than 16 MiB, so it is no summary of a run").file(&path).cure(cure));
        }
        let summary = serde_json::from_slice(&text).map_err(|e| {
            Diag::input("is not a summary of a run: a JSON object is expected")
                .file(&path)
                .place(format!("{}:{}", e.line(), e.column()))
                .cure(cure)
        })?;
        Ok(Self { dir, summary })
    }
    /// The summary's members.
    pub fn summary(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.summary
    }
    /// What was run on what, for the line below a title: the summary's name, model and hardware.
    pub fn caption(&self) -> String {
        let text = |key| self.summary.get(key).and_then(|v| v.as_str()).filter(|s| !s.is_empty());
        let mut caption = text("name").unwrap_or("run").to_string();
        for (key, word) in [("model", ": "), ("hardware", " on ")] {
            if let Some(v) = text(key) {
                caption += word;
                caption += v;
            }
        }
        caption
    }
    /// Opens a table of the run; `None` where the run has no such file.
    ///
    /// # Errors
    /// An input error if the file cannot be read or lacks one of `columns`.
    pub fn table(&self, file: &str, columns: &[&str]) -> Result<Option<CsvTable>> {
        let path = self.dir.join(file);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        CsvTable::open(&path, columns).map(Some)
    }
}

/// A CSV table with a header, read row by row.
#[derive(Debug)]
pub struct CsvTable {
    path: PathBuf,
    reader: csv::Reader<File>,
    header: csv::StringRecord,
    record: csv::StringRecord,
    columns: Vec<usize>,
    row: u64,
}

impl CsvTable {
    /// Opens the table and finds `columns` in its header.
    ///
    /// # Errors
    /// An input error if the file cannot be read, is not CSV, or lacks a column.
    pub fn open(path: &Path, columns: &[&str]) -> Result<Self> {
        let file = input::open(path)?;
        let mut reader = csv::Reader::from_reader(file);
        let header = reader.headers().map_err(|e| malformed(path, 0, e))?.clone();
        let find = |name: &&str| {
            header.iter().position(|h| h == *name).ok_or_else(|| {
                Diag::input(format!("lacks the column \"{name}\""))
                    .file(path)
                    .place("header")
                    .cure("write the run again with this version of moesim")
            })
        };
        let columns = columns.iter().map(find).collect::<Result<_>>()?;
        Ok(Self { path: path.to_path_buf(), reader, header, record: csv::StringRecord::new(), columns, row: 0 })
    }
    /// The names of all columns, in the file's order.
    pub fn header(&self) -> impl Iterator<Item = &str> {
        self.header.iter()
    }
    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// An input error, with file and row, if it is not CSV, not UTF-8, or not as long as the header.
    pub fn next_row(&mut self) -> Result<Option<CsvRow<'_>>> {
        self.row += 1;
        match self.reader.read_record(&mut self.record) {
            Ok(true) => Ok(Some(CsvRow { table: self })),
            Ok(false) => Ok(None),
            Err(e) => Err(malformed(&self.path, self.row, e)),
        }
    }
}

fn malformed(path: &Path, row: u64, e: csv::Error) -> Diag {
    let place = if row == 0 { "header".into() } else { format!("row {row}") };
    let problem = match e.kind() {
        csv::ErrorKind::Io(e) => return Diag::cannot_read(path, e),
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8 text".to_string(),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} fields where the header has {expected_len}")
        }
        _ => "is not CSV".to_string(),
    };
    Diag::input(problem).file(path).place(place).cure("write the run again; the file was changed or cut")
}

/// One row of a [`CsvTable`].
#[derive(Debug)]
pub struct CsvRow<'a> {
    table: &'a CsvTable,
}

impl CsvRow<'_> {
    /// The text of the `i`-th of the columns asked for.
    pub fn text(&self, i: usize) -> &str {
        self.cell(self.table.columns[i])
    }
    /// The text of column `i` of the file.
    pub fn cell(&self, i: usize) -> &str {
        self.table.record.get(i).unwrap_or("").trim()
    }
    /// The number in the `i`-th of the columns asked for; `None` where the cell is empty.
    ///
    /// # Errors
    /// An input error, with file, row and column, if the cell is not a finite number.
    pub fn number(&self, i: usize) -> Result<Option<f64>> {
        self.cell_number(self.table.columns[i])
    }
    /// The same for column `i` of the file.
    ///
    /// # Errors
    /// As for [`CsvRow::number`].
    pub fn cell_number(&self, i: usize) -> Result<Option<f64>> {
        let text = self.cell(i);
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<f64>() {
            Ok(v) if v.is_finite() => Ok(Some(v)),
            _ => {
                let text: String = text.chars().take(40).collect();
                Err(self.wrong(i, format!("\"{text}\" is not a finite number")))
            }
        }
    }
    /// The number in the `i`-th of the columns asked for, at least 0.
    ///
    /// # Errors
    /// An input error, with file, row and column, if the cell is empty, not a finite number or negative.
    pub fn amount(&self, i: usize) -> Result<f64> {
        let column = self.table.columns[i];
        match self.cell_number(column)? {
            Some(v) if v >= 0.0 => Ok(v),
            Some(v) => Err(self.wrong(column, format!("{v} is negative"))),
            None => Err(self.wrong(column, "the cell is empty".into())),
        }
    }
    /// The whole number in the `i`-th of the columns asked for, below `limit`.
    ///
    /// # Errors
    /// An input error, with file, row and column, if it is none.
    pub fn index(&self, i: usize, limit: u32) -> Result<u32> {
        let (column, text) = (self.table.columns[i], self.text(i));
        text.parse().ok().filter(|v| *v < limit).ok_or_else(|| {
            let text: String = text.chars().take(40).collect();
            self.wrong(column, format!("\"{text}\" is not a whole number below {limit}"))
        })
    }
    /// An error about column `i` of the file in this row.
    fn wrong(&self, i: usize, problem: String) -> Diag {
        let column = self.table.header.get(i).unwrap_or("?");
        Diag::input(problem)
            .file(&self.table.path)
            .place(format!("row {}, column \"{column}\"", self.table.row))
            .cure("write the run again; the file was changed or cut")
    }
}
