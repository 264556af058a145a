//! CSV tables out of files that are not trusted.

use crate::text::{self, Text};
use moesim_core::{Diag, Result};
use std::io::Read;
use std::path::Path;

/// Longer rows are not of tables of ours, and must not fill the memory.
const ROW: usize = 64 << 10;

/// A table whose rows are short, its fields perhaps in quotes, plain or packed with gzip.
///
/// # Errors
/// A file that is no text.
pub(crate) fn open(path: &Path, options: &mut csv::ReaderBuilder) -> Result<csv::Reader<ShortRows>> {
    Ok(options.from_reader(ShortRows { text: text::open(path)?, row: 0, state: Field::Start }))
}

/// What is wrong with a table that the CSV reader refuses.
pub(crate) fn broken(path: &Path, e: &csv::Error) -> Diag {
    let line = e.position().map_or(1, csv::Position::line);
    let problem = match e.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => format!("has {len} fields, not {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8 text".to_string(),
        csv::ErrorKind::Io(e) => format!("cannot be read: {e}"),
        _ => format!("cannot be read: {e}"),
    };
    Diag::input(problem).file(path).place(format!("line {line}")).cure("give a CSV table, one row a line")
}

/// Where in a field the reader is, as the CSV reader sees it: a quote at the start of a field opens it, and only outside of
/// quotes does a line end a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Start,
    Plain,
    Quoted,
    /// Behind a quote in quotes, which closes them unless another one follows.
    Quote,
}

/// A text whose rows are short.
pub(crate) struct ShortRows {
    text: Text,
    row: usize,
    state: Field,
}

impl Read for ShortRows {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.text.read(buffer)?;
        for byte in &buffer[..n] {
            self.row += 1;
            self.state = match (self.state, byte) {
                (Field::Start | Field::Quote, b'"') => Field::Quoted,
                (Field::Quoted, b'"') => Field::Quote,
                (Field::Quoted, _) => Field::Quoted,
                (_, b'\n' | b'\r') => {
                    self.row = 0;
                    Field::Start
                }
                (_, b',') => Field::Start,
                _ => Field::Plain,
            };
            if self.row > ROW {
                let quoted = self.state == Field::Quoted;
                let problem =
                    if quoted { "a quote is not closed within 64 KiB" } else { "a line is longer than 64 KiB" };
                return Err(std::io::Error::other(problem));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> std::result::Result<Vec<Vec<String>>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        let mut reader = open(&path, csv::ReaderBuilder::new().has_headers(false)).unwrap();
        let rows = reader
            .records()
            .map(|r| Ok(r.map_err(|e| broken(&path, &e).to_string())?.iter().map(str::to_string).collect()));
        rows.collect()
    }

    #[test]
    fn a_row_may_have_quotes_but_no_more_than_64_kib() {
        let found = rows("\"a\",b\n\"x,\"\"y\"\"\n\",\"\"\n5\" disk,c\n").unwrap();
        assert_eq!(found, [["a", "b"], ["x,\"y\"\n", ""], ["5\" disk", "c"]]);
        let many = "a,b\n".repeat(100_000);
        assert_eq!(rows(&many).unwrap().len(), 100_000);
        assert_eq!(rows(&many.replace('a', "5\"")).unwrap().len(), 100_000);
        let e = rows(&format!("a,\"b\n{many}")).unwrap_err();
        assert!(e.contains("a quote is not closed"), "{e}");
        let e = rows(&"a".repeat(100_000)).unwrap_err();
        assert!(e.contains("a line is longer than 64 KiB"), "{e}");
    }
}
