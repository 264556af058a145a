//! A GEMM, dense or over groups of rows with a matrix each (grouped contiguous, grouped masked).
//!
//! `t = t0 + norm(q, [compute, memory]) + rounding`. Compute is that of the tile (`bm` rows by `bn` columns, and a
//! split of K) that takes least: `waves (t_tile + K steps t_step + output)`, where a K step moves 128 bytes of every
//! operand row of the tile and takes `norm(4, [FLOP / (e_c share of the peak), bytes / (r_sm share of the
//! bandwidth)])`. Tiles are dealt to the processors in whole waves. A split of K writes and reads partial sums in FP32
//! and is one kernel more, of `t_split`. Memory is each operand once, the weights of every group with rows, at `e_m`
//! of the bandwidth; where a benchmark repeats itself (`warm`), what the L2 still holds comes `k_warm` times as fast.
//! A family whose inputs come in 16 bits (`rounds`) rounds them before the product: passes over `a_q` times what is
//! read and written, in which a row costs as if it were `k_q` elements longer.
//!
//! The structure is that of the public kernels: DeepGEMM (tiles of 64 or 128 rows, two of them with multicast; columns
//! in steps of 16; 128 bytes of K a step; the shape with the fewest waves), CUTLASS and cuBLAS (an autotuned or tabled
//! tile, split K), Triton. The tile that is cheapest in the model stands for their tables, and keeps time monotone in
//! rows, columns and K; families with a plain rule or a single tile have that instead ([`GemmTiling`]).
//!
//! Left out: the cost of offsets and alignment of contiguous groups, scales inside the main loop, power throttling of
//! very large GEMMs, operand panels read again when they exceed the L2, gaps between kernels.

use super::{Constant, Form, Peaks, TILES, constant_within as constant, four_starts, largest, norm, norm4};

/// Columns of a tile.
const COLUMNS: [f64; 11] = [16.0, 32.0, 48.0, 64.0, 80.0, 96.0, 112.0, 128.0, 160.0, 192.0, 256.0];
/// Largest tile: its sums fill the registers of a processor.
const TILE: f64 = 256.0 * 128.0;
/// Bytes of K that a step moves of every operand row.
const STEP: f64 = 128.0;
/// Ways to split K.
const SPLITS: [f64; 4] = [1.0, 2.0, 4.0, 8.0];

/// What a list of row counts comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GemmLoad {
    /// Rows in all.
    pub rows: f64,
    /// Groups with rows.
    pub groups: f64,
    /// Row tiles over all groups, by tile height ([`TILES`]).
    pub tiles: [f64; 5],
}

impl GemmLoad {
    /// Sums over the rows of each group.
    pub fn of(counts: impl IntoIterator<Item = u32>) -> Self {
        let mut load = Self::default();
        counts.into_iter().for_each(|n| load.add(1.0, f64::from(n)));
        load
    }
    /// `groups` groups of `rows` each; a mean may be no whole number.
    pub fn even(groups: f64, rows: f64) -> Self {
        let mut load = Self::default();
        load.add(groups, rows);
        load
    }
    fn add(&mut self, groups: f64, rows: f64) {
        if rows > 0.0 {
            self.rows += groups * rows;
            self.groups += groups;
            self.tiles.iter_mut().zip(TILES).for_each(|(t, height)| *t += groups * (rows / height).ceil());
        }
    }
}

/// Which tile a kernel family takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GemmTiling {
    /// The fastest for the product: an autotuner, or a table that comes near one.
    #[default]
    Best,
    /// By rows: 64 by 64 up to 64 rows, 64 by 128 up to 128, then 128 by 128: CUTLASS's FP8 products in vLLM (the
    /// configurations of `scaled_mm_sm90_fp8_dispatch.cuh`) and SGLang on Hopper.
    Rows,
    /// 128 by 256 always: a processor's half of the pair's tile in the NVFP4 product of TensorRT-LLM on Blackwell, as
    /// far as times say: in aiconfigurator's table of B200 they are the same up to 512 rows.
    Single,
}

/// What a kernel family can choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GemmKernel {
    /// Which tile it takes.
    pub tiling: GemmTiling,
    /// Rows of its smallest tile: 128 on Blackwell's matrix units, 64 in DeepGEMM on Hopper and CANN, 16 in cuBLAS and
    /// Triton.
    pub least_tile: f64,
    /// Whether it may split K: cuBLAS.
    pub split_k: bool,
    /// Whether it takes inputs in 16 bits and rounds them itself.
    pub rounds: bool,
}

impl GemmKernel {
    /// DeepGEMM on Hopper, and CANN: 64 rows or more.
    pub const WIDE: Self = Self { tiling: GemmTiling::Best, least_tile: 64.0, split_k: false, rounds: false };
    /// Grouped GEMM in Triton: 16 rows or more.
    pub const TRITON: Self = Self { least_tile: 16.0, ..Self::WIDE };
    /// cuBLAS, and moesim's own in CUDA: any tile, and splits of K.
    pub const CUBLAS: Self = Self { split_k: true, ..Self::TRITON };

    /// Whether it may run a tile of so many rows and columns for so many rows in all.
    fn open(&self, height: f64, columns: f64, rows: f64) -> bool {
        let one = |tile: [f64; 2]| [height, columns] == tile;
        match self.tiling {
            GemmTiling::Best => height >= self.least_tile && height * columns <= TILE,
            GemmTiling::Rows if rows <= 64.0 => one([64.0, 64.0]),
            GemmTiling::Rows if rows <= 128.0 => one([64.0, 128.0]),
            GemmTiling::Rows => one([128.0, 128.0]),
            GemmTiling::Single => one([128.0, 256.0]),
        }
    }
}

/// One measurement, or one call: `rows x k` times `k x n` of every group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GemmRow {
    /// Rows of the groups.
    pub load: GemmLoad,
    /// Columns of the weights.
    pub n: f64,
    /// The inner dimension.
    pub k: f64,
    /// Bytes of an element that enters, of a weight, of an element that leaves.
    pub element_bytes: [f64; 3],
    /// On which device.
    pub peaks: Peaks,
}

impl GemmRow {
    /// Operations.
    pub fn flop(&self) -> f64 {
        2.0 * self.load.rows * self.n * self.k
    }
    /// Bytes, each operand once: the convention of DeepGEMM's and CANN's printed GB/s.
    pub fn bytes(&self) -> f64 {
        let [a, w, out] = self.element_bytes;
        self.load.rows * self.k * a + self.load.groups * self.n * self.k * w + self.load.rows * self.n * out
    }
}

/// The form of a dense matrix product: seconds a call, by the formula of this module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GemmForm {
    /// Whether operands may lie in L2 since the call before: benchmarks that repeat one call without a flush. One
    /// constant more, the last; without it the others serve a cold call.
    pub warm: bool,
    /// What the family can choose. One that may split K has one constant more, one that rounds its inputs has two.
    pub kernel: GemmKernel,
}

/// The time of a call, in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GemmTime {
    /// Launch and first fill.
    pub fixed_s: f64,
    /// What the tiles alone would take.
    pub compute_s: f64,
    /// What memory alone would take, with the passes that round inputs.
    pub memory_s: f64,
    /// Seconds in all.
    pub seconds: f64,
}

const CONSTANTS: [Constant; 6] = [
    constant("t0", "launch, start of the grid, first fill", "s", [3e-6, 2e-7, 3e-5, 2.0]),
    constant("e_c", "fraction of the peak rate inside the main loop", "", [0.8, 0.2, 1.0, 2.0]),
    constant("t_tile", "prologue and epilogue of a tile that nothing hides", "s", [1e-6, 5e-8, 1e-5, 2.0]),
    constant("e_m", "fraction of the memory bandwidth", "", [0.88, 0.5, 1.0, 1.0 / 3.0]),
    constant("r_sm", "rate of a processor from and to L2 over its share of the bandwidth", "", [3.5, 0.5, 20.0, 2.0]),
    constant("q", "overlap of compute and memory: 1 none, large full", "", [2.5, 1.0, 12.0, 2.0]),
];
const SPLIT: [Constant; 1] =
    [constant("t_split", "kernel that adds the sums of a split K", "s", [2e-6, 5e-8, 2e-5, 2.0])];
const ROUNDS: [Constant; 2] = [
    constant(
        "a_q",
        "bytes that rounding inputs moves over those that are read and written once",
        "",
        [1.0, 0.01, 10.0, 2.0],
    ),
    constant("k_q", "what a row costs of rounding beside its own elements", "elements", [500.0, 10.0, 2e4, 2.0]),
];
const WARM: [Constant; 1] =
    [constant("k_warm", "rate of L2 over that of memory, where a benchmark repeats itself", "", [2.5, 1.0, 8.0, 2.0])];

impl GemmForm {
    /// The form for calls that find none of their operands in L2, as those of a run.
    pub fn cold(kernel: GemmKernel) -> Self {
        Self { warm: false, kernel }
    }

    /// The time of a call, in parts.
    pub fn time(self, constants: &[f64], row: &GemmRow) -> GemmTime {
        let [t0, e_c, t_tile, e_m, r_sm, q] = [0, 1, 2, 3, 4, 5].map(|i| constants[i]);
        let mut more = constants[6..].iter().copied();
        let mut next = |has: bool| if has { more.next().unwrap_or(0.0) } else { 0.0 };
        let GemmKernel { split_k, rounds, .. } = self.kernel;
        let [t_split, a_q, k_q, k_warm] = [split_k, rounds, rounds, self.warm].map(&mut next);
        let GemmRow { load, peaks, .. } = *row;
        let bytes = row.bytes();
        let mut memory = bytes / (peaks.bytes_per_s * e_m);
        if self.warm {
            let over = (bytes / peaks.l2_bytes) * (bytes / peaks.l2_bytes);
            let held = 1.0 / (1.0 + over * over);
            memory *= 1.0 - held + held / k_warm;
        }
        let compute = if load.rows > 0.0 { tiles(self.kernel, [e_c, t_tile, r_sm, t_split], row) } else { 0.0 };
        let rounding = a_q * load.rows * (row.k + k_q) * (2.0 + row.element_bytes[0]) / peaks.bytes_per_s;
        let seconds = t0 + norm(q, [compute, memory, 0.0]) + rounding;
        GemmTime { fixed_s: t0, compute_s: compute, memory_s: memory + rounding, seconds }
    }
}

/// The tiles of the cheapest shape.
fn tiles(kernel: GemmKernel, [e_c, t_tile, r_sm, t_split]: [f64; 4], row: &GemmRow) -> f64 {
    let GemmRow { load, n, k, element_bytes: [a, w, out], peaks } = *row;
    let wide = a.max(w);
    let steps = (k * wide / STEP).ceil();
    let flop_s = 2.0 * (STEP / wide) / (e_c * peaks.flop_per_s / peaks.units);
    let byte_s = 1.0 / (r_sm * peaks.bytes_per_s / peaks.units);
    let splits = &SPLITS[..if kernel.split_k { 4 } else { 1 }];
    let mut best = f64::INFINITY;
    for columns in COLUMNS.into_iter().rev() {
        let wide = (n / columns).ceil();
        let open = |t: &(f64, f64)| kernel.open(t.0, columns, load.rows);
        for (height, tiles) in TILES.into_iter().zip(load.tiles).filter(open) {
            let area = height * columns;
            let (flop, moved) = (area * flop_s, (height + columns) * STEP * byte_s);
            let fixed = t_tile + area * out * byte_s;
            let share = tiles * wide / peaks.units;
            for split in splits {
                // Splits are powers of two: their products are exact.
                let (waves, part) = (split * share, steps / split);
                // What it takes at least, before any rounding up.
                if waves.max(1.0) * (fixed + part * flop.max(moved)) >= best {
                    continue;
                }
                let mut time = waves.ceil() * (fixed + part.ceil() * norm4(flop, moved));
                if *split > 1.0 {
                    // Partial sums, four bytes written and four read.
                    time += t_split + 8.0 * split * load.rows * n * byte_s / peaks.units;
                }
                best = best.min(time);
            }
        }
    }
    best
}

impl Form for GemmForm {
    type Row = GemmRow;
    const ROBUST: f64 = 0.10;

    fn constants(&self) -> Vec<Constant> {
        let some = |has: bool, constants: &'static [Constant]| if has { constants } else { &[] };
        let more = [some(self.kernel.split_k, &SPLIT), some(self.kernel.rounds, &ROUNDS), some(self.warm, &WARM)];
        [&CONSTANTS[..], &more.concat()].concat()
    }

    fn starts(&self) -> Vec<Vec<f64>> {
        four_starts(self.constants().len())
    }

    fn seconds(&self, constants: &[f64], row: &GemmRow) -> f64 {
        self.time(constants, row).seconds
    }

    fn roofline(&self, row: &GemmRow) -> f64 {
        (row.flop() / row.peaks.flop_per_s).max(row.bytes() / row.peaks.bytes_per_s)
    }

    fn bound(&self, constants: &[f64], row: &GemmRow) -> &'static str {
        let t = self.time(constants, row);
        largest([(t.memory_s, "memory"), (t.compute_s, "compute"), (t.fixed_s, "launch")])
    }

    fn amounts(&self, row: &GemmRow) -> [f64; 2] {
        [row.flop(), row.bytes()]
    }

    fn features(&self, row: &GemmRow) -> [f64; 5] {
        [row.n, row.k, row.load.groups + 1.0, row.load.rows + 1.0, row.element_bytes[1]].map(libm::log)
    }
}

/// Two GEMMs one after the other, timed as one: the two grouped GEMMs of experts, cold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GemmPairForm {
    /// What the family can choose.
    pub kernel: GemmKernel,
}

impl GemmPairForm {
    fn one(self) -> GemmForm {
        GemmForm::cold(self.kernel)
    }
}

impl Form for GemmPairForm {
    type Row = [GemmRow; 2];
    const ROBUST: f64 = GemmForm::ROBUST;

    fn constants(&self) -> Vec<Constant> {
        self.one().constants()
    }

    fn starts(&self) -> Vec<Vec<f64>> {
        self.one().starts()
    }

    fn seconds(&self, constants: &[f64], row: &[GemmRow; 2]) -> f64 {
        row.iter().map(|r| self.one().seconds(constants, r)).sum()
    }

    fn roofline(&self, row: &[GemmRow; 2]) -> f64 {
        row.iter().map(|r| self.one().roofline(r)).sum()
    }

    fn bound(&self, constants: &[f64], row: &[GemmRow; 2]) -> &'static str {
        let [a, b] = row.each_ref().map(|r| self.one().time(constants, r));
        largest([
            (a.memory_s + b.memory_s, "memory"),
            (a.compute_s + b.compute_s, "compute"),
            (a.fixed_s + b.fixed_s, "launch"),
        ])
    }

    fn amounts(&self, row: &[GemmRow; 2]) -> [f64; 2] {
        [row[0].flop() + row[1].flop(), row[0].bytes() + row[1].bytes()]
    }

    fn features(&self, row: &[GemmRow; 2]) -> [f64; 5] {
        self.one().features(&row[0])
    }
}

#[cfg(test)]
mod tests;
