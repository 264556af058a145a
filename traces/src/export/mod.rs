//! Exporters of expert-selection traces: one file a format, behind [`Exporter`]. What they write, [`mod@crate::import`] reads.

mod csv_rows;
mod json_lines;
#[cfg(feature = "parquet")]
mod parquet;
mod wafer_json;

use crate::trace::{MISSING, Trace};
use moesim_core::diag::unknown;
use moesim_core::output::AtomicFile;
use moesim_core::{Diag, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes one format.
///
/// * `export` checks the ids of each sequence before it writes it, and holds at most one in memory.
/// * What it writes appears whole or not at all.
pub trait Exporter: Sync {
    /// Its name, for `--format`: that of the importer which reads it.
    fn name(&self) -> &'static str;
    /// What it writes, in one line.
    fn description(&self) -> &'static str;
    /// What of a trace has no place in it.
    fn loses(&self) -> &'static str;
    /// Of a folder, the file that only moesim writes; `None` if it writes one file.
    fn marker(&self) -> Option<&'static str> {
        None
    }
    /// Writes `trace` to the file or folder `out`.
    fn export(&self, trace: &Trace, out: &Path) -> Result<()>;
}

/// All exporters.
pub fn exporters() -> &'static [&'static dyn Exporter] {
    &[
        &json_lines::JsonLines,
        &csv_rows::CsvRows,
        #[cfg(feature = "parquet")]
        &parquet::Parquet,
        &wafer_json::WaferJson,
    ]
}

/// The exporter of this name.
pub fn exporter(format: &str) -> Result<&'static dyn Exporter> {
    #[cfg(not(feature = "parquet"))]
    if format == "parquet" {
        return Err(crate::import::lacking());
    }
    let names: Vec<&str> = exporters().iter().map(|e| e.name()).collect();
    exporters().iter().find(|e| e.name() == format).copied().ok_or_else(|| unknown("trace format", format, &names))
}

/// Writes a file through a buffer; it appears at the end.
fn write_file(out: &Path, write: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>) -> Result<()> {
    let failed = |e: std::io::Error| Diag::cannot_write(out, &e);
    let partial = AtomicFile::create(out)?;
    let mut file = BufWriter::with_capacity(1 << 20, File::create(partial.path()).map_err(failed)?);
    write(&mut |bytes| file.write_all(bytes).map_err(failed))?;
    file.flush().map_err(failed)?;
    partial.commit()
}

/// An expert id in decimal digits, -1 if it is missing.
fn push_id(id: u16, text: &mut Vec<u8>) {
    if id == MISSING { text.extend_from_slice(b"-1") } else { push_number(id.into(), text) }
}

/// A number in decimal digits; `write!` takes several times as long, and traces have millions of them.
fn push_number(mut n: u32, text: &mut Vec<u8>) {
    let start = text.len();
    loop {
        text.push(b'0' + (n % 10) as u8);
        n /= 10;
        if n == 0 {
            break;
        }
    }
    text[start..].reverse();
}

#[cfg(test)]
mod tests;
