//! The CSV of measurements, and how it grows.

use super::sample::QUIET;
use super::{Facts, MeasuredShape, Point, Precision, Sample, Skew, Work};
use moesim_core::{Diag, Result, input};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The columns, in order.
pub const COLUMNS: [&str; 29] = [
    "what",
    "device",
    "kernel_source",
    "version",
    "precision",
    "tokens",
    "hidden_size",
    "inter_size",
    "topk",
    "num_experts",
    "active_experts",
    "distribution",
    "expert_tokens",
    "m",
    "n",
    "k",
    "bytes",
    "pass",
    "latency_us",
    "low_us",
    "high_us",
    "repeats",
    "outliers",
    "others",
    "threads",
    "clock_mhz",
    "rotated_bytes",
    "code",
    "date",
];
/// Columns from the first to the pass: what a row is of.
const KEYS: usize = 18;
/// What rows say of the kernel's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A file that is gone on with is small.
const MAX_BYTES: u64 = 256 << 20;

/// A row, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredRow(Vec<String>);

/// Counts of experts as runs: `4x16 2x1` are four experts with 16 tokens each, then two with one.
pub fn runs(counts: &[u32]) -> String {
    let mut text = String::new();
    for run in counts.chunk_by(|a, b| a == b) {
        let _ = write!(text, "{}{}x{}", if text.is_empty() { "" } else { " " }, run.len(), run[0]);
    }
    text
}

/// The reverse of [`runs`]; `None` for what it does not write, or for more than 2^16 experts.
pub fn counts(text: &str) -> Option<Vec<u32>> {
    let mut counts = Vec::new();
    for run in text.split_whitespace() {
        let (experts, tokens) = run.split_once('x')?;
        let experts: usize = experts.parse().ok().filter(|e| *e <= 1 << 16)?;
        counts.resize(counts.len() + experts, tokens.parse().ok()?);
        if counts.len() > 1 << 16 {
            return None;
        }
    }
    Some(counts)
}

impl MeasuredRow {
    /// What was measured of a point.
    pub fn new(facts: &Facts, point: &Point, s: &Sample) -> Self {
        let mut row = Self::key(facts, point);
        let micros = |s: f64| format!("{:.4}", s * 1e6);
        row.0.extend([
            micros(s.median_s),
            micros(s.interval_s[0]),
            micros(s.interval_s[1]),
            s.repeats.to_string(),
            s.outliers.to_string(),
            format!("{:.3}", s.others),
            facts.threads.to_string(),
            format!("{:.0}", s.clock_mhz),
            facts.rotated_bytes.to_string(),
            facts.code.clone(),
            facts.date.clone(),
        ]);
        row
    }

    /// The columns that say which point it is.
    fn key(facts: &Facts, point: &Point) -> Self {
        let mut row = vec![String::new(); KEYS];
        let mut set = |name: &str, value: String| {
            let at = COLUMNS.iter().position(|c| *c == name).expect("a column");
            row[at] = value;
        };
        set("what", point.work.name().into());
        set("device", facts.device.clone());
        set("kernel_source", facts.family.into());
        set("version", VERSION.into());
        set("pass", point.pass.to_string());
        let mut product = |precision: &str, size: &[usize; 3]| {
            set("precision", precision.into());
            ["m", "n", "k"].iter().zip(size).for_each(|(name, s)| set(name, s.to_string()));
        };
        match &point.work {
            Work::Experts { shape, precision, tokens, counts, skew } => {
                set("precision", precision.name().into());
                let sizes = [
                    ("tokens", *tokens),
                    ("hidden_size", shape.hidden),
                    ("inter_size", shape.intermediate),
                    ("topk", shape.top_k),
                    ("num_experts", shape.experts),
                    ("active_experts", counts.iter().filter(|n| **n > 0).count()),
                ];
                sizes.into_iter().for_each(|(name, size)| set(name, size.to_string()));
                set("distribution", skew.to_string());
                set("expert_tokens", runs(counts));
            }
            Work::Gemm { precision, size } => product(precision.name(), size),
            Work::Library { precision, size } => product(precision.name(), size),
            Work::Norm { tokens, hidden } => {
                set("precision", "bfloat16".into());
                set("tokens", tokens.to_string());
                set("hidden_size", hidden.to_string());
            }
            Work::Read(bytes) | Work::Write(bytes) | Work::Copy(bytes) | Work::HostCopy { bytes, .. } => {
                set("bytes", bytes.to_string());
            }
            Work::Launch => {}
        }
        Self(row)
    }

    /// The point of a layer of experts, a dense product or a norm; `None` for other rows. However tokens were spread,
    /// they come back as those of a trace.
    pub fn point(&self) -> Option<Point> {
        let whole = |column: &str| self.text(column).parse::<usize>().ok();
        let precision = || Precision::ALL.iter().find(|p| p.2 == self.text("precision")).map(|p| p.0);
        let work = match self.text("what") {
            "experts" => Work::Experts {
                shape: MeasuredShape {
                    hidden: whole("hidden_size")?,
                    intermediate: whole("inter_size")?,
                    experts: whole("num_experts")?,
                    top_k: whole("topk")?,
                },
                precision: precision()?,
                tokens: whole("tokens")?,
                counts: counts(self.text("expert_tokens"))?,
                skew: Skew::Trace,
            },
            "gemm" => Work::Gemm { precision: precision()?, size: [whole("m")?, whole("n")?, whole("k")?] },
            "norm" => Work::Norm { tokens: whole("tokens")?, hidden: whole("hidden_size")? },
            _ => return None,
        };
        Some(Point { work, pass: whole("pass")? as u32 })
    }

    /// A field by its column.
    pub fn text(&self, column: &str) -> &str {
        COLUMNS.iter().position(|c| *c == column).and_then(|at| self.0.get(at)).map_or("", String::as_str)
    }

    /// Whether others left the processors alone meanwhile.
    pub fn is_quiet(&self) -> bool {
        self.number("others") <= QUIET
    }

    /// A field as a number; 0 where it is none.
    pub fn number(&self, column: &str) -> f64 {
        self.text(column).parse().unwrap_or(0.0)
    }

    /// Whether both are of the same point: device, kernel and pass included.
    fn same(&self, other: &Self) -> bool {
        self.0.iter().take(KEYS).eq(other.0.iter().take(KEYS))
    }

    /// Whether this is the second pass of another row's point.
    pub fn is_again(&self, first: &Self) -> bool {
        let of = KEYS - 1;
        self.text("pass") == "2" && self.0.iter().take(of).eq(first.0.iter().take(of))
    }

    fn line(&self) -> Result<Vec<u8>> {
        let mut out = csv::Writer::from_writer(Vec::new());
        out.write_record(&self.0).map_err(|e| Diag::run(e.to_string()))?;
        out.into_inner().map_err(|e| Diag::run(e.to_string()))
    }
}

/// A CSV that grows by whole rows.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    /// What it holds.
    pub rows: Vec<MeasuredRow>,
}

impl Log {
    /// Starts a file; with `resume` an existing one of the same columns is gone on with, without a last line that was
    /// cut off.
    ///
    /// # Errors
    /// A file that exists without `resume`, is not of these columns, or cannot be written.
    pub fn open(path: &Path, resume: bool) -> Result<Self> {
        let exists = path.symlink_metadata().is_ok();
        if exists && !resume {
            return Err(Diag::input("exists")
                .file(path)
                .cure("give --resume to go on with it, or choose another --out"));
        }
        let mut bytes = Vec::new();
        if exists {
            let file = input::open(path)?;
            file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Diag::cannot_read(path, &e))?;
        }
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let rows = if whole == 0 { Vec::new() } else { read(path, &bytes[..whole])? };
        if whole == 0 && !bytes.is_empty() && !header().starts_with(&bytes) {
            return Err(foreign(path));
        }
        let cannot = |e: &std::io::Error| Diag::cannot_write(path, e);
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| cannot(&e))?;
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(|e| cannot(&e))?;
        }
        if whole == 0 {
            file.write_all(&header()).map_err(|e| cannot(&e))?;
        }
        Ok(Self { path: path.to_path_buf(), file, rows })
    }

    /// Whether a point is there, and was not disturbed.
    pub fn has(&self, facts: &Facts, point: &Point) -> bool {
        let key = MeasuredRow::key(facts, point);
        self.rows.iter().any(|r| r.same(&key) && r.is_quiet())
    }

    /// Undisturbed rows of a device and of this version's kernel that are of a layer of experts, a dense product or a
    /// norm.
    pub fn works(&self, facts: &Facts) -> impl Iterator<Item = (Point, &MeasuredRow)> {
        let own = |r: &&MeasuredRow| {
            let of = [("device", &facts.device[..]), ("kernel_source", facts.family), ("version", VERSION)];
            of.iter().all(|(column, text)| r.text(column) == *text)
        };
        self.rows.iter().filter(own).filter(|r| r.is_quiet()).filter_map(|r| Some((r.point()?, r)))
    }

    /// Adds a row, which is in the file when this returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn push(&mut self, row: MeasuredRow) -> Result<()> {
        let line = row.line()?;
        // One call, so that a line is whole or absent unless the disk is full.
        let written = self.file.write_all(&line).and_then(|()| self.file.flush());
        written.map_err(|e| Diag::cannot_write(&self.path, &e))?;
        self.rows.push(row);
        Ok(())
    }
}

fn header() -> Vec<u8> {
    (COLUMNS.join(",") + "\n").into_bytes()
}

fn foreign(path: &Path) -> Diag {
    Diag::input("is not a table of measurements that this version wrote").file(path).cure("choose another --out")
}

fn read(path: &Path, bytes: &[u8]) -> Result<Vec<MeasuredRow>> {
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes);
    let own = reader.headers().is_ok_and(|h| h.iter().eq(COLUMNS));
    if bytes.len() as u64 > MAX_BYTES || !own {
        return Err(foreign(path));
    }
    let rows = reader.records().map(|r| r.map(|r| MeasuredRow(r.iter().map(str::to_string).collect())));
    rows.collect::<std::result::Result<_, _>>().map_err(|_| foreign(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::plan::{plan, tests::options};
    use proptest::prelude::*;

    pub(crate) fn facts() -> Facts {
        Facts {
            device: "a, \"b\"".into(),
            family: "mine",
            code: "rust".into(),
            threads: 2,
            llc_bytes: 1 << 20,
            memory_bytes: 1 << 30,
            rotated_bytes: 1 << 22,
            date: "2026-11-29".into(),
        }
    }

    const SAMPLE: Sample =
        Sample { median_s: 1e-3, interval_s: [9e-4, 1.2e-3], repeats: 9, outliers: 1, others: 0.0, clock_mhz: 2600.0 };

    #[test]
    fn a_cut_line_is_measured_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.csv");
        let points = plan(&options());
        let mut log = Log::open(&path, false).unwrap();
        for p in &points[..5] {
            log.push(MeasuredRow::new(&facts(), p, &SAMPLE)).unwrap();
        }
        assert!(Log::open(&path, false).unwrap_err().to_string().contains("--resume"));
        let text = std::fs::read_to_string(&path).unwrap();
        // Wherever it was cut, whole lines stay and the others are gone.
        for cut in 0..text.len() {
            std::fs::write(&path, &text[..cut]).unwrap();
            let log = Log::open(&path, true).unwrap();
            let whole = text[..cut].matches('\n').count().saturating_sub(1);
            assert_eq!(log.rows.len(), whole, "{cut}");
            let has: Vec<bool> = points[..5].iter().map(|p| log.has(&facts(), p)).collect();
            assert_eq!(has, (0..5).map(|i| i < whole).collect::<Vec<_>>());
        }
        std::fs::write(&path, "a,b\n1,2\n").unwrap();
        assert!(Log::open(&path, true).unwrap_err().to_string().contains("not a table of measurements"));
    }

    /// A row of an older version counts neither as measured nor as what is known.
    #[test]
    fn another_versions_times_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.csv");
        let is_work = |p: &Point| MeasuredRow::new(&facts(), p, &SAMPLE).point().is_some();
        let points: Vec<Point> = plan(&options()).into_iter().filter(is_work).take(2).collect();
        let mut log = Log::open(&path, false).unwrap();
        for (i, p) in points.iter().enumerate() {
            let mut row = MeasuredRow::new(&facts(), p, &SAMPLE);
            if i == 1 {
                row.0[COLUMNS.iter().position(|c| *c == "version").unwrap()] = "0.0.1".into();
            }
            log.push(row).unwrap();
        }
        assert_eq!(log.works(&facts()).count(), 1);
        assert_eq!([log.has(&facts(), &points[0]), log.has(&facts(), &points[1])], [true, false]);
    }

    proptest! {
        #[test]
        fn runs_come_back(counts_ in prop::collection::vec(0u32..4, 0..40)) {
            prop_assert_eq!(counts(&runs(&counts_)).unwrap(), counts_);
        }
        #[test]
        fn no_runs_panic(text in "[0-9x ]{0,20}") {
            let _ = counts(&text);
        }
    }

    #[test]
    fn other_runs_are_none() {
        for text in ["4", "x1", "4x", "4x-1", "99999999x1", "65536x1 1x1"] {
            assert_eq!(counts(text), None, "{text}");
        }
    }
}
