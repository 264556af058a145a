//! `timeline.json`: operations in Chrome's trace format, which Perfetto opens.

use super::recorder::TimedOp;
use crate::machine::Plan;
use moesim_core::{Diag, Picos, Result};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Operations of the first iterations, up to a limit.
#[derive(Clone, Debug)]
pub struct Timeline {
    operations: Vec<(u64, TimedOp)>,
    limit: usize,
    cut: bool,
}

impl Timeline {
    /// Keeps whole iterations until there are `limit` operations.
    pub fn new(limit: usize) -> Self {
        Self { operations: Vec::new(), limit, cut: false }
    }

    /// Takes in an iteration.
    pub fn add(&mut self, iteration: u64, operations: impl Iterator<Item = TimedOp>) {
        if self.operations.len() >= self.limit {
            self.cut = true;
            return;
        }
        self.operations.extend(operations.map(|k| (iteration, k)));
    }

    /// The track of each operation: that of its lane, which holds one operation at a time; for those without a lane, the first
    /// behind the lanes that is free when they start. A viewer drops events that overlap on a track without being nested.
    fn tracks(&self, lanes: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.operations.len()).collect();
        order.sort_by_key(|&i| self.operations[i].1.start);
        let mut free: Vec<Picos> = Vec::new();
        let mut tracks = vec![0; self.operations.len()];
        for i in order {
            let k = &self.operations[i].1;
            tracks[i] = match k.lane {
                Some(lane) => lane.0 as usize,
                None => {
                    let at = free.iter().position(|&end| end <= k.start).unwrap_or_else(|| {
                        free.push(Picos::ZERO);
                        free.len() - 1
                    });
                    free[at] = k.end;
                    lanes + at
                }
            };
        }
        tracks
    }

    /// Writes the file; times are in microseconds, as the format wants.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path, plan: &Plan) -> Result<()> {
        let broken = |e: std::io::Error| Diag::cannot_write(path, &e);
        let mut out = BufWriter::new(File::create(path).map_err(broken)?);
        let last = self.operations.last().map_or(0, |o| o.0);
        let note = if self.cut { format!("the first {last} iterations") } else { "all iterations".to_string() };
        writeln!(out, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{},\"traceEvents\":[", json!({ "covers": note }))
            .map_err(broken)?;
        let lanes = &plan.machine.resources.lanes;
        let tracks = self.tracks(lanes.len());
        let shared = tracks.iter().map(|t| (t + 1).saturating_sub(lanes.len())).max().unwrap_or(0);
        let names = lanes.iter().map(|l| l.name.clone()).chain((1..=shared).map(|n| format!("collectives {n}")));
        for (tid, name) in names.enumerate().filter(|(tid, _)| tracks.contains(tid)) {
            let meta = json!({ "ph": "M", "name": "thread_name", "pid": 0, "tid": tid, "args": { "name": name } });
            writeln!(out, "{meta},").map_err(broken)?;
            let order =
                json!({ "ph": "M", "name": "thread_sort_index", "pid": 0, "tid": tid, "args": { "sort_index": tid } });
            writeln!(out, "{order},").map_err(broken)?;
        }
        for (i, ((iteration, k), tid)) in self.operations.iter().zip(tracks).enumerate() {
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
