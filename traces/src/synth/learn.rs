//! Fitting one layer to recorded sequences: the likelihood of the recorded draws, raised by stochastic gradient ascent.
//!
//! The log-likelihood of a row is that of its draws in gate order (Plackett 1975, Luce 1959), each a softmax over the experts
//! not drawn yet; its gradient with respect to an expert's log-weight is `[drawn] - probability`. Histories are the recorded
//! ones. Steps are scaled by AdaGrad (Duchi, Hazan, Singer 2011); every log-factor is drawn to 0 by a normal prior of
//! standard deviation 1, so that pairs seen rarely say little.

use super::router::{Layer, Memory, Mix, total};
use crate::trace::MISSING;

/// Rows between two steps.
const BATCH: usize = 512;
/// Passes over the rows.
const PASSES: usize = 6;
/// Length of the first step of a log-factor.
const STEP: f32 = 0.15;

/// One layer's recorded selections: sequences of rows, each with the experts of the layer before.
pub(super) struct Record<'a> {
    /// Per sequence: its topic and its rows of whole traces.
    pub(super) sequences: &'a [(usize, &'a [u16])],
    /// Ids in a row, experts a token.
    pub(super) width: usize,
    pub(super) k: usize,
    /// Which MoE layer.
    pub(super) layer: usize,
}

impl<'a> Record<'a> {
    fn ids(&self, row: &'a [u16], layer: usize) -> &'a [u16] {
        &row[layer * self.k..(layer + 1) * self.k]
    }
}

/// Log-factors with their AdaGrad sums.
struct Logs {
    value: Vec<f32>,
    gradient: Vec<f32>,
    squares: Vec<f32>,
}

impl Logs {
    fn new(n: usize) -> Self {
        Self { value: vec![0.0; n], gradient: vec![0.0; n], squares: vec![0.0; n] }
    }
    /// One step; `shrink` is the prior's share of the batch. The factors follow.
    fn step(&mut self, shrink: f32, reach: f32, factors: &mut [f32]) {
        for (((v, g), s), f) in self.value.iter_mut().zip(&mut self.gradient).zip(&mut self.squares).zip(factors) {
            let slope = *g - shrink * *v;
            *g = 0.0;
            if slope == 0.0 {
                continue;
            }
            *s += slope * slope;
            *v = (*v + STEP * slope / s.sqrt()).clamp(-reach, reach);
            *f = libm::expf(*v);
        }
    }
}

/// The log-factors of a layer's tables, and of its blend.
struct Factors {
    bias: Logs,
    next: Logs,
    pair: Logs,
    /// Log-weights of the blend and of alpha.
    blend: Logs,
}

impl Factors {
    fn new(layer: &Layer) -> Self {
        let [bias, next, pair] = [&layer.bias, &layer.next, &layer.pair].map(|table| Logs::new(table.len()));
        let mut blend = Logs::new(6);
        let start: Vec<f32> = layer.mix.weights().iter().chain([&layer.alpha]).map(|x| libm::logf(*x)).collect();
        blend.value.copy_from_slice(&start);
        Self { bias, next, pair, blend }
    }
    /// One step of all of them; the layer follows.
    fn step(&mut self, shrink: f32, reach: f32, layer: &mut Layer) {
        self.bias.step(shrink, reach, &mut layer.bias);
        self.next.step(shrink, reach, &mut layer.next);
        self.pair.step(shrink, reach, &mut layer.pair);
        step_blend(&mut self.blend, layer);
    }
}

/// Largest log-factor, so that no product of `k` factors of each table leaves what an f32 holds.
pub(super) fn reach(k: usize) -> f32 {
    (32.0 / k as f32).min(4.0)
}

/// Fits everything of `layer` but its topics, in place.
pub(super) fn learn(layer: &mut Layer, record: &Record, order: &[usize]) {
    let reach = reach(record.k);
    let total: usize = order.iter().map(|&s| record.sequences[s].1.len() / record.width).sum();
    let mut factors = Factors::new(layer);
    let mut s = Scratch::new(layer.bias.len());
    let mut rows = 0;
    for _ in 0..PASSES {
        for &at in order {
            let (topic, sequence) = record.sequences[at];
            let mut memory = Memory::new(layer.topic(topic));
            for row in sequence.chunks_exact(record.width) {
                let before = if layer.next.is_empty() { &[][..] } else { record.ids(row, record.layer - 1) };
                s.row(layer, topic, &memory, before, record.ids(row, record.layer));
                s.gradients(layer, topic, &memory, before, &mut factors);
                memory.push(&s.drawn);
                rows += 1;
                if rows % BATCH == 0 {
                    factors.step(BATCH as f32 / total.max(1) as f32, reach, layer);
                }
            }
        }
    }
}

fn step_blend(blend: &mut Logs, layer: &mut Layer) {
    let mut factors = [0.0f32; 6];
    factors[..5].copy_from_slice(&layer.mix.weights());
    factors[5] = layer.alpha;
    blend.step(0.0, 9.0, &mut factors);
    let sum: f32 = factors[..5].iter().sum();
    // Shares sum to 1; none vanishes for good.
    let share = |i: usize| (factors[i] / sum).max(1e-3);
    let all: f32 = (0..5).map(share).sum();
    layer.mix = Mix::new([0, 1, 2, 3, 4].map(|i| share(i) / all));
    layer.alpha = factors[5].clamp(1.0, 1000.0);
    for (v, w) in blend.value.iter_mut().zip(layer.mix.weights().iter().chain([&layer.alpha])) {
        *v = libm::logf(*w);
    }
}

/// One row under work.
struct Scratch {
    drawn: Vec<u16>,
    mix: Vec<f32>,
    weights: Vec<f32>,
    /// Sum of the log-weights' gradients over the draws.
    slope: Vec<f32>,
    /// Gradients of each draw, for `pair`.
    draws: Vec<f32>,
}

impl Scratch {
    fn new(experts: usize) -> Self {
        let zero = || vec![0.0; experts];
        Self { drawn: Vec::new(), mix: zero(), weights: zero(), slope: zero(), draws: Vec::new() }
    }

    /// Gradients of the row's log-weights.
    fn row(&mut self, layer: &Layer, topic: usize, memory: &Memory, before: &[u16], ids: &[u16]) {
        let experts = self.mix.len();
        self.drawn.clear();
        for &e in ids {
            if e != MISSING && !self.drawn.contains(&e) {
                self.drawn.push(e);
            }
        }
        layer.blend(layer.topic(topic), memory, &mut self.mix);
        let w = &mut self.weights;
        w.iter_mut().zip(&self.mix).zip(&layer.bias).for_each(|((w, m), b)| *w = m * b);
        for &f in before.iter().filter(|f| **f != MISSING) {
            let row = &layer.next[usize::from(f) * experts..][..experts];
            w.iter_mut().zip(row).for_each(|(w, x)| *w *= x);
        }
        self.slope.fill(0.0);
        self.draws.clear();
        for &e in &self.drawn {
            let total: f32 = total(w);
            let scale = 1.0 / total;
            let start = self.draws.len();
            self.draws.extend(w.iter().map(|w| -w * scale));
            self.draws[start + usize::from(e)] += 1.0;
            self.slope.iter_mut().zip(&self.draws[start..]).for_each(|(s, d)| *s += d);
            if !layer.pair.is_empty() {
                let row = &layer.pair[usize::from(e) * experts..][..experts];
                w.iter_mut().zip(row).for_each(|(w, x)| *w *= x);
            }
            w[usize::from(e)] = 0.0;
        }
    }

    /// Adds the gradients of the row to those of the factors.
    fn gradients(&self, layer: &Layer, topic: usize, memory: &Memory, before: &[u16], to: &mut Factors) {
        let Factors { bias, next, pair, blend } = to;
        let experts = self.mix.len();
        let add = |to: &mut [f32], from: &[f32]| to.iter_mut().zip(from).for_each(|(t, f)| *t += f);
        add(&mut bias.gradient, &self.slope);
        for &f in before.iter().filter(|f| **f != MISSING) {
            add(&mut next.gradient[usize::from(f) * experts..][..experts], &self.slope);
        }
        if !layer.pair.is_empty() {
            for (i, draw) in self.draws.chunks_exact(experts).enumerate() {
                for &g in &self.drawn[..i] {
                    add(&mut pair.gradient[usize::from(g) * experts..][..experts], draw);
                }
            }
        }
        // d log mix(e) / d log a_j = a_j c_j(e) / mix(e), less a_j for the normalisation, whose sum over e vanishes.
        let (p, m) = (layer.topic(topic), &layer.mix);
        let n = memory.tokens;
        let ratio: Vec<f32> = self.slope.iter().zip(&self.mix).map(|(s, m)| s / m).collect();
        let dot = |c: &dyn Fn(usize) -> f32| ratio.iter().enumerate().map(|(e, r)| r * c(e)).sum::<f32>();
        let topics = dot(&|e| p[e]);
        let counts = dot(&|e| memory.counts[e]);
        let last = if memory.last.is_empty() {
            topics
        } else {
            memory.last.iter().map(|e| ratio[usize::from(*e)]).sum::<f32>() / memory.last.len() as f32
        };
        let urn = (layer.alpha * topics + counts) / (layer.alpha + n);
        let alpha = m.urn * (topics * n - counts) / ((layer.alpha + n) * (layer.alpha + n));
        let slopes = [
            m.topic * topics,
            m.urn * urn,
            m.last * last,
            m.short * dot(&|e| memory.short[e]),
            m.long * dot(&|e| memory.long[e]),
            layer.alpha * alpha,
        ];
        add(&mut blend.gradient, &slopes);
    }
}
