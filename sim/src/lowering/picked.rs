//! Experts of a layer that a policy picked to run together.

/// Which slots of a layer a list of token counts belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Slots<'a> {
    /// Consecutive ones, from this one on.
    From(usize),
    /// One a count.
    Each(&'a [u32]),
}

impl Slots<'_> {
    pub(super) fn at(&self, i: usize) -> usize {
        match self {
            Self::From(first) => first + i,
            Self::Each(list) => list[i] as usize,
        }
    }
}

/// Experts that a policy picked to run together.
#[derive(Clone, Debug, Default)]
pub struct Picked {
    slots: Vec<u32>,
    /// Tokens of each.
    pub tokens: Vec<u32>,
}

impl Picked {
    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.tokens.clear();
    }
    /// Adds the expert in `slot` with so many tokens.
    pub fn push(&mut self, slot: usize, tokens: u32) {
        self.slots.push(slot as u32);
        self.tokens.push(tokens);
    }
    /// The slot of each.
    pub fn slots(&self) -> Slots<'_> {
        Slots::Each(&self.slots)
    }
    /// (Slot, tokens) of each.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u32)> {
        self.slots.iter().zip(&self.tokens).map(|(&s, &n)| (s as usize, n))
    }
}
