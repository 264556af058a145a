//! The least of many keys that change.

/// A tournament: every leaf has a key, every vertex above is the smaller of two, the left one of equals.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// Leaves are the last `width`; vertex v is above 2v and 2v + 1.
    keys: Vec<(u64, u32)>,
    width: usize,
}

impl Tree {
    /// `count` leaves with the largest key.
    pub(super) fn clear(&mut self, count: usize) {
        self.width = count.max(1).next_power_of_two();
        self.keys.clear();
        self.keys.resize(2 * self.width, (u64::MAX, u32::MAX));
    }

    pub(super) fn len(&self) -> usize {
        self.width
    }

    /// The least key and its leaf.
    pub(super) fn first(&self) -> (u64, u32) {
        self.keys[1]
    }

    /// Changes a key.
    pub(super) fn set(&mut self, leaf: usize, key: u64) {
        self.put(leaf, key);
        let mut v = (self.width + leaf) / 2;
        while v > 0 {
            self.keys[v] = self.keys[2 * v].min(self.keys[2 * v + 1]);
            v /= 2;
        }
    }

    /// Changes a key; [`Tree::first`] knows after [`Tree::rebuild`].
    pub(super) fn put(&mut self, leaf: usize, key: u64) {
        self.keys[self.width + leaf] = (key, leaf as u32);
    }

    pub(super) fn rebuild(&mut self) {
        for v in (1..self.width).rev() {
            self.keys[v] = self.keys[2 * v].min(self.keys[2 * v + 1]);
        }
    }
}
