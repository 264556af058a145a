//! What commands that write traces say at their end.

use crate::cli::terminal::print;
use moesim_core::Result;
use moesim_traces::trace::Summary;
use std::path::Path;

/// What was written, in one line.
pub(super) fn written(out: &Path, s: &Summary, note: &str) -> Result<()> {
    let (sequences, rows, megabytes) = (s.sequences, s.rows, s.bytes as f64 / 1e6);
    print(&format!("{}: {sequences} sequences{note}, {rows} rows, {megabytes:.1} MB\n", out.display()))
}
