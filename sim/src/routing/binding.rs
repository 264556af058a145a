//! Binds requests to sequences of the trace: a function of request id and seed only.

use moesim_core::rng;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The sequence that a request replays, and the row it starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Binding {
    /// Index of the sequence in the trace.
    pub sequence: u32,
    /// Rows skipped at the start, so that requests in flight on the same sequence do not move in step.
    pub offset: u32,
}

/// Deals sequences to requests: a seeded permutation, again and again. The first round starts at row 0, later rounds at
/// a seeded offset.
#[derive(Clone, Debug)]
pub struct Binder {
    order: Vec<u32>,
    rows: Vec<u32>,
    seed: u64,
    offset_key: u64,
}

impl Binder {
    /// `rows`: how many rows each sequence has (decode rows, or prompt rows where it has no others).
    pub fn new(rows: Vec<u32>, seed: u64) -> Self {
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        let mut stream = rng::stream(seed, "binding", 0);
        // Fisher-Yates.
        for i in (1..order.len()).rev() {
            order.swap(i, rng::below(stream.next_u64(), i as u64 + 1) as usize);
        }
        Self { order, rows, seed, offset_key: rng::purpose_key("binding-offset") }
    }

    /// The binding of request `id`.
    pub fn bind(&self, id: u64) -> Binding {
        let n = self.order.len() as u64;
        let sequence = self.order[(id % n) as usize];
        let rows = u64::from(self.rows[sequence as usize].max(1));
        let offset = if id < n { 0 } else { rng::below(rng::draw(self.seed, self.offset_key, id, 0), rows) as u32 };
        Binding { sequence, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_is_used_once_before_any_is_used_twice() {
        let binder = Binder::new(vec![5; 100], 7);
        let mut seen: Vec<u32> = (0..100).map(|id| binder.bind(id).sequence).collect();
        assert!((0..100).all(|id| binder.bind(id).offset == 0));
        seen.sort_unstable();
        assert!(seen.iter().enumerate().all(|(i, &s)| s == i as u32));
        assert_eq!(binder.bind(42).sequence, binder.bind(142).sequence);
        let offsets: Vec<u32> = (100..200).map(|id| binder.bind(id).offset).collect();
        assert!((0..5).all(|o| offsets.contains(&o)) && offsets.iter().all(|&o| o < 5));
        assert_ne!(Binder::new(vec![5; 100], 8).bind(0), binder.bind(0));
    }
}
