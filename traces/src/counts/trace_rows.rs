//! The counts of a trace in moesim's container.

use super::{ExpertCounts, Reader};
use crate::trace::{MISSING, Trace};
use moesim_core::{Result, input};
use std::io::Read;
use std::path::Path;

pub(super) struct TraceRows;

impl Reader for TraceRows {
    fn name(&self) -> &'static str {
        "trace"
    }
    fn description(&self) -> &'static str {
        "a trace in moesim's container"
    }
    fn detect(&self, path: &Path) -> bool {
        let mut start = [0u8; 6];
        input::open(path).is_ok_and(|mut f| f.read_exact(&mut start).is_ok()) && &start == b"ARROW1"
    }
    fn read(&self, path: &Path) -> Result<ExpertCounts> {
        let trace = Trace::open(path)?;
        let (layers, experts, k) = (trace.layers(), trace.experts(), trace.k());
        let mut counts = vec![0u64; layers * experts];
        for i in 0..trace.sequences() {
            trace.check_sequence(i)?;
            let s = trace.sequence(i);
            for row in s.prefill.chunks_exact(trace.width()).chain(s.decode.chunks_exact(trace.width())) {
                for (l, ids) in row.chunks_exact(k).enumerate() {
                    ids.iter().filter(|id| **id != MISSING).for_each(|id| counts[l * experts + usize::from(*id)] += 1);
                }
            }
        }
        let meta = trace.meta();
        Ok(ExpertCounts {
            model: Some(meta.model.clone()),
            layer_numbers: meta.layer_numbers.clone(),
            experts: meta.experts,
            k: Some(meta.k),
            counts,
            ..Default::default()
        })
    }
}
