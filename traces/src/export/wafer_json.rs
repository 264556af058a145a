//! A folder with one JSON file a sequence, in the form that [`mod@crate::import`] calls `wafer-json`.

use super::Exporter;
use crate::trace::{MISSING, Trace};
use moesim_core::output::AtomicDir;
use moesim_core::{Diag, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Source and licence, beside the rows.
const NOTE: &str = "SOURCE.txt";

/// See the module.
pub(super) struct WaferJson;

impl Exporter for WaferJson {
    fn name(&self) -> &'static str {
        "wafer-json"
    }
    fn description(&self) -> &'static str {
        "a folder of JSON, one file a sequence: a list of steps, each a map from layer to lists of expert ids"
    }
    fn loses(&self) -> &'static str {
        "sequence numbers, positions, model, number of experts and gate weights"
    }
    fn marker(&self) -> Option<&'static str> {
        Some(NOTE)
    }
    fn export(&self, trace: &Trace, out: &Path) -> Result<()> {
        let folder = AtomicDir::create(out, NOTE)?;
        let failed = |e: std::io::Error| Diag::cannot_write(out, &e);
        for i in 0..trace.sequences() {
            trace.check_sequence(i)?;
            let file = File::create(folder.path().join(format!("{i:08}.json"))).map_err(failed)?;
            write_sequence(trace, i, &mut BufWriter::new(file)).map_err(failed)?;
        }
        let m = trace.meta();
        let note = format!("Expert selections of {}.\nSource: {}\nLicence: {}\n", m.model, m.source, m.licence);
        std::fs::write(folder.path().join(NOTE), note).map_err(failed)?;
        folder.commit().map(drop)
    }
}

fn write_sequence(trace: &Trace, i: usize, out: &mut impl Write) -> std::io::Result<()> {
    let s = trace.sequence(i);
    out.write_all(b"[")?;
    write_step(trace, s.prefill, out)?;
    for row in s.decode.chunks_exact(trace.width()) {
        out.write_all(b",\n")?;
        write_step(trace, row, out)?;
    }
    out.write_all(b"]\n")?;
    out.flush()
}

fn write_step(trace: &Trace, rows: &[u16], out: &mut impl Write) -> std::io::Result<()> {
    let (k, numbers) = (trace.k(), &trace.meta().layer_numbers);
    let mut dense = 0;
    out.write_all(b"{")?;
    for (l, &layer) in numbers.iter().enumerate() {
        // Layers below the last MoE layer that are not listed are dense.
        for d in dense..layer {
            write!(out, "\"{d}\":null,")?;
        }
        dense = layer + 1;
        write!(out, "\"{layer}\":[")?;
        for (t, row) in rows.chunks_exact(trace.width()).enumerate() {
            let ids = &row[l * k..(l + 1) * k];
            let present = ids.iter().rposition(|id| *id != MISSING).map_or(0, |last| last + 1);
            let words: Vec<String> =
                ids[..present].iter().map(|id| if *id == MISSING { "-1".into() } else { id.to_string() }).collect();
            write!(out, "{}[{}]", if t > 0 { "," } else { "" }, words.join(","))?;
        }
        out.write_all(if l + 1 < numbers.len() { b"]," } else { b"]" })?;
    }
    out.write_all(b"}")
}
