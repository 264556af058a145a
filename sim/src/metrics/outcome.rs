//! What came of one iteration.

use crate::serving::BatchSize;
use moesim_core::Picos;

/// What came of one iteration, beside what its operations did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// When it began.
    pub begin: Picos,
    /// When it ended.
    pub end: Picos,
    /// What it computed.
    pub size: BatchSize,
    /// Requests in line meanwhile.
    pub waiting: usize,
    /// Bytes of KV cache in use meanwhile, summed over a device of each rank.
    pub kv_used: u64,
}

impl Outcome {
    /// How long it took, in picoseconds.
    pub fn took(&self) -> u64 {
        self.end.since(self.begin).0
    }

    /// 1 if every sequence decodes, else 0: iterations are told apart so.
    pub fn sort(&self) -> usize {
        usize::from(self.size.prefill_tokens == 0)
    }
}
