//! Kernels that move bytes and compute little.

use super::simd::widest;
use crate::kernel::number;
use rayon::prelude::*;

/// Words of a task: 256 KiB.
const CHUNK: usize = 1 << 16;
/// Elements of a norm that one thread does alone: waking another would take as long as it saves (measured: 30 us).
const ALONE: usize = 1 << 18;

/// Reads all words; the exclusive or of them, so that nothing is left out.
pub fn read(words: &[f32]) -> u32 {
    words.par_chunks(CHUNK).map(fold).reduce(|| 0, |a, b| a ^ b)
}

/// Writes every word.
pub fn write(words: &mut [f32], value: f32) {
    words.par_chunks_mut(CHUNK).for_each(|c| c.fill(value));
}

/// Copies every word.
pub fn copy(from: &[f32], to: &mut [f32]) {
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(t, f)| t.copy_from_slice(f));
}

/// Divides rows in BF16 by their root mean square.
pub fn norm(x: &[u16], hidden: usize, out: &mut [u16]) {
    assert_eq!(x.len(), out.len(), "sizes");
    if x.len() <= ALONE {
        return norm_rows(x, hidden, out);
    }
    // Rows are dealt in pieces of some ten thousand elements.
    let rows = (16384 / hidden).max(1) * hidden;
    out.par_chunks_mut(rows).zip(x.par_chunks(rows)).for_each(|(out, x)| norm_rows(x, hidden, out));
}

widest! { fn fold(words: &[f32]) -> u32, fold_ }
widest! { fn norm_rows(x: &[u16], hidden: usize, out: &mut [u16]), norm_ }

#[inline(always)]
fn fold_<const FMA: bool>(words: &[f32]) -> u32 {
    const LANES: usize = 64;
    let mut acc = [0u32; LANES];
    let mut chunks = words.chunks_exact(LANES);
    for c in &mut chunks {
        for (a, w) in acc.iter_mut().zip(c) {
            *a ^= w.to_bits();
        }
    }
    let rest = chunks.remainder().iter().fold(0, |a, w| a ^ w.to_bits());
    acc.iter().fold(rest, |a, b| a ^ b)
}

#[inline(always)]
fn norm_<const FMA: bool>(x: &[u16], hidden: usize, out: &mut [u16]) {
    const LANES: usize = 32;
    for (out, x) in out.chunks_mut(hidden).zip(x.chunks(hidden)) {
        let mut acc = [0.0f32; LANES];
        let mut chunks = x.chunks_exact(LANES);
        for c in &mut chunks {
            for (a, v) in acc.iter_mut().zip(c) {
                let v = number::from_bf16(*v);
                *a += v * v;
            }
        }
        let square = |v: &u16| number::from_bf16(*v) * number::from_bf16(*v);
        let sum = acc.iter().sum::<f32>() + chunks.remainder().iter().map(square).sum::<f32>();
        let scale = 1.0 / (sum / hidden as f32 + 1e-6).sqrt();
        for (o, v) in out.iter_mut().zip(x) {
            // Rounded as `number::to_bf16` does, without its question for what is no number.
            let bits = (number::from_bf16(*v) * scale).to_bits();
            *o = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_written_and_copied() {
        let mut a: Vec<f32> = (0..200_003u32).map(f32::from_bits).collect();
        assert_eq!(read(&a), (0..200_003).fold(0, |a, b| a ^ b));
        let mut b = vec![0.0; a.len()];
        copy(&a, &mut b);
        assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()));
        write(&mut a, 3.0);
        assert!(a.iter().all(|w| *w == 3.0));
    }

    #[test]
    fn rows_have_a_mean_square_of_one() {
        let (hidden, rows) = (70, 4000);
        let x: Vec<u16> = (0..hidden * rows).map(|i| number::to_bf16((i % 37) as f32 - 5.0)).collect();
        let mut out = vec![0; x.len()];
        norm(&x, hidden, &mut out);
        for row in out.chunks(hidden) {
            let mean: f32 =
                row.iter().map(|v| number::from_bf16(*v) * number::from_bf16(*v)).sum::<f32>() / hidden as f32;
            assert!((mean - 1.0).abs() < 5e-3, "{mean}");
        }
    }
}
