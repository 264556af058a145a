//! Least-recently-used order over small integer keys, without hashing.

const NONE: u32 = u32::MAX;

/// Keys `0..keys` of which at most `capacity` are held, in the order of their last use.
#[derive(Clone, Debug)]
pub struct Lru {
    // Doubly linked list through arrays; `held` marks membership.
    newer: Vec<u32>,
    older: Vec<u32>,
    held: Vec<bool>,
    newest: u32,
    oldest: u32,
    len: usize,
    capacity: usize,
}

impl Lru {
    /// Holds nothing yet.
    pub fn new(keys: usize, capacity: usize) -> Self {
        Self {
            newer: vec![NONE; keys],
            older: vec![NONE; keys],
            held: vec![false; keys],
            newest: NONE,
            oldest: NONE,
            len: 0,
            capacity,
        }
    }
    /// Whether `key` is held.
    #[cfg(test)]
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
    /// Takes in `key`, which is not held, evicting the least recently used that is not `pinned`; false if all are.
    pub fn insert(&mut self, key: u32, pinned: impl Fn(u32) -> bool) -> bool {
        if self.len == self.capacity {
            let mut victim = self.oldest;
            while victim != NONE && pinned(victim) {
                victim = self.newer[victim as usize];
            }
            if victim == NONE {
                return false;
            }
            self.unlink(victim);
            self.held[victim as usize] = false;
            self.len -= 1;
        }
        self.held[key as usize] = true;
        self.len += 1;
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
        /// Against a plain list, oldest first.
        #[test]
        fn equals_a_list(uses in prop::collection::vec((0u32..12, any::<u16>()), 0..200), capacity in 0usize..6) {
            let mut lru = Lru::new(12, capacity);
            let mut list: Vec<u32> = Vec::new();
            for (key, pins) in uses {
                let pinned = |k: u32| pins >> k & 1 == 1;
                let held = list.contains(&key);
                prop_assert_eq!(lru.touch(key), held);
                if held {
                    list.retain(|&k| k != key);
                    list.push(key);
                } else {
                    let room = list.len() < capacity;
                    let victim = list.iter().position(|&k| !pinned(k));
                    prop_assert_eq!(lru.insert(key, pinned), room || victim.is_some());
                    if !room && let Some(v) = victim {
                        list.remove(v);
                    }
                    if room || victim.is_some() {
                        list.push(key);
                    }
                }
            }
        }
    }
}
