//! Tables of the run directory: rows stream to disk, numbers are exact decimals. A table's columns are the fields of its row's type.

use moesim_core::{Diag, Picos, Result};
use serde::{Serialize, Serializer};
use std::fmt::{self, Display};
use std::fs::File;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// A CSV file being written. What cannot be written is said by [`CsvFile::finish`]: a full disk does not end the run, whose
/// summary can still be printed.
pub struct CsvFile {
    path: PathBuf,
    writer: csv::Writer<File>,
    failed: Option<Diag>,
}

impl CsvFile {
    /// Starts an empty file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|e| Diag::cannot_write(path, &e))?;
        let writer = csv::WriterBuilder::new().has_headers(false).buffer_capacity(1 << 16).from_writer(file);
        Ok(Self { path: path.to_path_buf(), writer, failed: None })
    }

    /// Adds a line.
    pub fn record(&mut self, cells: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        if self.failed.is_none() {
            let written = self.writer.write_record(cells);
            self.failed = written.err().map(|e| self.broken(e));
        }
    }

    fn serialize(&mut self, row: &impl Serialize) {
        if self.failed.is_none() {
            let written = self.writer.serialize(row);
            self.failed = written.err().map(|e| self.broken(e));
        }
    }

    fn broken(&self, e: csv::Error) -> Diag {
        let text = e.to_string();
        match e.into_kind() {
            csv::ErrorKind::Io(e) => Diag::cannot_write(&self.path, &e),
            _ => Diag::run(format!("cannot be written: {text}")).file(&self.path),
        }
    }

    /// Everything is on disk.
    ///
    /// # Errors
    /// The first line that could not be written.
    pub fn finish(mut self) -> Result<()> {
        match self.failed.take() {
            Some(failed) => Err(failed),
            None => self.writer.flush().map_err(|e| Diag::cannot_write(&self.path, &e)),
        }
    }
}

/// A table whose columns are the fields of `R`, in their order.
pub struct RowTable<R> {
    file: CsvFile,
    row: PhantomData<fn(R)>,
}

impl<R: Serialize + Default> RowTable<R> {
    /// Starts a table with its header.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let mut file = CsvFile::create(path)?;
        file.record(&columns(&R::default())?);
        Ok(Self { file, row: PhantomData })
    }

    /// Adds a row.
    pub fn row(&mut self, row: &R) {
        self.file.serialize(row);
    }

    /// Everything is on disk.
    ///
    /// # Errors
    /// The first row that could not be written.
    pub fn finish(self) -> Result<()> {
        self.file.finish()
    }
}

/// Names of a row's fields: what the crate makes a header of.
fn columns(row: &impl Serialize) -> Result<csv::StringRecord> {
    let broken = |e: csv::Error| Diag::run(format!("a row has no columns: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.serialize(row).map_err(broken)?;
    let text = writer.into_inner().map_err(|e| broken(e.into_error().into()))?;
    csv::Reader::from_reader(&text[..]).headers().cloned().map_err(broken)
}

/// A time in seconds, to the picosecond: twelve decimals, trailing zeros dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seconds(Picos);

impl From<Picos> for Seconds {
    fn from(t: Picos) -> Self {
        Self(t)
    }
}

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const UNIT: u64 = 1_000_000_000_000;
        let (whole, mut part) = (self.0.0 / UNIT, self.0.0 % UNIT);
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

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A number with as many decimals as tell it from its neighbours, never with an exponent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decimal(f64);

impl From<f64> for Decimal {
    fn from(x: f64) -> Self {
        Self(x)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

/// A number with `N` decimals.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fixed<const N: usize>(f64);

impl<const N: usize> From<f64> for Fixed<N> {
    fn from(x: f64) -> Self {
        Self(x)
    }
}

impl<const N: usize> Display for Fixed<N> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:.N$}", self.0)
    }
}

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A row of `requests.csv`: a request that is done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RequestRow {
    /// Number in order of arrival.
    pub id: u64,
    /// When it came.
    pub arrival_s: Seconds,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Tokens of its answer.
    pub output_tokens: u32,
    /// Its attention rank.
    pub rank: usize,
    /// The sequence of the trace that it replays.
    pub sequence: u32,
    /// Rows of that which it skips.
    pub offset: u32,
    /// When its first batch began.
    pub scheduled_s: Seconds,
    /// When its first output token came.
    pub first_token_s: Seconds,
    /// When its last one came.
    pub finished_s: Seconds,
    /// Time to the first token.
    pub ttft_ms: Decimal,
    /// Time per output token after the first, if there are others.
    pub tpot_ms: Option<Decimal>,
    /// Arrival to last token.
    pub e2e_ms: Decimal,
    /// Times it was preempted.
    pub preemptions: u32,
    /// Positions computed again.
    pub recomputed_tokens: u32,
    /// Its session, if it is of one.
    pub session: Option<u64>,
    /// Which turn of that.
    pub turn: Option<u32>,
}

/// A row of `iterations.csv`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct IterationRow {
    /// Number, from 1.
    pub iteration: u64,
    /// When it began.
    pub start_s: Seconds,
    /// When it ended.
    pub end_s: Seconds,
    /// Sequences of its batch.
    pub sequences: u64,
    /// Tokens of steps that are no decode steps.
    pub prefill_tokens: u64,
    /// Tokens of decode steps.
    pub decode_tokens: u64,
    /// Requests in line.
    pub waiting: usize,
    /// KV cache in use, over a device of each rank.
    pub kv_used_bytes: u64,
    /// Largest over mean tokens of an expert group, in the mean over layers.
    pub imbalance: Fixed<4>,
}

/// The tables that stream during a run; none of them without a run directory.
#[derive(Default)]
pub struct Tables {
    /// One row a finished request.
    pub requests: Option<RowTable<RequestRow>>,
    /// One row an iteration.
    pub iterations: Option<RowTable<IterationRow>>,
}

impl Tables {
    /// Starts the streaming tables in `dir`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn create(dir: &Path, iterations: bool) -> Result<Self> {
        let requests = Some(RowTable::create(&dir.join("requests.csv"))?);
        let iterations = iterations.then(|| RowTable::create(&dir.join("iterations.csv"))).transpose()?;
        Ok(Self { requests, iterations })
    }

    /// Everything is on disk.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(&mut self) -> Result<()> {
        let requests = self.requests.take().map_or(Ok(()), RowTable::finish);
        let iterations = self.iterations.take().map_or(Ok(()), RowTable::finish);
        requests.and(iterations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact() {
        let s = |t: u64| Seconds(Picos(t)).to_string();
        assert_eq!((s(0).as_str(), s(1).as_str(), s(1_500_000_000_000).as_str()), ("0", "0.000000000001", "1.5"));
        assert_eq!(s(u64::MAX), "18446744.073709551615");
    }

    #[test]
    fn columns_are_fields_even_without_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        let mut table = RowTable::<IterationRow>::create(&path).unwrap();
        table.row(&IterationRow { iteration: 3, imbalance: 1.25.into(), ..IterationRow::default() });
        table.finish().unwrap();
        let header = "iteration,start_s,end_s,sequences,prefill_tokens,decode_tokens,waiting,kv_used_bytes,imbalance\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{header}3,0,0,0,0,0,0,0,1.2500\n"));
        RowTable::<IterationRow>::create(&path).unwrap().finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), header);
    }
}
