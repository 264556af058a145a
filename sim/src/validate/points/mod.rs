//! Served points: what real servers took, a row each, beside a simulation of the same server.
//!
//! A file of points is CSV with the columns of [`COLUMNS`]. [`express`] makes an experiment of a point, [`rounds`] runs it as it was
//! measured, [`outcome`] is what came of it, [`sample`] chooses some of many, [`statistics`] and [`components`] compare.

pub mod components;
pub mod express;
pub mod outcome;
pub mod rounds;
pub mod sample;
pub mod servers;
pub mod statistics;

use moesim_core::{Diag, Result, diag, input};
use serde::Serialize;
use std::io::Read;
use std::path::Path;

/// The columns of a file of points, all of them, in any order.
pub const COLUMNS: [&str; 18] = [
    "model",
    "system",
    "backend",
    "version",
    "precision",
    "gpus",
    "tp",
    "dp",
    "moe_tp",
    "moe_ep",
    "batched_tokens",
    "isl",
    "osl",
    "conc",
    "date",
    "mean_ttft_ms",
    "mean_tpot_ms",
    "role",
];

/// What a point may be used for.
pub const ROLES: [&str; 2] = ["figure", "calibration"];

/// A measured point: a server under a closed loop of `conc` clients. Prompts are drawn evenly from 0.8 to 1.0 of `isl` tokens, outputs
/// from 0.8 to 1.0 of `osl`; [`rounds::MEASURED`] requests a client count, on a server that has been warmed up and stands idle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The model, as the file names it.
    pub model: String,
    /// The device, as the file names it.
    pub system: String,
    /// The framework.
    pub backend: String,
    /// Its version; empty if it is not known.
    pub version: String,
    /// Of the experts' weights: fp4, fp8, int4.
    pub precision: String,
    /// Devices.
    pub gpus: u32,
    /// Devices of an attention rank.
    pub tp: u32,
    /// Attention ranks.
    pub dp: u32,
    /// Devices that share an expert.
    pub moe_tp: u32,
    /// Groups of experts.
    pub moe_ep: u32,
    /// The rule for the most tokens of an iteration; empty if it is not known.
    pub batched_tokens: String,
    /// Longest prompt.
    pub isl: u32,
    /// Longest output.
    pub osl: u32,
    /// Clients.
    pub conc: u32,
    /// Year, month and day; empty if it is not known.
    pub date: String,
    /// Mean time to the first token, in milliseconds.
    pub mean_ttft_ms: f64,
    /// Mean time per output token after the first, in milliseconds.
    pub mean_tpot_ms: f64,
    /// One of [`ROLES`].
    pub role: String,
}

impl Point {
    /// What all points of one server with one kind of request share: everything but the clients.
    pub fn series(&self) -> String {
        let lengths = format!("{} {}", self.isl, self.osl);
        format!("{} {lengths}", self.server())
    }

    /// Whether its prompts are long and its outputs short, 8192/1024.
    pub fn is_long_prompt(&self) -> bool {
        (self.isl, self.osl) == (8192, 1024)
    }

    /// Whether its prompts are short and its outputs long, 1024/8192.
    pub fn is_short_prompt(&self) -> bool {
        (self.isl, self.osl) == (1024, 8192)
    }

    /// What all points of one server share.
    pub fn server(&self) -> String {
        let (m, s, b, v, p) = (&self.model, &self.system, &self.backend, &self.version, &self.precision);
        format!("{m} {s} {b} {v} {p} {} tp{} dp{} {} {}", self.gpus, self.tp, self.dp, self.moe_tp, self.moe_ep)
    }
}

/// A file of points is a table that people read.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// The largest count in a file.
const MOST: u32 = 1 << 20;

/// Reads a file of points, plain or packed with gzip.
///
/// # Errors
/// A file that cannot be read, a column that is lacking or not known, a cell that is not what its column says.
pub fn read(path: &Path) -> Result<Vec<Point>> {
    let mut bytes = Vec::new();
    let file = std::io::BufReader::new(input::open(path)?);
    let mut file: Box<dyn Read> = match packed(path)? {
        true => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let read = (&mut file).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| Diag::input(format!("cannot be read: {e}")).file(path).cure("check the file, or copy it again"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Diag::input("is larger than 16 MiB").file(path).cure("name a table of measured points"));
    }
    parse(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).map_err(|d| d.file(path))
}

fn packed(path: &Path) -> Result<bool> {
    let mut start = [0; 2];
    Ok(input::open(path)?.read_exact(&mut start).is_ok() && start == [0x1f, 0x8b])
}

/// The points of a table.
fn parse(bytes: &[u8]) -> Result<Vec<Point>> {
    let broken = |e: csv::Error| {
        let line = e.position().map_or(1, csv::Position::line);
        Diag::input(format!("is not a table: {e}")).place(format!("line {line}")).cure("save it as CSV in UTF-8")
    };
    let mut table = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header: Vec<String> = table.headers().map_err(broken)?.iter().map(str::to_string).collect();
    if let Some(wrong) = header.iter().find(|h| !COLUMNS.contains(&h.as_str())) {
        return Err(diag::unknown("column of served points", wrong, &COLUMNS).place("line 1"));
    }
    let mut at = [0; COLUMNS.len()];
    for (column, at) in COLUMNS.iter().zip(&mut at) {
        let places: Vec<usize> = (0..header.len()).filter(|&i| header[i] == *column).collect();
        match places[..] {
            [one] => *at = one,
            [] => return Err(Diag::input(format!("has no column {column}")).place("line 1").cure("add it")),
            _ => return Err(Diag::input(format!("has {column} twice")).place("line 1").cure("keep one of them")),
        }
    }
    let mut points = Vec::new();
    for record in table.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, csv::Position::line);
        points.push(PointCells { cells: at.map(|i| &record[i]), line }.point()?);
    }
    if points.is_empty() {
        return Err(Diag::input("has no points").place("line 2").cure("add a row for each measured point"));
    }
    Ok(points)
}

/// A row, its cells in the order of [`COLUMNS`].
struct PointCells<'a> {
    cells: [&'a str; COLUMNS.len()],
    line: u64,
}

impl PointCells<'_> {
    fn point(&self) -> Result<Point> {
        let role = self.text("role");
        if !ROLES.contains(&role.as_str()) {
            return Err(diag::unknown("role", &role, &ROLES).place(self.place("role")));
        }
        for column in ["model", "system", "backend", "precision"] {
            if self.text(column).is_empty() {
                return Err(self.wrong(column, "is empty", "fill it in"));
            }
        }
        Ok(Point {
            model: self.text("model"),
            system: self.text("system"),
            backend: self.text("backend"),
            version: self.text("version"),
            precision: self.text("precision"),
            gpus: self.count("gpus")?,
            tp: self.count("tp")?,
            dp: self.count("dp")?,
            moe_tp: self.count("moe_tp")?,
            moe_ep: self.count("moe_ep")?,
            batched_tokens: self.text("batched_tokens"),
            isl: self.count("isl")?,
            osl: self.count("osl")?,
            conc: self.count("conc")?,
            date: self.text("date"),
            mean_ttft_ms: self.time("mean_ttft_ms")?,
            mean_tpot_ms: self.time("mean_tpot_ms")?,
            role,
        })
    }

    fn cell(&self, column: &str) -> &str {
        COLUMNS.iter().position(|c| *c == column).map_or("", |i| self.cells[i])
    }

    fn text(&self, column: &str) -> String {
        self.cell(column).to_string()
    }

    fn place(&self, column: &str) -> String {
        format!("line {}, column {column}", self.line)
    }

    fn wrong(&self, column: &str, problem: &str, cure: &str) -> Diag {
        Diag::input(problem).place(self.place(column)).cure(cure)
    }

    fn count(&self, column: &str) -> Result<u32> {
        let cell = self.cell(column);
        let count = cell.parse::<u32>().ok().filter(|n| (1..=MOST).contains(n));
        count.ok_or_else(|| {
            self.wrong(column, &format!("{cell:?} is no count"), "write a whole number from 1 to 1048576")
        })
    }

    fn time(&self, column: &str) -> Result<f64> {
        let cell = self.cell(column);
        let time = cell.parse::<f64>().ok().filter(|t| *t > 0.0 && t.is_finite());
        time.ok_or_else(|| self.wrong(column, &format!("{cell:?} is no time"), "write milliseconds above 0"))
    }
}

#[cfg(test)]
mod tests;
