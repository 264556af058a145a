//! Some sequences of a trace.

use crate::trace::{Sequence, Trace};
use moesim_core::Result;
use moesim_core::rng::{shuffle, stream};

/// Some sequences of a trace, which statistics are taken of.
#[derive(Clone)]
pub struct Part<'a> {
    trace: &'a Trace,
    sequences: Vec<u32>,
}

impl<'a> Part<'a> {
    /// All sequences.
    pub fn whole(trace: &'a Trace) -> Self {
        Self { trace, sequences: (0..trace.sequences() as u32).collect() }
    }
    /// Splits the trace at random into `share` of its sequences, at least one, and the rest, at least one if there are two.
    pub fn split(trace: &'a Trace, share: f64, seed: u64) -> (Self, Self) {
        let mut all: Vec<u32> = (0..trace.sequences() as u32).collect();
        let mut r = stream(seed, "split", 0);
        shuffle(&mut all, &mut r);
        let cut = ((all.len() as f64 * share) as usize).clamp(1, (all.len() - 1).max(1));
        let rest = all.split_off(cut);
        let part = |mut sequences: Vec<u32>| {
            sequences.sort_unstable();
            Self { trace, sequences }
        };
        (part(all), part(rest))
    }
    /// Some of its sequences, picked at random, of `limit` ids at most, but at least one of them.
    pub fn some(&self, limit: u64, seed: u64) -> Self {
        let mut all = self.sequences.clone();
        shuffle(&mut all, &mut stream(seed, "part-some", 0));
        let mut ids = 0;
        let mut fits = |i: &u32| {
            ids += self.trace.rows_of(*i as usize).len() as u64;
            ids <= limit
        };
        let kept = all.iter().take_while(|i| fits(i)).count().max(1);
        all.truncate(kept);
        all.sort_unstable();
        Self { trace: self.trace, sequences: all }
    }
    /// The trace.
    pub fn trace(&self) -> &'a Trace {
        self.trace
    }
    /// How many sequences.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }
    /// The sequences.
    pub fn sequences(&self) -> impl Iterator<Item = Sequence<'a>> + '_ {
        self.sequences.iter().map(|i| self.trace.sequence(*i as usize))
    }
    /// All rows of each sequence, prompt rows first.
    pub fn all_rows(&self) -> impl Iterator<Item = &'a [u16]> + '_ {
        self.sequences.iter().map(|i| self.trace.rows_of(*i as usize))
    }
    /// The output rows of each sequence; its prompt rows where it has no output rows.
    pub fn rows(&self) -> impl Iterator<Item = &'a [u16]> + '_ {
        self.sequences().map(|s| if s.decode.is_empty() { s.prefill } else { s.decode })
    }
    /// Checks the rows of every sequence.
    pub fn check(&self) -> Result<()> {
        self.sequences.iter().try_for_each(|i| self.trace.check_sequence(*i as usize))
    }
}
