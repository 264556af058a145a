//! Tables of the run directory: rows stream to disk, numbers are exact decimals.

use moesim_core::{Diag, Picos, Result};
use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A CSV file being written. Cells are numbers and plain names, which need no quotes. What cannot be written is said by
/// [`Table::finish`]: a full disk does not end the run, whose summary can still be printed.
pub struct Table {
    path: PathBuf,
    file: BufWriter<File>,
    first: bool,
    failed: Option<Diag>,
}

impl Table {
    /// Starts a table with its header.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn create(path: &Path, header: &str) -> Result<Self> {
        let file = File::create(path).map_err(|e| Diag::cannot_write(path, &e))?;
        let mut table =
            Self { path: path.to_path_buf(), file: BufWriter::with_capacity(1 << 16, file), first: true, failed: None };
        table.text(format_args!("{header}\n"));
        Ok(table)
    }

    fn text(&mut self, args: std::fmt::Arguments) {
        if self.failed.is_none() {
            self.failed = self.file.write_fmt(args).err().map(|e| Diag::cannot_write(&self.path, &e));
        }
    }

    /// A cell.
    pub fn cell(&mut self, value: impl Display) {
        let comma = if std::mem::take(&mut self.first) { "" } else { "," };
        self.text(format_args!("{comma}{value}"));
    }

    /// A time in seconds, to the picosecond.
    pub fn seconds(&mut self, t: Picos) {
        self.cell(Seconds(t.0));
    }

    /// Ends the row.
    pub fn end_row(&mut self) {
        self.first = true;
        self.text(format_args!("\n"));
    }

    /// Everything is on disk.
    ///
    /// # Errors
    /// The first row that could not be written.
    pub fn finish(mut self) -> Result<()> {
        match self.failed.take() {
            Some(failed) => Err(failed),
            None => self.file.flush().map_err(|e| Diag::cannot_write(&self.path, &e)),
        }
    }
}

/// Picoseconds printed as seconds with twelve decimals, trailing zeros dropped.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        const UNIT: u64 = 1_000_000_000_000;
        let (whole, mut part) = (self.0 / UNIT, self.0 % UNIT);
        write!(f, "{whole}")?;
        if part > 0 {
            let mut width = 12;
            while part.is_multiple_of(10) {
                part /= 10;
                width -= 1;
            }
            write!(f, ".{part:0width$}")?;
        }
        Ok(())
    }
}

/// The tables that stream during a run; none of them without a run directory.
#[derive(Default)]
pub struct Tables {
    /// One row a finished request.
    pub requests: Option<Table>,
    /// One row an iteration.
    pub iterations: Option<Table>,
}

impl Tables {
    /// Starts the streaming tables in `dir`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn create(dir: &Path, iterations: bool) -> Result<Self> {
        let requests = Table::create(
            &dir.join("requests.csv"),
            "id,arrival_s,prompt_tokens,output_tokens,rank,sequence,offset,scheduled_s,first_token_s,finished_s,\
             ttft_ms,tpot_ms,e2e_ms,preemptions,recomputed_tokens,session,turn",
        )?;
        let header = "iteration,start_s,end_s,sequences,prefill_tokens,decode_tokens,waiting,kv_used_bytes,imbalance";
        let iterations = if iterations { Some(Table::create(&dir.join("iterations.csv"), header)?) } else { None };
        Ok(Self { requests: Some(requests), iterations })
    }

    /// Everything is on disk.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(&mut self) -> Result<()> {
        for table in [self.requests.take(), self.iterations.take()].into_iter().flatten() {
            table.finish()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact() {
        let s = |t: u64| Seconds(t).to_string();
        assert_eq!((s(0).as_str(), s(1).as_str(), s(1_500_000_000_000).as_str()), ("0", "0.000000000001", "1.5"));
        assert_eq!(s(u64::MAX), "18446744.073709551615");
    }
}
