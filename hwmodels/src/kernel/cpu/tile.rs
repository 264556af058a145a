//! Many rows: products over the crate `gemm`, with narrow weights widened tile by tile.

use super::simd::widest;
use crate::kernel::{Matrix, number};
use gemm::Parallelism;
use std::cell::RefCell;
use std::ops::Range;

/// Columns of a tile: with the block's rows it fits the L2 cache.
const DEEP: usize = 1024;

/// Buffers of a thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) tile: Vec<f32>,
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends this thread's buffers. Nothing below waits for other tasks, so that they are lent once.
pub(super) fn with_scratch<T>(use_it: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(use_it)
}

/// `out = x W[block]^T`: `x` is `rows x depth`, the matrix has `depth` columns, `out` is `rows x block`.
pub(super) fn product(m: &Matrix, block: Range<usize>, depth: usize, x: &[f32], out: &mut [f32], tile: &mut Vec<f32>) {
    let columns = block.len();
    let rows = out.len() / columns;
    assert!(x.len() >= rows * depth && out.len() == rows * columns && m.len() >= block.end * depth, "sizes");
    if let Matrix::F32(w) = m {
        return multiply(x, depth, &w[block.start * depth..], depth, out, [rows, columns, depth], false);
    }
    for from in (0..depth).step_by(DEEP) {
        let deep = DEEP.min(depth - from);
        tile.resize(columns * deep, 0.0);
        for (row, to) in block.clone().zip(tile.chunks_mut(deep)) {
            let at = row * depth + from..row * depth + from + deep;
            match m {
                Matrix::F32(_) => {}
                Matrix::Bf16(w) => widen_bf16(&w[at], to),
                Matrix::Int8 { values, scales } => widen_i8(&values[at], scales[row], to),
                Matrix::Fp8 { values, scales } => {
                    to.iter_mut().zip(&values[at]).for_each(|(t, v)| *t = number::from_e4m3(*v) * scales[row]);
                }
            }
        }
        multiply(&x[from..], depth, tile, deep, out, [rows, columns, deep], from > 0);
    }
}

/// `out (+)= x w^T`, with rows of `x` and `w` this far apart.
fn multiply(x: &[f32], x_step: usize, w: &[f32], w_step: usize, out: &mut [f32], size: [usize; 3], add: bool) {
    let [rows, columns, deep] = size;
    assert!(x.len() >= (rows - 1) * x_step + deep && w.len() >= (columns - 1) * w_step + deep, "sizes");
    assert_eq!(out.len(), rows * columns, "sizes");
    let step = |n: usize| n as isize;
    // SAFETY: all that is read or written lies in the slices, by the assertions above; `out` overlaps no operand.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            deep,
            out.as_mut_ptr(),
            1,
            step(columns),
            add,
            x.as_ptr(),
            1,
            step(x_step),
            w.as_ptr(),
            step(w_step),
            1,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `out = a b^T` of `rows x depth` and `columns x depth` on `threads` threads: the crate's own plain product, which the
/// layer is compared with.
pub fn plain(a: &[f32], b: &[f32], out: &mut [f32], [rows, columns, depth]: [usize; 3], threads: usize) {
    assert!(a.len() == rows * depth && b.len() == columns * depth && out.len() == rows * columns, "sizes");
    let step = |n: usize| n as isize;
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    // SAFETY: all that is read or written lies in the slices, by the assertion above; `out` overlaps no operand.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            out.as_mut_ptr(),
            1,
            step(columns),
            false,
            a.as_ptr(),
            1,
            step(depth),
            b.as_ptr(),
            step(depth),
            1,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

widest! { fn widen_bf16(from: &[u16], to: &mut [f32]), bf16 }
widest! { fn widen_i8(from: &[i8], scale: f32, to: &mut [f32]), i8_ }

#[inline(always)]
fn bf16<const FMA: bool>(from: &[u16], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t = number::from_bf16(*f));
}

#[inline(always)]
fn i8_<const FMA: bool>(from: &[i8], scale: f32, to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t = f32::from(*f) * scale);
}
