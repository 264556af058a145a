//! Few rows: weights are read once, as they are stored, and multiplied in registers.
//!
//! A strip of a few matrix rows and up to [`MOST`] rows of `x` have a sum of products each in a register; both run
//! along K, so that nothing is packed. More rows of `x` take several turns over the strips, which then lie in a cache.

use super::vector::{Plain, Vector};
use crate::kernel::{Matrix, number};
use std::ops::Range;

/// Most rows of `x` in registers.
const MOST: usize = 6;
/// Elements of K a turn, if there are several: the rows of `x` then take half of an L1 cache of 48 KiB.
const DEEP: usize = 1024;

/// A stored weight.
///
/// # Safety
/// As of [`Vector`].
trait Stored: Copy {
    unsafe fn load<V: Vector>(from: *const Self) -> V;
    fn wide(self) -> f32;
}

macro_rules! stored {
    ($($type:ty, $load:ident, $wide:expr;)*) => {
        $(impl Stored for $type {
            #[inline(always)]
            unsafe fn load<V: Vector>(from: *const Self) -> V {
                // SAFETY: the caller's promise.
                unsafe { V::$load(from) }
            }
            #[inline(always)]
            fn wide(self) -> f32 {
                $wide(self)
            }
        })*
    };
}

stored! {
    f32, load, std::convert::identity;
    u16, load_bf16, number::from_bf16;
    i8, load_i8, f32::from;
}

/// `out = x W[block]^T`: `x` is `rows x depth`, the matrix has `depth` columns, `out` is `rows x block`.
pub(super) fn product(m: &Matrix, block: Range<usize>, depth: usize, x: &[f32], out: &mut [f32]) {
    let (columns, at) = (block.len(), block.start * depth..block.end * depth);
    let rows = out.len() / columns;
    assert!(x.len() >= rows * depth && out.len() == rows * columns, "sizes");
    let x = &x[..rows * depth];
    match m {
        Matrix::F32(w) => multiply(&w[at], depth, x, out),
        Matrix::Bf16(w) => multiply(&w[at], depth, x, out),
        Matrix::Int8 { values, .. } => multiply(&values[at], depth, x, out),
        Matrix::Fp8 { values, .. } => {
            // No processor widens these fast; they are here so that other kernels can be compared.
            let wide: Vec<f32> = values[at].iter().map(|v| number::from_e4m3(*v)).collect();
            multiply(&wide, depth, x, out);
        }
    }
    if let Matrix::Int8 { scales, .. } | Matrix::Fp8 { scales, .. } = m {
        for row in out.chunks_mut(columns) {
            row.iter_mut().zip(&scales[block.clone()]).for_each(|(o, s)| *o *= s);
        }
    }
}

/// Under the widest instructions that the processor has.
fn multiply<W: Stored>(w: &[W], depth: usize, x: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use super::vector::x86::{Half, Wide};
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn wide<W: Stored>(w: &[W], depth: usize, x: &[f32], out: &mut [f32]) {
            strips::<Wide, W, 4>(w, depth, x, out);
        }
        #[target_feature(enable = "avx2,fma")]
        fn half<W: Stored>(w: &[W], depth: usize, x: &[f32], out: &mut [f32]) {
            strips::<Half, W, 2>(w, depth, x, out);
        }
        match super::simd::has() {
            // SAFETY: the processor has these instructions.
            (true, _) => return unsafe { wide(w, depth, x, out) },
            (_, true) => return unsafe { half(w, depth, x, out) },
            _ => {}
        }
    }
    strips::<Plain, W, 2>(w, depth, x, out);
}

/// Strip by strip of `S` matrix rows. Where rows take several turns, the depth is cut, so that the rows of a turn stay
/// in the L1 cache while all strips meet them.
#[inline(always)]
fn strips<V: Vector, W: Stored, const S: usize>(w: &[W], depth: usize, x: &[f32], out: &mut [f32]) {
    let columns = w.len() / depth;
    let deep = if x.len() > MOST * depth { DEEP } else { depth };
    for begin in (0..depth).step_by(deep) {
        let part = [begin, (begin + deep).min(depth)];
        for (x, out) in x.chunks(MOST * depth).zip(out.chunks_mut(MOST * columns)) {
            let mut from = 0;
            while from < columns {
                let step = if from + S <= columns { S } else { 1 };
                let w = &w[from * depth..(from + step) * depth];
                if step == S {
                    strip::<V, W, S>(w, depth, part, x, &mut out[from..], columns);
                } else {
                    strip::<V, W, 1>(w, depth, part, x, &mut out[from..], columns);
                }
                from += step;
            }
        }
    }
}

#[inline(always)]
fn strip<V: Vector, W: Stored, const S: usize>(
    w: &[W],
    depth: usize,
    part: [usize; 2],
    x: &[f32],
    out: &mut [f32],
    columns: usize,
) {
    match x.len() / depth {
        1 => sums::<V, W, S, 1>(w, depth, part, x, out, columns),
        2 => sums::<V, W, S, 2>(w, depth, part, x, out, columns),
        3 => sums::<V, W, S, 3>(w, depth, part, x, out, columns),
        4 => sums::<V, W, S, 4>(w, depth, part, x, out, columns),
        5 => sums::<V, W, S, 5>(w, depth, part, x, out, columns),
        _ => sums::<V, W, S, MOST>(w, depth, part, x, out, columns),
    }
}

/// `S x R` sums of products over a part of the depth; the first part's begin the outputs, others add to them.
#[inline(always)]
fn sums<V: Vector, W: Stored, const S: usize, const R: usize>(
    w: &[W],
    depth: usize,
    [begin, end]: [usize; 2],
    x: &[f32],
    out: &mut [f32],
    columns: usize,
) {
    assert!(w.len() == S * depth && x.len() == R * depth && begin < end && end <= depth, "sizes");
    let whole = end - (end - begin) % V::LANES;
    let mut acc = [[0.0f32; R]; S];
    // SAFETY: the processor has the instructions of `V`, which `multiply` has asked; every read ends at or before
    // `whole` in its row, by the assertion above.
    unsafe {
        let mut sums = [[V::zero(); R]; S];
        let mut at = begin;
        while at < whole {
            let w: [V; S] = std::array::from_fn(|s| W::load(w.as_ptr().add(s * depth + at)));
            for r in 0..R {
                let x = V::load(x.as_ptr().add(r * depth + at));
                for (sums, w) in sums.iter_mut().zip(w) {
                    sums[r] = w.fma(x, sums[r]);
                }
            }
            at += V::LANES;
        }
        for s in 0..S {
            for r in 0..R {
                acc[s][r] = sums[s][r].sum();
            }
        }
    }
    for s in 0..S {
        for r in 0..R {
            let rest = (whole..end).map(|i| w[s * depth + i].wide() * x[r * depth + i]);
            let sum = rest.fold(acc[s][r], |sum, p| sum + p);
            let out = &mut out[r * columns + s];
            *out = if begin == 0 { sum } else { *out + sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of vector gives the sums, whichever this processor would choose.
    #[test]
    fn all_vectors_agree() {
        for (depth, rows, columns) in [(1, 1, 1), (33, 7, 5), (64, 13, 4), (200, 6, 3)] {
            let w: Vec<i8> = (0..depth * columns).map(|i| (i * 37 % 255) as i8).collect();
            let x: Vec<f32> = (0..depth * rows).map(|i| (i * 11 % 17) as f32 - 8.0).collect();
            // Small whole numbers: every order gives the same sum.
            let dot =
                |r: usize, c: usize| (0..depth).map(|k| f32::from(w[c * depth + k]) * x[r * depth + k]).sum::<f32>();
            let wanted: Vec<f32> = (0..rows * columns).map(|i| dot(i / columns, i % columns)).collect();
            let bf16: Vec<u16> = w.iter().map(|v| number::to_bf16(f32::from(*v))).collect();
            let wide: Vec<f32> = w.iter().map(|v| f32::from(*v)).collect();
            let check = |name: &str, run: &dyn Fn(&mut [f32])| {
                let mut out = vec![f32::NAN; rows * columns];
                run(&mut out);
                assert_eq!(out, wanted, "{name} {depth} {rows} {columns}");
            };
            check("plain i8", &|out| strips::<Plain, i8, 2>(&w, depth, &x, out));
            check("plain bf16", &|out| strips::<Plain, u16, 2>(&bf16, depth, &x, out));
            check("plain f32", &|out| strips::<Plain, f32, 2>(&wide, depth, &x, out));
            check("widest i8", &|out| multiply(&w, depth, &x, out));
            #[cfg(target_arch = "x86_64")]
            if crate::kernel::cpu::simd::has().1 {
                use crate::kernel::cpu::vector::x86::Half;
                #[target_feature(enable = "avx2,fma")]
                fn half<W: Stored>(w: &[W], depth: usize, x: &[f32], out: &mut [f32]) {
                    strips::<Half, W, 2>(w, depth, x, out);
                }
                // SAFETY: the processor has these instructions.
                check("avx2 i8", &|out| unsafe { half(&w, depth, &x, out) });
                check("avx2 bf16", &|out| unsafe { half(&bf16, depth, &x, out) });
                check("avx2 f32", &|out| unsafe { half(&wide, depth, &x, out) });
            }
        }
    }
}
