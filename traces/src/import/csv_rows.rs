//! A CSV table with a header, one row a token and layer: `sequence,position,layer,expert0,expert1,...`.
//!
//! * Rows are sorted by sequence, position and layer; positions of a phase are consecutive; every token has the layers of the
//!   first one. -1 and an empty field are missing experts.
//! * `token` may stand for `position`, `expert_0` or `e0` for `expert0`. A column `phase` has `prefill` or `decode` (or 0 or 1);
//!   without it the options say which. Gate weights are in columns `weight0`, `weight1`, ... (or `gate0`), as many as experts.
//!   Other columns are ignored.

use super::rows::{Columns, Rows, TokenKey, known, numbered};
use super::{Importer, Options, Phase, Sink};
use crate::csv_lines::{self, broken};
use crate::text;
use crate::trace::MISSING;
use csv::ByteRecord;
use moesim_core::{Diag, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// See the module.
pub(super) struct CsvRows;

impl Importer for CsvRows {
    fn name(&self) -> &'static str {
        "csv"
    }
    fn description(&self) -> &'static str {
        "CSV, one row a token and layer: sequence,position,layer,expert0,expert1,... and perhaps phase and weight0,weight1,..."
    }
    fn detect(&self, path: &Path) -> bool {
        let start = text::start(path, 4096).unwrap_or_default();
        let header = start.split(|b| *b == b'\n').next().unwrap_or_default();
        let has = |name: &[u8]| {
            header
                .split(|b| *b == b',')
                .any(|c| c.trim_ascii().strip_suffix(b"\"").unwrap_or(c.trim_ascii()).ends_with(name))
        };
        has(b"sequence") && has(b"layer")
    }
    fn import(&self, path: &Path, options: &Options, sink: &mut dyn Sink) -> Result<()> {
        let at = |d: Diag| d.file(path);
        let mut csv = csv_lines::open(path, csv::ReaderBuilder::new().buffer_capacity(1 << 18))?;
        let header = csv.headers().map_err(|e| broken(path, &e))?;
        let names = header.iter().map(str::trim);
        let found = known(names).and_then(|known| Ok((Columns::find(&known)?, gates(&known))));
        let (columns, gates) = found.map_err(|d| d.file(path).place("line 1"))?;
        if !gates.is_empty() && gates.len() != columns.experts.len() {
            let problem = format!("has {} columns of gate weights for {} experts", gates.len(), columns.experts.len());
            return Err(wrong(problem, "give one a column of experts, or none").file(path).place("line 1"));
        }
        let mut reader = Rows::new(path, options, sink, columns.experts.len());
        let mut record = ByteRecord::new();
        while csv.read_byte_record(&mut record).map_err(|e| broken(path, &e))? {
            let line = || format!("line {}", record.position().map_or(0, csv::Position::line));
            let row = |reader: &mut Rows| {
                let (token, layer) = columns.token(&record, options.phase)?;
                reader.layer(token, layer)?;
                columns.experts(&record, reader.ids(token.1))?;
                for (i, column) in gates.iter().enumerate() {
                    reader.weights().push(weight(&record[*column]).map_err(|d| d.place(format!("weight{i}")))?);
                }
                Ok(())
            };
            row(&mut reader).map_err(|d: Diag| {
                let place = d.place.map_or_else(line, |p| format!("{}, {p}", line()));
                Diag { place: Some(place), ..d }.file(path)
            })?;
        }
        reader.finish().map_err(at)
    }
}

fn wrong(problem: impl Into<String>, cure: &str) -> Diag {
    Diag::input(problem).cure(cure)
}

/// Columns of gate weights.
fn gates(known: &BTreeMap<&str, usize>) -> Vec<usize> {
    numbered(known, &["weight", "weight_", "gate", "gate_", "w"])
}

/// A gate weight; that of a missing expert may be empty.
fn weight(field: &[u8]) -> Result<f32> {
    let text = std::str::from_utf8(field).unwrap_or("?").trim();
    if text.is_empty() {
        return Ok(0.0);
    }
    text.parse()
        .ok()
        .filter(|w: &f32| w.is_finite())
        .ok_or_else(|| wrong(format!("\"{}\" is not a gate weight", shown(field)), "write finite numbers, as in 0.351"))
}

impl Columns {
    /// The token of a row, and its layer.
    fn token(&self, record: &ByteRecord, default: Phase) -> Result<(TokenKey, u32)> {
        let count = |column: usize, name: &str| {
            number(&record[column]).ok_or_else(|| {
                let problem = format!("\"{}\" is not a {name} number", shown(&record[column]));
                wrong(problem, "give whole numbers from 0 to 4294967295").place(name)
            })
        };
        let phase = match self.phase.map(|c| record[c].trim_ascii()) {
            None => default,
            Some(b"prefill" | b"0") => Phase::Prefill,
            Some(b"decode" | b"1") => Phase::Decode,
            Some(other) => {
                let problem = format!("\"{}\" is not a phase", shown(other));
                return Err(wrong(problem, "write prefill or decode").place("phase"));
            }
        };
        let token = (count(self.sequence, "sequence")?, phase, count(self.position, "position")?);
        Ok((token, count(self.layer, "layer")?))
    }
    /// Appends the experts of a row.
    fn experts(&self, record: &ByteRecord, ids: &mut Vec<u16>) -> Result<()> {
        for (i, column) in self.experts.iter().enumerate() {
            let field = &record[*column];
            let id = match number(field) {
                Some(id) => u16::try_from(id).ok().filter(|id| *id != MISSING),
                None => matches!(field.trim_ascii(), b"" | b"-1").then_some(MISSING),
            };
            ids.push(id.ok_or_else(|| {
                let problem = format!("\"{}\" is not an expert id", shown(field));
                wrong(problem, "write ids from 0, and -1 for missing").place(format!("expert{i}"))
            })?);
        }
        Ok(())
    }
}

/// A decimal number of 32 bits.
fn number(field: &[u8]) -> Option<u32> {
    let digits = field.trim_ascii();
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    u32::try_from(digits.iter().fold(0u64, |n, d| 10 * n + u64::from(d - b'0'))).ok()
}

fn shown(field: &[u8]) -> String {
    String::from_utf8_lossy(field).chars().take(40).flat_map(char::escape_default).collect()
}
