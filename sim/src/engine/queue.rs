//! The pending events.

/// A priority queue of events ordered by (time, sequence): equal times come out first in, first out.
///
/// The key is 128 bits, time above sequence, 64 bits each, so nothing wraps. A 4-ary heap over separate arrays of keys
/// and payloads: four keys share a cache line, and sifting compares keys only.
#[derive(Clone, Debug)]
pub struct EventQueue<T> {
    keys: Vec<u128>,
    payloads: Vec<T>,
    next: u64,
}

impl<T> Default for EventQueue<T> {
    fn default() -> Self {
        Self { keys: Vec::new(), payloads: Vec::new(), next: 0 }
    }
}

impl<T: Copy> EventQueue<T> {
    /// Schedules `payload` at `time` (picoseconds).
    pub fn push(&mut self, time: u64, payload: T) {
        let key = u128::from(time) << 64 | u128::from(self.next);
        self.next += 1;
        self.keys.push(key);
        self.payloads.push(payload);
        let mut hole = self.keys.len() - 1;
        while hole > 0 {
            let parent = (hole - 1) / 4;
            if self.keys[parent] <= key {
                break;
            }
            self.keys[hole] = self.keys[parent];
            self.payloads[hole] = self.payloads[parent];
            hole = parent;
        }
        self.keys[hole] = key;
        self.payloads[hole] = payload;
    }

    /// The earliest event, removed.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let key = *self.keys.first()?;
        let payload = self.payloads[0];
        let last_key = self.keys.pop()?;
        let last = self.payloads.pop()?;
        let len = self.keys.len();
        if len > 0 {
            let mut hole = 0;
            loop {
                let child = 4 * hole + 1;
                if child >= len {
                    break;
                }
                let mut least = child;
                for c in child + 1..(child + 4).min(len) {
                    if self.keys[c] < self.keys[least] {
                        least = c;
                    }
                }
                if self.keys[least] >= last_key {
                    break;
                }
                self.keys[hole] = self.keys[least];
                self.payloads[hole] = self.payloads[least];
                hole = least;
            }
            self.keys[hole] = last_key;
            self.payloads[hole] = last;
        }
        Some(((key >> 64) as u64, payload))
    }

    /// The time of the earliest event.
    pub fn peek_time(&self) -> Option<u64> {
        self.keys.first().map(|k| (k >> 64) as u64)
    }

    /// The number of pending events.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
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
