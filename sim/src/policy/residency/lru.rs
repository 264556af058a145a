//! Least-recently-used order over small integer keys, without hashing.

const NONE: u32 = u32::MAX;

/// Keys `0..keys` of which at most `capacity` bytes are held, in the order of their last use.
///
/// ```
/// use moesim::policy::residency::Lru;
///
/// let mut cache = Lru::new(3, 2);
/// assert!(!cache.touch(0) && cache.insert(0, 1, |_| false) && cache.insert(1, 1, |_| false));
/// // 0 was used last, so that 1 makes room for 2.
/// assert!(cache.touch(0) && cache.insert(2, 1, |_| false));
/// assert!(cache.holds(0) && !cache.holds(1));
/// ```
#[derive(Clone, Debug)]
pub struct Lru {
    // Doubly linked list through arrays; `held` marks membership.
    newer: Vec<u32>,
    older: Vec<u32>,
    held: Vec<bool>,
    bytes: Vec<u64>,
    newest: u32,
    oldest: u32,
    used: u64,
    capacity: u64,
    leaving: Vec<u32>,
}

impl Lru {
    /// Holds nothing yet.
    pub fn new(keys: usize, capacity: u64) -> Self {
        Self {
            newer: vec![NONE; keys],
            older: vec![NONE; keys],
            held: vec![false; keys],
            bytes: vec![0; keys],
            newest: NONE,
            oldest: NONE,
            used: 0,
            capacity,
            leaving: Vec::new(),
        }
    }
    /// Whether `key` is held.
    pub fn holds(&self, key: u32) -> bool {
        self.held[key as usize]
    }
    /// Marks `key` as just used; whether it was held.
    pub fn touch(&mut self, key: u32) -> bool {
        let held = self.held[key as usize];
        if held {
            self.unlink(key);
            self.link(key);
        }
        held
    }
    /// Takes in `key` of so many `bytes`, which is not held, evicting the least recently used that are not `pinned`; false
    /// if that would not make room, and then nothing leaves.
    pub fn insert(&mut self, key: u32, bytes: u64, pinned: impl Fn(u32) -> bool) -> bool {
        let excess = (self.used + bytes).saturating_sub(self.capacity);
        let (mut freed, mut at) = (0, self.oldest);
        self.leaving.clear();
        while freed < excess && at != NONE {
            if !pinned(at) {
                freed += self.bytes[at as usize];
                self.leaving.push(at);
            }
            at = self.newer[at as usize];
        }
        if freed < excess {
            return false;
        }
        for i in 0..self.leaving.len() {
            let victim = self.leaving[i];
            self.unlink(victim);
            self.held[victim as usize] = false;
        }
        self.held[key as usize] = true;
        self.bytes[key as usize] = bytes;
        self.used = self.used - freed + bytes;
        self.link(key);
        true
    }

    fn unlink(&mut self, key: u32) {
        let (newer, older) = (self.newer[key as usize], self.older[key as usize]);
        if newer == NONE {
            self.newest = older
        } else {
            self.older[newer as usize] = older
        }
        if older == NONE { self.oldest = newer } else { self.newer[older as usize] = newer }
    }
    fn link(&mut self, key: u32) {
        self.newer[key as usize] = NONE;
        self.older[key as usize] = self.newest;
        if self.newest == NONE {
            self.oldest = key
        } else {
            self.newer[self.newest as usize] = key
        }
        self.newest = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain list, oldest first; key k has `sizes[k]` bytes.
        #[test]
        fn equals_a_list(
            uses in prop::collection::vec((0u32..12, any::<u16>()), 0..200),
            sizes in prop_oneof![Just(vec![1u64; 12]), prop::collection::vec(1u64..4, 12)],
            capacity in 0u64..8,
        ) {
            let mut lru = Lru::new(12, capacity);
            let mut list: Vec<u32> = Vec::new();
            let bytes = |list: &[u32]| list.iter().map(|&k| sizes[k as usize]).sum::<u64>();
            for (key, pins) in uses {
                let pinned = |k: u32| pins >> k & 1 == 1;
                let held = list.contains(&key);
                prop_assert_eq!(lru.touch(key), held);
                if held {
                    list.retain(|&k| k != key);
                    list.push(key);
                    continue;
                }
                let mut kept = list.clone();
                while bytes(&kept) + sizes[key as usize] > capacity && kept.iter().any(|&k| !pinned(k)) {
                    kept.remove(kept.iter().position(|&k| !pinned(k)).unwrap());
                }
                let fits = bytes(&kept) + sizes[key as usize] <= capacity;
                prop_assert_eq!(lru.insert(key, sizes[key as usize], pinned), fits);
                if fits {
                    kept.push(key);
                    list = kept;
                }
                prop_assert!((0..12).all(|k| lru.holds(k) == list.contains(&k)) && lru.used == bytes(&list));
            }
        }
    }
}
