//! A CSV table, one row a token and layer, in the form that [`mod@crate::import`] calls `csv`.

use super::{Exporter, push_id, push_number, write_file};
use crate::trace::Trace;
use moesim_core::Result;
use std::path::Path;

/// See the module.
pub(super) struct CsvRows;

impl Exporter for CsvRows {
    fn name(&self) -> &'static str {
        "csv"
    }
    fn description(&self) -> &'static str {
        "CSV, one row a token and layer: sequence,phase,position,layer,expert0,expert1,..."
    }
    fn loses(&self) -> &'static str {
        "model, number of experts, source, licence and gate weights"
    }
    fn export(&self, trace: &Trace, out: &Path) -> Result<()> {
        write_file(out, |write| {
            let columns: Vec<String> = (0..trace.k()).map(|i| format!(",expert{i}")).collect();
            write(format!("sequence,phase,position,layer{}\n", columns.concat()).as_bytes())?;
            let mut lines = Vec::new();
            for i in 0..trace.sequences() {
                trace.check_sequence(i)?;
                let s = trace.sequence(i);
                let phases = [("prefill", s.first_position, s.prefill), ("decode", s.decode_first_position, s.decode)];
                for (phase, first, ids) in phases {
                    for (row, ids) in ids.chunks_exact(trace.width()).enumerate() {
                        lines.clear();
                        // Positions of a trace fit 32 bits.
                        let head = format!("{},{phase},{},", s.id, first + row as u32);
                        push_token(trace, head.as_bytes(), ids, &mut lines);
                        write(&lines)?;
                    }
                }
            }
            Ok(())
        })
    }
}

/// One line a layer.
fn push_token(trace: &Trace, head: &[u8], ids: &[u16], lines: &mut Vec<u8>) {
    for (layer, ids) in trace.meta().layer_numbers.iter().zip(ids.chunks_exact(trace.k())) {
        lines.extend_from_slice(head);
        push_number(*layer, lines);
        for id in ids {
            lines.push(b',');
            push_id(*id, lines);
        }
        lines.push(b'\n');
    }
}
