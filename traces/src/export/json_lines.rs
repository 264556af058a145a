//! JSON lines, one object a sequence, in the form that [`mod@crate::import`] calls `json-lines`.

use super::{Exporter, push_id, write_file};
use crate::trace::{Meta, Sequence, Trace};
use moesim_core::Result;
use std::path::Path;

/// See the module.
pub(super) struct JsonLines;

impl Exporter for JsonLines {
    fn name(&self) -> &'static str {
        "json-lines"
    }
    fn description(&self) -> &'static str {
        "JSON lines, one object a sequence, experts = [token][layers*k]"
    }
    fn loses(&self) -> &'static str {
        "gate weights"
    }
    fn export(&self, trace: &Trace, out: &Path) -> Result<()> {
        let about = about(trace.meta());
        write_file(out, |write| {
            let mut line = Vec::new();
            for i in 0..trace.sequences() {
                trace.check_sequence(i)?;
                line.clear();
                push_sequence(&trace.sequence(i), trace.width(), &about, &mut line);
                write(&line)?;
            }
            Ok(())
        })
    }
}

/// The keys that every sequence of a trace shares.
fn about(m: &Meta) -> String {
    let text = |t: &str| serde_json::Value::from(t).to_string();
    let numbers: Vec<String> = m.layer_numbers.iter().map(u32::to_string).collect();
    format!(
        "\"n_layers\":{},\"top_k\":{},\"n_experts\":{},\"layer_numbers\":[{}],\"model\":{},\"source\":{},\"licence\":{}",
        m.layer_numbers.len(),
        m.k,
        m.experts,
        numbers.join(","),
        text(&m.model),
        text(&m.source),
        text(&m.licence)
    )
}

/// One line. Sequences of one phase have `experts`, those of both `prefill` and `decode`.
fn push_sequence(s: &Sequence, width: usize, about: &str, line: &mut Vec<u8>) {
    let rows = (s.prefill.len() + s.decode.len()) / width;
    let first = if s.prefill.is_empty() { s.decode_first_position } else { s.first_position };
    let head = format!("{{\"seq\":{},\"first_pos\":{first},\"n_tokens\":{rows},{about},", s.id);
    line.extend_from_slice(head.as_bytes());
    match (s.prefill.is_empty(), s.decode.is_empty()) {
        (true, _) => push_rows("\"phase\":\"decode\",\"experts\":", s.decode, width, line),
        (_, true) => push_rows("\"phase\":\"prefill\",\"experts\":", s.prefill, width, line),
        _ => {
            push_rows("\"prefill\":", s.prefill, width, line);
            let key = format!(",\"decode_first_pos\":{},\"decode\":", s.decode_first_position);
            push_rows(&key, s.decode, width, line);
        }
    }
    line.extend_from_slice(b"}\n");
}

fn push_rows(key: &str, ids: &[u16], width: usize, line: &mut Vec<u8>) {
    line.extend_from_slice(key.as_bytes());
    for (token, row) in ids.chunks_exact(width).enumerate() {
        line.extend_from_slice(if token == 0 { b"[[" } else { b",[" });
        for (i, id) in row.iter().enumerate() {
            if i > 0 {
                line.push(b',');
            }
            push_id(*id, line);
        }
        line.push(b']');
    }
    line.push(b']');
}
