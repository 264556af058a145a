//! CSV tables out of files that are not trusted.

use moesim_core::Diag;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longer lines are not tables of ours, and must not fill the memory.
const LINE: usize = 64 << 10;

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

/// A file whose lines are short.
pub(crate) struct ShortLines {
    file: File,
    line: usize,
}

impl ShortLines {
    pub(crate) fn new(file: File) -> Self {
        Self { file, line: 0 }
    }
}

impl Read for ShortLines {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.line = match buffer[..n].iter().rposition(|b| *b == b'\n') {
            Some(last) => n - last - 1,
            None => self.line + n,
        };
        if self.line > LINE {
            return Err(std::io::Error::other("a line is longer than 64 KiB"));
        }
        Ok(n)
    }
}
