//! Costs that were asked for before: iteration after iteration the same few shapes come back.

use super::Cost;
use std::sync::{Mutex, PoisonError};

/// Shape of a GEMM: m, n, k, and which kernel.
type Key = [u64; 4];

/// Slots; a power of two.
const SLOTS: usize = 1 << 12;

/// A table with one place for each shape; a shape that falls on another's place takes it. What comes out is what would
/// be computed, so that a run does not depend on what was asked before.
#[derive(Debug)]
pub(super) struct Memo {
    slots: Mutex<Vec<(Key, Cost)>>,
}

impl Default for Memo {
    fn default() -> Self {
        // No GEMM has this shape.
        Self { slots: Mutex::new(vec![([u64::MAX; 4], Cost::default()); SLOTS]) }
    }
}

impl Memo {
    /// The cost of a shape, computed if it is not at its place.
    pub(super) fn get(&self, key: Key, compute: impl FnOnce() -> Cost) -> Cost {
        let mix = |h: u64, x: &u64| (h ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let at = key.iter().fold(0, mix) as usize % SLOTS;
        // A table is whole after every write.
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots[at].0 != key {
            slots[at] = (key, compute());
        }
        slots[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_share_a_place_do_not_share_a_cost() {
        let memo = Memo::default();
        let cost = |n: u64| Cost::kernel(n as f64, 0.0, 0.0, n, n);
        for round in 0..2 {
            for n in 0..3 * SLOTS as u64 {
                assert_eq!(memo.get([n, 1, 2, 3], || cost(n)), cost(n), "{round}");
            }
        }
        let last = 3 * SLOTS as u64 - 1;
        assert_eq!(memo.get([last, 1, 2, 3], || unreachable!("it is at its place")), cost(last));
    }
}
