//! The fast kernel beside the reference, on shapes that are drawn.

use super::cpu::Cpu;
use super::*;
use moesim_core::rng::draw;
use proptest::prelude::*;

/// A stored matrix with values about `1 / sqrt(columns)`.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    Int8(Vec<i8>, Vec<f32>),
    Fp8(Vec<u8>, Vec<f32>),
}

impl Stored {
    /// `signed`: of either sign.
    fn new(kind: u64, seed: u64, rows: usize, columns: usize, signed: bool) -> Self {
        let size = (columns as f64).sqrt();
        let either = |i: usize| ((draw(seed, 1, 2, i as u64) >> 11) as f64 / (1u64 << 52) as f64 - 1.0) / size;
        let value = |i: usize| if signed { either(i) } else { either(i).abs() };
        let mask = if signed { 0xff } else { 0x7f };
        let scales = || (0..rows).map(|r| (1.0 + (r % 7) as f32) / (64.0 * size as f32)).collect::<Vec<f32>>();
        let all = 0..rows * columns;
        match kind {
            0 => Self::F32(all.map(|i| value(i) as f32).collect()),
            1 => Self::Bf16(all.map(|i| number::to_bf16(value(i) as f32)).collect()),
            2 => Self::Int8(all.map(|i| (draw(seed, 1, 3, i as u64) & mask) as i8).collect(), scales()),
            _ => Self::Fp8(all.map(|i| number::to_e4m3((value(i) * size) as f32)).collect(), scales()),
        }
    }
    fn view(&self) -> Matrix<'_> {
        match self {
            Self::F32(v) => Matrix::F32(v),
            Self::Bf16(v) => Matrix::Bf16(v),
            Self::Int8(values, scales) => Matrix::Int8 { values, scales },
            Self::Fp8(values, scales) => Matrix::Fp8 { values, scales },
        }
    }
}

struct Case {
    hidden: usize,
    tokens: usize,
    top_k: usize,
    experts: Vec<(usize, [Stored; 2])>,
    shared: Vec<(usize, [Stored; 2])>,
    x: Vec<f32>,
    ids: Vec<u16>,
    weights: Vec<f32>,
}

fn experts(list: &[(usize, [Stored; 2])]) -> Vec<Expert<'_>> {
    list.iter().map(|(i, [a, b])| Expert { intermediate: *i, first: a.view(), second: b.view() }).collect()
}

impl Case {
    /// Experts, the last `idle` of which no token selects; every seventh place is missing.
    fn new(kind: u64, seed: u64, [hidden, inner, tokens, n, idle, top_k, shared]: [usize; 7]) -> Self {
        // Errors are measured by a row of outputs. A row of few numbers, or of few inner ones, may cancel altogether,
        // so that nothing is negative there.
        let signed = hidden >= 4 && inner >= 8;
        let expert = |e: usize| {
            let inner = if e < n { inner } else { inner / 2 + 1 };
            let seed = seed + 100 * e as u64;
            let stored = |seed, rows, columns| Stored::new(kind, seed, rows, columns, signed);
            (inner, [stored(seed, 2 * inner, hidden), stored(seed + 1, hidden, inner)])
        };
        let unit = |a: u64, i: u64| (draw(seed, 9, a, i) >> 11) as f64 / (1u64 << 53) as f64;
        let open = n - idle;
        let place = |p: usize| {
            let [t, j] = [p / top_k, p % top_k];
            if unit(3, p as u64) < 1.0 / 7.0 {
                return MISSING;
            }
            // No token has an expert twice; loads are skewed.
            let skewed = (unit(4, t as u64) * unit(5, t as u64) * open as f64) as usize;
            ((skewed + j) % open) as u16
        };
        Self {
            hidden,
            tokens,
            top_k,
            experts: (0..n).map(expert).collect(),
            shared: (n..n + shared).map(expert).collect(),
            x: (0..tokens * hidden)
                .map(|i| (if signed { 2.0 * unit(6, i as u64) - 1.0 } else { unit(6, i as u64) }) as f32)
                .collect(),
            ids: (0..tokens * top_k).map(place).collect(),
            weights: (0..tokens * top_k).map(|p| unit(7, p as u64) as f32).collect(),
        }
    }

    /// The largest error over what is allowed.
    fn worst(&self, cpu: &mut Cpu) -> f64 {
        let (routed, shared) = (experts(&self.experts), experts(&self.shared));
        let layer = Layer { hidden: self.hidden, experts: &routed, shared: &shared };
        let s = Selections { top_k: self.top_k, experts: &self.ids, weights: &self.weights };
        let wanted = reference::layer(&layer, &self.x, &s);
        let mut out = vec![f32::NAN; self.tokens * self.hidden];
        cpu.layer(&layer, &self.x, &s, &mut out);
        CPU_TOLERANCE.worst(self.hidden, &wanted, &out)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Ragged shapes around the widths of vectors and tiles, every kind of weight, empty experts, shared experts,
    /// missing places, buffers that another shape used before.
    #[test]
    fn the_fast_kernel_is_the_reference(
        kind in 0u64..4, seed in 0u64..1_000_000, hidden in 1usize..150, inner in 1usize..150, tokens in 1usize..40,
        n in 1usize..10, idle in 0usize..9, top_k in 1usize..4, shared in 0usize..3,
    ) {
        let (idle, top_k) = (idle.min(n - 1), top_k.min(n));
        let case = Case::new(kind, seed, [hidden, inner, tokens, n, idle, top_k.min(n - idle), shared]);
        let mut cpu = Cpu::default();
        prop_assert!(case.worst(&mut cpu) <= 1.0, "{}", case.worst(&mut cpu));
        let other = Case::new(1, seed, [inner, hidden, 3, 2, 0, 1, 0]);
        prop_assert!(other.worst(&mut cpu) <= 1.0 && case.worst(&mut cpu) <= 1.0);
    }
}

/// One inner number, which came out of a sum that nearly cancelled while weights had both signs there.
#[test]
fn a_single_inner_number() {
    let case = Case::new(1, 408_502, [61, 1, 3, 2, 0, 1, 0]);
    assert!(case.worst(&mut Cpu::default()) <= 1.0);
}

/// Deeper than one tile, and wider than one block.
#[test]
fn deep_and_wide_products() {
    for kind in 0..4 {
        let case = Case::new(kind, 5, [1100, 300, 12, 2, 0, 2, 1]);
        let worst = case.worst(&mut Cpu::default());
        assert!(worst <= 1.0, "{kind}: {worst}");
    }
}

/// Dense products of both kinds, with every kind of weight.
#[test]
fn dense_products_are_the_sums() {
    for (kind, rows, columns, depth) in [(0, 3, 70, 40), (1, 60, 300, 33), (2, 49, 129, 1100), (3, 5, 31, 64)] {
        let w = Stored::new(kind, 1, columns, depth, true);
        let x: Vec<f32> = (0..rows * depth).map(|i| (i % 19) as f32 - 9.0).collect();
        let dot = |r: usize, c: usize| (0..depth).map(|k| w.view().at(c, k, depth) * f64::from(x[r * depth + k])).sum();
        let wanted: Vec<f64> = (0..rows * columns).map(|i| dot(i / columns, i % columns)).collect();
        let mut out = vec![f32::NAN; rows * columns];
        Cpu::default().gemm(&w.view(), columns, depth, &x, &mut out);
        let worst = CPU_TOLERANCE.worst(columns, &wanted, &out);
        assert!(worst <= 1.0, "{kind}: {worst}");
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let case = Case::new(1, 3, [96, 200, 30, 5, 1, 2, 1]);
    let (routed, shared) = (experts(&case.experts), experts(&case.shared));
    let layer = Layer { hidden: case.hidden, experts: &routed, shared: &shared };
    let s = Selections { top_k: case.top_k, experts: &case.ids, weights: &case.weights };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut out = vec![0.0; case.x.len()];
        pool.install(|| Cpu::default().layer(&layer, &case.x, &s, &mut out));
        out.iter().map(|x: &f32| x.to_bits()).collect::<Vec<u32>>()
    };
    assert_eq!(run(1), run(3));
}

/// A tolerance that nothing exceeds would prove nothing.
#[test]
fn errors_are_seen() {
    let wanted = [1.0, -2.0, 3.0, 0.5];
    let found = wanted.map(|w| w as f32);
    assert!(CPU_TOLERANCE.worst(2, &wanted, &found) < 0.1);
    assert!(CPU_TOLERANCE.worst(2, &wanted, &[1.0, -2.0, 3.001, 0.5]) > 1.0);
    assert!(CPU_TOLERANCE.worst(2, &wanted, &[1.0, f32::NAN, 3.0, 0.5]) > 1.0);
}
