//! The layer on the host's processors.
//!
//! Rows are gathered by expert. An expert with at most [`few`] rows streams its weights: each matrix row is read once,
//! as it is stored, and multiplied with all of the expert's rows in registers (`cpu/stream.rs`), so that memory's
//! bandwidth is the limit. One with more takes the crate `gemm` tile by tile; narrow weights are widened into an f32
//! tile that stays in the L2 cache, and are so read once too (`cpu/tile.rs`). Tasks are blocks of columns of one
//! expert, dealt to rayon's threads; each writes a part of its own, so that results are the same bits on any number of
//! threads.

mod plain;
mod simd;
mod stream;
mod tile;
mod vector;

pub use plain::{copy, norm, read, write};
pub use tile::plain;

use super::route::{Selections, Sorted};
use super::{Expert, Layer, Matrix};
use rayon::prelude::*;
use std::ops::Range;

/// Most rows of an expert whose weights are streamed, by the bytes of a weight. Measured on a Xeon with AVX-512:
/// blocked products of FP32 are as fast from some 50 rows on; narrow weights, which have to be widened before they are
/// packed, streamed faster by a tenth at 80.
pub const fn few(weight_bytes: usize) -> usize {
    if weight_bytes == 4 { 48 } else { 80 }
}
/// Columns of a task that streams.
const NARROW: usize = 32;
/// Columns of a task that multiplies tiles.
const WIDE: usize = 128;

/// Buffers that calls share.
#[derive(Debug, Default)]
pub struct Cpu {
    sorted: Sorted,
    groups: Vec<Group>,
    x: Vec<f32>,
    blocks: Vec<f32>,
    h: Vec<f32>,
    y: Vec<f32>,
}

/// The rows of one expert.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// Its place in the list of routed and then shared experts.
    expert: usize,
    /// Its first row among all.
    first: usize,
    rows: usize,
    intermediate: usize,
    /// Columns of its tasks.
    block: usize,
}

/// Columns of the tasks of so many rows.
fn block(rows: usize, m: &Matrix) -> usize {
    if rows <= few(m.weight_bytes()) { NARROW } else { WIDE }
}

/// A block of columns of a group, and where its results go: `rows x columns`, row major.
struct Task<'a> {
    group: Group,
    from: usize,
    out: &'a mut [f32],
}

impl Task<'_> {
    fn columns(&self) -> usize {
        self.out.len() / self.group.rows
    }
}

impl Cpu {
    /// Outputs `T x H` of tokens `x`.
    ///
    /// Panics on sizes that do not agree and on experts that do not exist.
    pub fn layer(&mut self, layer: &Layer, x: &[f32], s: &Selections, out: &mut [f32]) {
        let hidden = layer.hidden;
        let (tokens, experts) = (x.len() / hidden, layer.experts.len());
        assert_eq!(s.experts.len(), tokens * s.top_k, "places");
        assert_eq!((x.len(), out.len()), (tokens * hidden, tokens * hidden), "tokens");
        let Self { sorted, groups, x: gathered, blocks, h, y } = self;
        sorted.fill(experts, s);
        let routed = sorted.token.len();
        let rows = routed + layer.shared.len() * tokens;
        let of = |expert: usize| layer.experts.get(expert).unwrap_or_else(|| &layer.shared[expert - experts]);
        groups.clear();
        for expert in 0..experts + layer.shared.len() {
            let (first, rows) = match expert.checked_sub(experts) {
                None => (sorted.rows(expert).start, sorted.rows(expert).len()),
                Some(shared) => (routed + shared * tokens, tokens),
            };
            if rows > 0 {
                of(expert).check(hidden);
                let (intermediate, block) = (of(expert).intermediate, block(rows, &of(expert).first));
                groups.push(Group { expert, first, rows, intermediate, block });
            }
        }
        gathered.resize(rows * hidden, 0.0);
        gathered.par_chunks_mut(hidden).enumerate().for_each(|(row, to)| {
            let token = sorted.token.get(row).map_or_else(|| (row - routed) % tokens, |t| *t as usize);
            to.copy_from_slice(&x[token * hidden..(token + 1) * hidden]);
        });
        let inner: usize = groups.iter().map(|g| g.rows * g.intermediate).sum();
        blocks.resize(inner, 0.0);
        h.resize(inner, 0.0);
        let width = |g: &Group| g.intermediate;
        let each = |mut t: Task| up(of(t.group.expert), hidden, &gathered[t.group.first * hidden..], &mut t);
        tasks(groups, blocks, width).into_par_iter().with_max_len(1).for_each(each);
        // Activations row by row, for products that are long.
        parts(groups, h).into_par_iter().for_each(|(g, at, h)| {
            for (b, from) in (0..g.intermediate).step_by(g.block).enumerate() {
                let columns = g.block.min(g.intermediate - from);
                let own = &blocks[at + b * g.block * g.rows..];
                for (r, row) in own.chunks(columns).take(g.rows).enumerate() {
                    h[r * g.intermediate + from..][..columns].copy_from_slice(row);
                }
            }
        });
        y.resize(rows * hidden, 0.0);
        let starts: Vec<usize> =
            groups.iter().scan(0, |at, g| Some(std::mem::replace(at, *at + g.rows * g.intermediate))).collect();
        let each = |mut t: Task| {
            let i = groups.partition_point(|g| g.expert < t.group.expert);
            down(of(t.group.expert), &h[starts[i]..], &mut t);
        };
        tasks(groups, y, |_| hidden).into_par_iter().with_max_len(1).for_each(each);
        self.combine(layer, s, out);
    }

    /// A dense product `out = x W^T` of a matrix of `columns x depth`, with the same code as experts'.
    ///
    /// Panics on sizes that do not agree.
    pub fn gemm(&mut self, w: &Matrix, columns: usize, depth: usize, x: &[f32], out: &mut [f32]) {
        let rows = x.len() / depth;
        assert!(w.len() == columns * depth && x.len() == rows * depth && out.len() == rows * columns, "sizes");
        let group = Group { expert: 0, first: 0, rows, intermediate: columns, block: block(rows, w) };
        self.y.resize(out.len(), 0.0);
        tasks(&[group], &mut self.y, |g| g.intermediate).into_par_iter().with_max_len(1).for_each(|t| {
            let block = t.from..t.from + t.columns();
            tile::with_scratch(|s| product(w, block, depth, x, t.out, &mut s.tile));
        });
        let y = &self.y;
        out.par_chunks_mut(columns).enumerate().for_each(|(row, out)| {
            for (b, out) in out.chunks_mut(group.block).enumerate() {
                let at = b * group.block * rows + row * out.len();
                out.copy_from_slice(&y[at..at + out.len()]);
            }
        });
    }

    /// The weighted sum of every token's rows.
    fn combine(&self, layer: &Layer, s: &Selections, out: &mut [f32]) {
        let (hidden, tokens) = (layer.hidden, out.len() / layer.hidden);
        let routed = self.sorted.token.len();
        // A row's results lie in blocks of columns.
        let add = |out: &mut [f32], weight: f32, row: usize| {
            let g = &self.groups[self.groups.partition_point(|g| g.first + g.rows <= row)];
            for (b, out) in out.chunks_mut(g.block).enumerate() {
                let at = g.first * hidden + b * g.block * g.rows + (row - g.first) * out.len();
                out.iter_mut().zip(&self.y[at..]).for_each(|(o, y)| *o += weight * y);
            }
        };
        out.par_chunks_mut(hidden).enumerate().for_each(|(t, out)| {
            out.fill(0.0);
            for place in t * s.top_k..(t + 1) * s.top_k {
                if self.sorted.row[place] != u32::MAX {
                    add(out, s.weights[place], self.sorted.row[place] as usize);
                }
            }
            (0..layer.shared.len()).for_each(|e| add(out, 1.0, routed + e * tokens + t));
        });
    }
}

/// Cuts `out` into the tasks of all groups, whose results are `rows x width`.
fn tasks<'a>(groups: &[Group], mut out: &'a mut [f32], width: impl Fn(&Group) -> usize) -> Vec<Task<'a>> {
    let mut list = Vec::new();
    for g in groups {
        let mut from = 0;
        while from < width(g) {
            let columns = g.block.min(width(g) - from);
            let (own, rest) = out.split_at_mut(columns * g.rows);
            list.push(Task { group: *g, from, out: own });
            out = rest;
            from += columns;
        }
    }
    list
}

/// Cuts activations by group: the group, where it begins, its part.
fn parts<'a>(groups: &[Group], mut h: &'a mut [f32]) -> Vec<(Group, usize, &'a mut [f32])> {
    let (mut list, mut at) = (Vec::new(), 0);
    for g in groups {
        let (own, rest) = h.split_at_mut(g.rows * g.intermediate);
        list.push((*g, at, own));
        at += g.rows * g.intermediate;
        h = rest;
    }
    list
}

/// `silu(x W1[gate]) * (x W1[up])` for a block of the expert's inner columns.
fn up(e: &Expert, hidden: usize, x: &[f32], t: &mut Task) {
    let (rows, columns) = (t.group.rows, t.columns());
    tile::with_scratch(|s| {
        let tile::Scratch { tile, gate, up } = s;
        for (sums, from) in [(&mut *gate, t.from), (&mut *up, e.intermediate + t.from)] {
            sums.resize(rows * columns, 0.0);
            product(&e.first, from..from + columns, hidden, x, sums, tile);
        }
        simd::activate(gate, up, t.out);
    });
}

/// `h W2` for a block of the model's columns.
fn down(e: &Expert, h: &[f32], t: &mut Task) {
    let block = t.from..t.from + t.columns();
    tile::with_scratch(|s| product(&e.second, block, e.intermediate, h, t.out, &mut s.tile));
}

/// The product that suits the number of rows.
fn product(m: &Matrix, block: Range<usize>, depth: usize, x: &[f32], out: &mut [f32], tile: &mut Vec<f32>) {
    if out.len() <= few(m.weight_bytes()) * block.len() {
        stream::product(m, block, depth, x, out);
    } else {
        tile::product(m, block, depth, x, out, tile);
    }
}
