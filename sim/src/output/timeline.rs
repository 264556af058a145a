//! `timeline.json`: operations in Chrome's trace format, which Perfetto opens.

use crate::engine::NO_DEVICE;
use crate::machine::Plan;
use crate::metrics::recorder::Kept;
use moesim_core::{Diag, Result};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Operations of the first iterations, up to a limit.
#[derive(Clone, Debug)]
pub struct Timeline {
    operations: Vec<(u64, Kept)>,
    limit: usize,
    cut: bool,
}

impl Timeline {
    /// Keeps whole iterations until there are `limit` operations.
    pub fn new(limit: usize) -> Self {
        Self { operations: Vec::new(), limit, cut: false }
    }

    /// Takes in an iteration.
    pub fn add(&mut self, iteration: u64, operations: impl Iterator<Item = Kept>) {
        if self.operations.len() >= self.limit {
            self.cut = true;
            return;
        }
        self.operations.extend(operations.map(|k| (iteration, k)));
    }

    /// Writes the file; times are in microseconds, as the format wants.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path, plan: &Plan) -> Result<()> {
        let broken = |e: std::io::Error| Diag::cannot_write(path, &e);
        let mut out = BufWriter::new(File::create(path).map_err(broken)?);
        let devices = plan.machine.devices();
        let last = self.operations.last().map_or(0, |o| o.0);
        let note = if self.cut { format!("the first {last} iterations") } else { "all iterations".to_string() };
        writeln!(out, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{},\"traceEvents\":[", json!({ "covers": note }))
            .map_err(broken)?;
        let name = |tid: usize| if tid < devices { format!("gpu{tid}") } else { "collectives and host".to_string() };
        for tid in 0..=devices {
            let meta = json!({ "ph": "M", "name": "thread_name", "pid": 0, "tid": tid, "args": { "name": name(tid) } });
            writeln!(out, "{meta},").map_err(broken)?;
            let order =
                json!({ "ph": "M", "name": "thread_sort_index", "pid": 0, "tid": tid, "args": { "sort_index": tid } });
            writeln!(out, "{order},").map_err(broken)?;
        }
        for (i, (iteration, k)) in self.operations.iter().enumerate() {
            let tid = if k.device == NO_DEVICE { devices } else { k.device as usize };
            let event = json!({
                "ph": "X", "pid": 0, "tid": tid, "name": k.kind.name(), "cat": k.bound.name(),
                "ts": k.start.micros(), "dur": k.end.since(k.start).micros(),
                "args": { "iteration": iteration, "layer": k.layer, "bound": k.bound.name() },
            });
            let comma = if i + 1 < self.operations.len() { "," } else { "" };
            writeln!(out, "{event}{comma}").map_err(broken)?;
        }
        if self.operations.is_empty() {
            writeln!(out, "{}", json!({ "ph": "M", "name": "process_name", "pid": 0, "args": { "name": "moesim" } }))
                .map_err(broken)?;
        }
        writeln!(out, "]}}").map_err(broken)?;
        out.flush().map_err(broken)
    }
}
