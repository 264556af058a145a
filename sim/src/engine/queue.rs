//! The pending events.

use crate::cache_line::prefetch;

/// A priority queue of events ordered by (time, sequence): equal times come out first in, first out.
///
/// The key is 128 bits, time above sequence, 64 bits each, so nothing wraps. A 4-ary heap over separate arrays of keys
/// and payloads. Four siblings are one cache line, and the least of them is found without a branch: on random times a
/// branch would be mispredicted at every level.
#[derive(Clone, Debug)]
pub struct EventQueue<T> {
    /// The root is slot 3, the last of group 0; the children of slot s are group s - 2. Slots in no use hold [`VACANT`].
    keys: Vec<Siblings>,
    /// The payload of slot s is at s - 3.
    payloads: Vec<T>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Siblings([u128; 4]);

/// Later than every event.
const VACANT: u128 = u128::MAX;
const ROOT: usize = 3;

impl Siblings {
    /// The index of the least key and the key: a knockout of two rounds.
    #[inline]
    fn least(&self) -> (usize, u128) {
        let k = &self.0;
        let left = usize::from(k[1] < k[0]);
        let right = 2 + usize::from(k[3] < k[2]);
        let least = [left, right][usize::from(k[right] < k[left])];
        (least, k[least])
    }
}

impl<T> Default for EventQueue<T> {
    fn default() -> Self {
        Self { keys: Vec::new(), payloads: Vec::new(), next: 0 }
    }
}

impl<T: Copy> EventQueue<T> {
    /// Schedules `payload` at `time` (picoseconds).
    #[inline]
    pub fn push(&mut self, time: u64, payload: T) {
        let key = u128::from(time) << 64 | u128::from(self.next);
        self.next += 1;
        let mut slot = self.payloads.len() + ROOT;
        self.payloads.push(payload);
        if slot / 4 == self.keys.len() {
            self.keys.push(Siblings([VACANT; 4]));
        }
        while slot > ROOT {
            let parent = slot / 4 + 2;
            let above = self.key(parent);
            if above <= key {
                break;
            }
            self.set(slot, above, self.payloads[parent - ROOT]);
            slot = parent;
        }
        self.set(slot, key, payload);
    }

    /// The earliest event, removed.
    #[inline]
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let payload = *self.payloads.first()?;
        let key = self.key(ROOT);
        let last = self.payloads.pop()?;
        let end = self.payloads.len() + ROOT;
        let last_key = self.key(end);
        self.keys[end / 4].0[end % 4] = VACANT;
        if end > ROOT {
            let mut hole = ROOT;
            while let Some(children) = self.keys.get(hole - 2) {
                // Whichever child is the least, its children are in one of these four lines.
                let lines = self.keys.get(4 * (hole - 2) - 2..).unwrap_or_default();
                lines.iter().take(4).for_each(prefetch);
                let (least, below) = children.least();
                if below >= last_key {
                    break;
                }
                let child = 4 * (hole - 2) + least;
                self.set(hole, below, self.payloads[child - ROOT]);
                hole = child;
            }
            self.set(hole, last_key, last);
        }
        Some(((key >> 64) as u64, payload))
    }

    #[inline]
    fn key(&self, slot: usize) -> u128 {
        self.keys[slot / 4].0[slot % 4]
    }
    #[inline]
    fn set(&mut self, slot: usize, key: u128, payload: T) {
        self.keys[slot / 4].0[slot % 4] = key;
        self.payloads[slot - ROOT] = payload;
    }

    /// The time of the earliest event.
    #[inline]
    pub fn peek_time(&self) -> Option<u64> {
        (!self.is_empty()).then(|| (self.key(ROOT) >> 64) as u64)
    }

    /// The number of pending events.
    pub fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    /// Forgets all pending events; sequence numbers go on.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.payloads.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a stably sorted list: earliest first, equal times in the order they came.
        #[test]
        fn pops_in_time_then_arrival_order(times in prop::collection::vec(0u64..20, 0..200), pops in 0usize..50) {
            let mut queue = EventQueue::default();
            let mut model: Vec<(u64, usize)> = Vec::new();
            for (i, &t) in times.iter().enumerate() {
                queue.push(t, i);
                model.push((t, i));
                if i % 4 == 3 && i / 4 < pops {
                    model.sort_by_key(|m| m.0);
                    prop_assert_eq!(queue.pop(), Some(model.remove(0)));
                }
            }
            model.sort_by_key(|m| m.0);
            for m in model {
                prop_assert_eq!(queue.peek_time(), Some(m.0));
                prop_assert_eq!(queue.pop(), Some(m));
            }
            prop_assert!(queue.pop().is_none() && queue.is_empty());
        }
    }

    #[test]
    fn the_last_instant_does_not_wrap() {
        let mut queue = EventQueue::default();
        queue.push(u64::MAX, 1);
        queue.push(0, 2);
        assert_eq!((queue.pop(), queue.pop()), (Some((0, 2)), Some((u64::MAX, 1))));
    }
}
