//! The reference layer on this machine's processors beside the crate `gemm` expert by expert in FP32, and beside
//! reading the weights: 16 experts of DeepSeek-V2-Lite's shape, each with so many tokens. Bytes a second are those of
//! the weights.

use divan::Bencher;
use divan::counter::BytesCount;
use moesim_hwmodels::kernel::cpu::{self, Cpu};
use moesim_hwmodels::kernel::{Expert, Layer, Matrix, Selections};

const EXPERTS: usize = 16;
const HIDDEN: usize = 2048;
const INNER: usize = 1408;
/// Of rows of either matrix.
static SCALES: [f32; 2 * INNER] = [1e-2; 2 * INNER];
const ROWS: [usize; 5] = [1, 8, 32, 128, 512];

fn main() {
    divan::main();
}

/// Weights of all experts in 32-bit words, and tokens.
fn numbers(words: usize, rows: usize) -> (Vec<f32>, Vec<f32>) {
    // As BF16 either half is a fair number, as INT8 every quarter.
    let word = |i: usize| f32::from_bits((i as u32).wrapping_mul(2_654_435_761) & 0x803f_803f | 0x3b80_3b80);
    let x = (0..EXPERTS * rows * HIDDEN).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect();
    ((0..words).map(word).collect(), x)
}

fn layer(bencher: Bencher, rows: usize, bytes: usize, matrix: for<'a> fn(&'a [f32]) -> Matrix<'a>) {
    let each = 3 * HIDDEN * INNER * bytes / 4;
    let (weights, x) = numbers(EXPERTS * each, rows);
    let expert = |w| {
        let (first, second) = <[f32]>::split_at(w, each / 3 * 2);
        Expert { intermediate: INNER, first: matrix(first), second: matrix(second) }
    };
    let experts: Vec<Expert> = weights.chunks(each).map(expert).collect();
    let layer = Layer { hidden: HIDDEN, experts: &experts, shared: &[] };
    let ids: Vec<u16> = (0..EXPERTS * rows).map(|t| (t % EXPERTS) as u16).collect();
    let ones = vec![1.0; ids.len()];
    let s = Selections { top_k: 1, experts: &ids, weights: &ones };
    let (mut cpu, mut out) = (Cpu::default(), vec![0.0; x.len()]);
    let bench = bencher.counter(BytesCount::new(4 * weights.len()));
    bench.bench_local(|| cpu.layer(&layer, &x, &s, &mut out));
}

#[divan::bench(args = ROWS)]
fn layer_f32(bencher: Bencher, rows: usize) {
    layer(bencher, rows, 4, |w| Matrix::F32(w));
}

#[divan::bench(args = ROWS)]
fn layer_bf16(bencher: Bencher, rows: usize) {
    // SAFETY: every bit pattern is a 16-bit integer, whose alignment is less.
    layer(bencher, rows, 2, |w| Matrix::Bf16(unsafe { w.align_to::<u16>().1 }));
}

#[divan::bench(args = ROWS)]
fn layer_int8(bencher: Bencher, rows: usize) {
    // SAFETY: every bit pattern is an 8-bit integer.
    layer(bencher, rows, 1, |w| Matrix::Int8 { values: unsafe { w.align_to::<i8>().1 }, scales: &SCALES });
}

/// Both products of every expert by the crate's own plain product, one after the other; nothing is gathered or added
/// up.
#[divan::bench(args = ROWS)]
fn plain_gemm_f32(bencher: Bencher, rows: usize) {
    let each = 3 * HIDDEN * INNER;
    let (weights, x) = numbers(EXPERTS * each, rows);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut h, mut y) = (vec![0.0; 2 * INNER * rows], vec![0.0; HIDDEN * rows]);
    bencher.counter(BytesCount::new(4 * weights.len())).bench_local(|| {
        for (w, x) in weights.chunks(each).zip(x.chunks(HIDDEN * rows)) {
            let (first, second) = w.split_at(each / 3 * 2);
            cpu::plain(x, first, &mut h, [rows, 2 * INNER, HIDDEN], threads);
            cpu::plain(&h[..rows * INNER], second, &mut y, [rows, HIDDEN, INNER], threads);
        }
    });
}

#[divan::bench]
fn read_f32_weights(bencher: Bencher) {
    let (weights, _) = numbers(EXPERTS * 3 * HIDDEN * INNER, 1);
    bencher.counter(BytesCount::new(4 * weights.len())).bench_local(|| cpu::read(&weights));
}
