//! The generator's model of a router, and the drawing of sequences from it.
//!
//! Layer by layer, token by token, k experts are drawn one after the other without replacement, each with a probability
//! proportional to
//!
//! `mix(e) x bias(e) x prod over f of next(f, e) x prod over g of pair(g, e)`
//!
//! where f runs over the token's experts in the MoE layer before and g over those already drawn in this one. `mix` blends five
//! distributions over the experts, which is what gives topics and time their say: the popularity under the sequence's
//! *topic*; the *urn* `(alpha p + n) / (alpha + N)` of what the sequence has selected so far (Hoppe's urn, Blackwell and
//! MacQueen 1973: a sequence finds experts of its own and keeps them); the token *last* before; and two exponentially
//! forgetting means, of some [`SHORT`] and [`LONG`] tokens. `next` and `pair` are what the layer before and the experts
//! of the same token say.

use moesim_core::rng::{Stream, below};
use rand::Rng;
use std::ops::Range;

/// Tokens that the two forgetting means remember.
pub(super) const SHORT: f32 = 4.0;
/// See [`SHORT`].
pub(super) const LONG: f32 = 32.0;

/// Weights of the blended distributions; they sum to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mix {
    pub(super) topic: f32,
    pub(super) urn: f32,
    pub(super) last: f32,
    pub(super) short: f32,
    pub(super) long: f32,
}

impl Mix {
    pub(super) fn new(w: [f32; 5]) -> Self {
        let [topic, urn, last, short, long] = w;
        Self { topic, urn, last, short, long }
    }
    pub(super) fn weights(&self) -> [f32; 5] {
        [self.topic, self.urn, self.last, self.short, self.long]
    }
}

/// One layer. Tables are `topics x E` or `E x E`, row by row.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// Popularity under each topic; each row sums to 1.
    pub(super) topics: Vec<f32>,
    pub(super) mix: Mix,
    /// Tokens that the topic counts for in the urn.
    pub(super) alpha: f32,
    pub(super) bias: Vec<f32>,
    /// What a prompt token's weights are multiplied with. Empty where prompts are like output.
    pub(super) prompt: Vec<f32>,
    /// Row: an expert of the layer before. Empty in the first layer, and where layers are independent.
    pub(super) next: Vec<f32>,
    /// Row: an expert already drawn. Empty where experts are independent.
    pub(super) pair: Vec<f32>,
}

/// What a layer remembers of a sequence.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// Selections so far, in tokens: they sum to the number of tokens.
    pub(super) counts: Vec<f32>,
    pub(super) short: Vec<f32>,
    pub(super) long: Vec<f32>,
    pub(super) last: Vec<u16>,
    pub(super) tokens: f32,
}

impl Memory {
    /// Nothing yet: the forgetting means are the topic's popularity.
    pub(super) fn new(topic: &[f32]) -> Self {
        let last = Vec::new();
        Self { counts: vec![0.0; topic.len()], short: topic.to_vec(), long: topic.to_vec(), last, tokens: 0.0 }
    }
    /// A token selected these experts.
    pub(super) fn push(&mut self, ids: &[u16]) {
        if ids.is_empty() {
            return;
        }
        let share = 1.0 / ids.len() as f32;
        for (mean, span) in [(&mut self.short, SHORT), (&mut self.long, LONG)] {
            mean.iter_mut().for_each(|m| *m *= 1.0 - 1.0 / span);
            ids.iter().for_each(|&e| mean[usize::from(e)] += share / span);
        }
        ids.iter().for_each(|&e| self.counts[usize::from(e)] += share);
        self.tokens += 1.0;
        self.last.clear();
        self.last.extend_from_slice(ids);
    }
}

impl Layer {
    pub(super) fn topic(&self, topic: usize) -> &[f32] {
        let experts = self.bias.len();
        &self.topics[topic * experts..(topic + 1) * experts]
    }

    /// The blend for the next token.
    pub(super) fn blend(&self, p: &[f32], memory: &Memory, mix: &mut [f32]) {
        let m = &self.mix;
        let urn = m.urn / (self.alpha + memory.tokens);
        let last = if memory.last.is_empty() { m.last } else { 0.0 };
        let topic = m.topic + urn * self.alpha + last;
        for ((((x, p), n), short), long) in
            mix.iter_mut().zip(p).zip(&memory.counts).zip(&memory.short).zip(&memory.long)
        {
            *x = topic * p + urn * n + m.short * short + m.long * long;
        }
        let share = m.last / memory.last.len().max(1) as f32;
        memory.last.iter().for_each(|&e| mix[usize::from(e)] += share);
    }

    /// Multiplies the weights by a row of a table.
    fn scale(w: &mut [f32], table: &[f32], row: u16) {
        let (at, experts) = (usize::from(row) * w.len(), w.len());
        w.iter_mut().zip(&table[at..at + experts]).for_each(|(w, f)| *w *= f);
    }

    /// Draws `rows` tokens of a sequence under `topic`, given the `k` experts of each in the layer before; `out` gets
    /// `rows x k` ids, in the order of drawing.
    pub(super) fn walk(&self, memory: &mut Memory, draw: &mut Draw, topic: usize, before: &[u16], out: &mut Vec<u16>) {
        let (k, p) = (draw.k, self.topic(topic));
        for t in 0..draw.rows {
            let w = &mut draw.weights[..];
            self.blend(p, memory, w);
            w.iter_mut().zip(&self.bias).for_each(|(w, b)| *w *= b);
            let prompt = draw.prompts.contains(&t);
            let r = if prompt { &mut draw.prompt_r } else { &mut draw.r };
            if prompt {
                w.iter_mut().zip(&self.prompt).for_each(|(w, f)| *w *= f);
            }
            if !self.next.is_empty() {
                before[t * k..(t + 1) * k].iter().for_each(|&f| Self::scale(w, &self.next, f));
            }
            let start = out.len();
            for i in 0..k {
                let e = pick(w, &mut draw.sums, r);
                out.push(e);
                if i + 1 < k {
                    if !self.pair.is_empty() {
                        Self::scale(w, &self.pair, e);
                    }
                    // Not again; a factor may follow, but 0 stays 0.
                    w[usize::from(e)] = 0.0;
                }
            }
            memory.push(&out[start..]);
        }
    }
}

/// What drawing a sequence needs.
pub(super) struct Draw {
    pub(super) rows: usize,
    /// Those of them that are prompt rows.
    pub(super) prompts: Range<usize>,
    pub(super) k: usize,
    pub(super) weights: Vec<f32>,
    pub(super) sums: Vec<f32>,
    pub(super) r: Stream,
    /// Prompts have a stream of their own: the output is the same, whatever the prompt.
    pub(super) prompt_r: Stream,
}

/// Weights are summed in blocks of so many, in a fixed order: sums vectorise, are the same everywhere, and a draw looks at
/// blocks before it looks into one.
const BLOCK: usize = 16;

/// The sum of a block, in four lanes.
fn sum(block: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 4];
    let parts = block.chunks_exact(4);
    let rest: f32 = parts.remainder().iter().sum();
    for part in parts {
        lanes.iter_mut().zip(part).for_each(|(s, w)| *s += w);
    }
    lanes.iter().sum::<f32>() + rest
}

/// The sum of weights.
pub(super) fn total(weights: &[f32]) -> f32 {
    weights.chunks(BLOCK).map(sum).sum()
}

/// Draws an index with a probability proportional to its weight; the last with any, should rounding pass it by.
fn pick(weights: &[f32], sums: &mut Vec<f32>, r: &mut Stream) -> u16 {
    sums.clear();
    sums.extend(weights.chunks(BLOCK).map(sum));
    // 24 bits are what an f32 holds.
    let mut left = below(r.next_u64(), 1 << 24) as f32 / (1 << 24) as f32 * sums.iter().sum::<f32>();
    for (block, &sum) in sums.iter().enumerate() {
        if left < sum {
            let start = block * BLOCK;
            let end = (start + BLOCK).min(weights.len());
            let mut last = None;
            for (e, &w) in weights[start..end].iter().enumerate().filter(|(_, w)| **w > 0.0) {
                last = Some(start + e);
                if left < w {
                    break;
                }
                left -= w;
            }
            if let Some(e) = last {
                return e as u16;
            }
        }
        left -= sum;
    }
    weights.iter().rposition(|w| *w > 0.0).unwrap_or(0) as u16
}
