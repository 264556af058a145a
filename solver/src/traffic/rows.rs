//! Rows of a trace that a search looks at again and again.

use super::MISSING;
use moesim_core::Result;
use moesim_traces::Trace;
use std::ops::Range;

/// Tokens with the experts that they selected in every layer, and whose turn each is among an expert's replicas.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// MoE layers.
    pub layers: usize,
    /// Places of a token in a layer.
    pub k: usize,
    ids: Vec<u16>,
    turns: Vec<u64>,
    /// Tokens of each (layer, expert): where they begin in `of`.
    first: Vec<u32>,
    of: Vec<u32>,
    experts: usize,
}

/// Numbers of a sequence's rows: its prompt's positions, then those of its output.
pub(super) fn positions(s: &moesim_traces::Sequence, width: usize) -> impl Iterator<Item = u64> + use<> {
    let rows = (s.prefill.len() + s.decode.len()) / width;
    0..rows as u64
}

impl Rows {
    /// Rows of `tokens`: (turn, ids of all layers).
    pub fn new(layers: usize, k: usize, experts: usize, tokens: impl Iterator<Item = (u64, Vec<u16>)>) -> Self {
        let mut rows = Self { layers, k, experts, ..Self::default() };
        for (turn, ids) in tokens {
            rows.turns.push(turn);
            rows.ids.extend(ids);
        }
        rows.index();
        rows
    }

    /// At most `most` rows of the sequences `range` of `trace`, spread evenly over them.
    ///
    /// # Errors
    /// A sequence with an id beyond the trace's experts.
    pub fn sample(trace: &Trace, range: Range<usize>, most: usize) -> Result<Self> {
        let width = trace.width();
        let mut rows = Self { layers: trace.layers(), k: trace.k(), experts: trace.experts(), ..Self::default() };
        let len = |i: usize| {
            let s = trace.sequence(i);
            (s.prefill.len() + s.decode.len()) / width
        };
        let all: usize = range.clone().map(len).sum();
        let (mut seen, most) = (0usize, most.max(1).min(all));
        for i in range {
            trace.check_sequence(i)?;
            let s = trace.sequence(i);
            let ids = s.prefill.chunks_exact(width).chain(s.decode.chunks_exact(width));
            for (row, position) in ids.zip(positions(&s, width)) {
                // Row r is taken if a multiple of all / most lies in [r, r + 1).
                let (before, after) = (seen as u128 * most as u128, (seen as u128 + 1) * most as u128);
                if after / all as u128 > before / all as u128 {
                    rows.turns.push(i as u64 + position);
                    rows.ids.extend_from_slice(row);
                }
                seen += 1;
            }
        }
        rows.index();
        Ok(rows)
    }

    fn index(&mut self) {
        let (cells, width) = (self.layers * self.experts, self.layers * self.k);
        self.first = vec![0; cells + 1];
        let cell = |i: usize, e: u16| (i % width) / self.k * self.experts + usize::from(e);
        for (i, &e) in self.ids.iter().enumerate().filter(|(_, e)| **e != MISSING) {
            self.first[cell(i, e) + 1] += 1;
        }
        for i in 0..cells {
            self.first[i + 1] += self.first[i];
        }
        let mut at = self.first.clone();
        self.of = vec![0; self.first[cells] as usize];
        for (i, &e) in self.ids.iter().enumerate().filter(|(_, e)| **e != MISSING) {
            let next = &mut at[cell(i, e)];
            self.of[*next as usize] = (i / width) as u32;
            *next += 1;
        }
    }

    /// How many tokens.
    pub fn tokens(&self) -> usize {
        self.turns.len()
    }
    /// Experts a layer.
    pub fn experts(&self) -> usize {
        self.experts
    }
    /// The experts of token `t` in a layer, in the order of the gate.
    #[inline]
    pub fn ids(&self, t: usize, layer: usize) -> &[u16] {
        let at = (t * self.layers + layer) * self.k;
        &self.ids[at..at + self.k]
    }
    /// Whose turn it is among an expert's replicas: sequence + position.
    #[inline]
    pub fn turn(&self, t: usize) -> u64 {
        self.turns[t]
    }
    /// Tokens that selected an expert.
    pub fn of(&self, layer: usize, expert: usize) -> &[u32] {
        let at = layer * self.experts + expert;
        &self.of[self.first[at] as usize..self.first[at + 1] as usize]
    }
    /// How many tokens selected both of two experts of a layer: `experts x experts`, the diagonal counting each once.
    pub fn pairs(&self, layer: usize) -> Vec<f64> {
        let mut pairs = vec![0.0; self.experts * self.experts];
        for t in 0..self.tokens() {
            let ids = self.ids(t, layer);
            for &a in ids.iter().filter(|e| **e != MISSING) {
                for &b in ids.iter().filter(|e| **e != MISSING) {
                    pairs[usize::from(a) * self.experts + usize::from(b)] += 1.0;
                }
            }
        }
        pairs
    }
    /// How many tokens with `a` first in `layer` selected `b` in the next: `experts x experts`.
    pub fn next(&self, layer: usize) -> Vec<f64> {
        let mut next = vec![0.0; self.experts * self.experts];
        for t in 0..self.tokens() {
            let a = self.ids(t, layer)[0];
            for &b in self.ids(t, layer + 1).iter().filter(|e| **e != MISSING && a != MISSING) {
                next[usize::from(a) * self.experts + usize::from(b)] += 1.0;
            }
        }
        next
    }
}
