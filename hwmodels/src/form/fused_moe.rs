//! A fused MoE layer on one device: permutation, two grouped GEMMs with the activation between, weighted sum.
//!
//! `t = t0 + gemm(gated x intermediate, hidden) + gemm(hidden, intermediate) + row passes`. Each grouped GEMM is a list
//! of tiles of `b` rows by `bn` columns over the activated experts, dealt to the device's processors: a tile costs its
//! `b` rows as far as the kernel computes padding (`phi`), never less than `m0` rows; every K loop has a prologue of
//! `k0`; the last wave is worth `q` tiles a processor. Compute, weights and the walk over groups overlap as far as `p`
//! says. Rows of large batches are gathered from all over memory (`gam`). Row passes (align, gather, activation,
//! scatter, sum) move each row a few times; pairs of other ranks pass through some of them too (`a_off`).
//!
//! The structure is that of the public kernels: vLLM's and SGLang's Triton `fused_moe` (padding of each expert to
//! `BLOCK_SIZE_M`, one launch a GEMM, `moe_align_block_size`, `moe_sum`), CUTLASS's grouped GEMM as TensorRT-LLM and
//! FlashInfer use it (a tile shape chosen by an autotuner), the kernels that TensorRT-LLM generates, and Marlin (tiles
//! by the mean of what all tokens chose).

use super::{Constant, Form, Peaks, largest, norm};

/// Rows of a tile that kernels choose among.
pub const TILES: [f64; 5] = [16.0, 32.0, 64.0, 128.0, 256.0];
/// Rows of the lowest tile of Marlin (`moe_block_size` of vLLM's `fused_marlin_moe`: 8, 16, 32, 48 or 64).
const LEAST_BLOCK: u32 = 8;
/// Part of a block that the mean of rows an expert may fill: Marlin takes the first block that the mean fills less than
/// this (the same file: `M * topk / E / block_size_m < 0.9`).
const FILLED: f64 = 0.9;
/// Bytes of gathered rows from which scatter is felt.
const SCATTER_BYTES: f64 = 256e6;
/// Least rows that a tile costs where a family has no constant for it.
const LEAST_ROWS: f64 = 20.0;

/// How a kernel family chooses its tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tiling {
    /// The fastest for the load, each GEMM its own: an autotuner.
    Best,
    /// Always 64 rows by 128 columns: Triton's default with block-scaled weights.
    Fixed64,
    /// 16 by 32 up to as many tokens as experts, 64 by 64 above: Triton's default without a tuned table.
    Switch,
    /// By tokens: 16 rows up to 32, 32 up to 96, 64 up to 512, then 128; 64 columns up to 64 tokens, then 128: the
    /// default of newer vLLM.
    Tokens,
    /// The power of two at or above all tokens' choices over the experts of the device, whoever's experts they are,
    /// from 16 to 128, by 128 columns: OpenAI's Triton kernels of 4-bit weights (`matmul_ogs`), and those that
    /// TensorRT-LLM generates, as FlashInfer selects them.
    Rows,
    /// The least of 8, 16, 32 and 64 rows of which all tokens' choices over the experts of the device, whoever's
    /// experts they are, fill less than nine tenths, by 128 columns: Marlin. (The block of 48 rows, which Marlin has
    /// too, is left out.)
    Blocks,
}

/// What a list of token counts comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MoeLoad {
    /// Tokens that enter the layer on this device.
    pub tokens: f64,
    /// (Token, choice) pairs that pass through the row passes but belong to another device.
    pub off: f64,
    /// Experts with tokens.
    pub active: f64,
    /// (Token, choice) pairs computed here.
    pub rows: f64,
    /// Row tiles, by tile height.
    pub tiles: [f64; 5],
    /// Row tiles of [`LEAST_BLOCK`] rows.
    pub least_blocks: f64,
}

impl MoeLoad {
    /// Sums over the tokens of each expert on the device.
    pub fn of(counts: impl IntoIterator<Item = u32>) -> Self {
        let (mut active, mut rows, mut tiles, mut least_blocks) = (0u64, 0u64, [0u64; 5], 0u64);
        for n in counts {
            least_blocks += u64::from(n.div_ceil(LEAST_BLOCK));
            active += u64::from(n > 0);
            rows += u64::from(n);
            // Heights are powers of two from 16.
            for (i, t) in tiles.iter_mut().enumerate() {
                *t += (u64::from(n) + (16 << i) - 1) >> (4 + i);
            }
        }
        let float = |x: u64| x as i64 as f64;
        let (rows, tiles, least_blocks) = (float(rows), tiles.map(float), float(least_blocks));
        Self { tokens: rows, off: 0.0, active: float(active), rows, tiles, least_blocks }
    }
}

/// The experts of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoeShape {
    /// Model width.
    pub hidden: f64,
    /// Width inside an expert, on this device.
    pub intermediate: f64,
    /// Matrices of the first GEMM: 2 with a gated activation, 1 without.
    pub first: f64,
    /// Experts on this device.
    pub experts: f64,
    /// Bytes of a weight.
    pub weight_bytes: f64,
    /// Bytes of an activation that enters a GEMM.
    pub activation_bytes: f64,
    /// Whether the family ships a tuned table for this shape: then any tile height with 128 columns.
    pub tuned: bool,
}

/// One measurement, or one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoeRow {
    /// What is computed.
    pub load: MoeLoad,
    /// With which experts.
    pub shape: MoeShape,
    /// On which device.
    pub peaks: Peaks,
}

/// The time of a layer, in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MoeTime {
    /// Fixed time: launches, alignment.
    pub fixed_s: f64,
    /// Both grouped GEMMs.
    pub gemm_s: f64,
    /// What compute alone would take of them.
    pub compute_s: f64,
    /// What memory alone would take of them.
    pub memory_s: f64,
    /// Row passes.
    pub passes_s: f64,
}

/// The form of a fused MoE kernel: seconds a call, by the formula of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FusedMoeForm {
    /// How tiles are chosen.
    pub tiling: Tiling,
}

/// A tile that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    /// Rows of the tile: tokens.
    height: f64,
    /// Tiles of this height over all experts.
    tiles: f64,
    /// Columns of the tile: outputs of the expert's matrix.
    columns: f64,
    /// Whether it is the family's small one, at which weights stream at a rate of their own.
    small: bool,
}

/// All constants by place; a family fits those that it has, the others stay.
#[derive(Clone, Copy)]
struct C {
    t0: f64,
    e_m: f64,
    e_m16: f64,
    e_c: f64,
    e_ct: f64,
    m0: f64,
    phi: f64,
    q: f64,
    k0: f64,
    p: f64,
    t_e: f64,
    a_loc: f64,
    a_off: f64,
    gam: f64,
}

const fn constant(
    name: &'static str,
    about: &'static str,
    unit: &'static str,
    start: f64,
    low: f64,
    high: f64,
) -> Constant {
    Constant { name, about, unit, bounds: [low, high], start, spread: 0.5 }
}

const T0: Constant = constant("t0", "launches and whatever else does not grow", "s", 20e-6, 1e-6, 1e-3);
const E_M: Constant = constant("e_m", "fraction of the memory bandwidth that weights stream at", "", 0.9, 0.05, 1.0);
const E_M16: Constant = constant("e_m16", "the same with the smallest tile", "", 0.9, 0.05, 1.0);
const E_C: Constant = constant("e_c", "fraction of the peak rate inside a long K loop", "", 0.5, 0.02, 1.0);
const E_CT: Constant = constant("e_ct", "the same with a tuned tile", "", 0.6, 0.02, 1.0);
const M0: Constant = constant("m0", "least rows that a tile costs", "rows", 64.0, 1.0, 1000.0);
const PHI: Constant = constant("phi", "part of a tile's padding that is computed", "", 0.7, 0.05, 1.0);
const Q: Constant = constant("q", "last wave: tiles a processor", "", 0.3, 0.01, 10.0);
const K0: Constant = constant("k0", "prologue of a K loop", "elements", 100.0, 1.0, 4096.0);
const P: Constant = constant("p", "overlap of compute, weights and walk: 1 none, large full", "", 2.0, 1.0, 8.0);
const T_E: Constant = constant("t_e", "walk over the groups, an expert", "s", 20e-9, 1e-10, 5e-6);
const A_LOC: Constant = constant("a_loc", "row passes over the bytes of rows computed here", "", 1.0, 0.05, 8.0);
const A_OFF: Constant = constant("a_off", "the same over pairs of other devices", "", 0.3, 0.003, 4.0);
const GAM: Constant = constant("gam", "growth of compute with the footprint of gathered rows", "", 0.03, 0.001, 0.5);

impl FusedMoeForm {
    fn read(self, c: &[f64]) -> C {
        let base = C {
            t0: c[0],
            e_m: c[1],
            e_m16: c[1],
            e_c: 0.0,
            e_ct: 0.0,
            m0: LEAST_ROWS,
            phi: 0.0,
            q: 0.0,
            k0: 0.0,
            p: 0.0,
            t_e: 0.0,
            a_loc: 0.0,
            a_off: 0.0,
            gam: 0.0,
        };
        let tail = |b: C, at: usize| C { phi: c[at], q: c[at + 1], k0: c[at + 2], p: c[at + 3], ..b };
        let passes = |b: C, at: usize| C { a_loc: c[at], a_off: c[at + 1], gam: c[at + 2], ..b };
        match self.tiling {
            Tiling::Best => passes(tail(C { e_c: c[2], e_ct: c[2], m0: c[3], t_e: c[8], ..base }, 4), 9),
            Tiling::Fixed64 => passes(tail(C { e_c: c[2], e_ct: c[2], ..base }, 3), 7),
            Tiling::Switch => passes(tail(C { e_m16: c[2], e_c: c[3], e_ct: c[4], ..base }, 5), 9),
            Tiling::Tokens | Tiling::Rows | Tiling::Blocks => {
                passes(tail(C { e_m16: c[2], e_c: c[3], e_ct: c[3], m0: c[4], ..base }, 5), 9)
            }
        }
    }

    /// Which tiles may be chosen, and how many.
    fn options(self, load: &MoeLoad, shape: &MoeShape) -> ([Tile; 5], usize) {
        let tokens = load.tokens;
        let tile = |j: usize, columns: f64| Tile { height: TILES[j], tiles: load.tiles[j], columns, small: j == 0 };
        let any = [0, 1, 2, 3, 4].map(|j| Tile { small: false, ..tile(j, 128.0) });
        let one = |j: usize, columns: f64| ([tile(j, columns); 5], 1);
        // All choices of the device's tokens over its experts.
        let each = (load.rows + load.off) / shape.experts.max(1.0);
        match self.tiling {
            Tiling::Best => (any, 5),
            Tiling::Fixed64 => one(2, 128.0),
            _ if shape.tuned => (any, 5),
            Tiling::Switch if tokens <= shape.experts => one(0, 32.0),
            Tiling::Switch => one(2, 64.0),
            Tiling::Rows => one((0..3).find(|j| each <= TILES[*j]).unwrap_or(3), 128.0),
            Tiling::Blocks if each < FILLED * f64::from(LEAST_BLOCK) => {
                let height = f64::from(LEAST_BLOCK);
                ([Tile { height, tiles: load.least_blocks, columns: 128.0, small: true }; 5], 1)
            }
            Tiling::Blocks => {
                let (options, n) = one((0..2).find(|j| each < FILLED * TILES[*j]).unwrap_or(2), 128.0);
                (options.map(|t| Tile { small: false, ..t }), n)
            }
            Tiling::Tokens => {
                let columns = if tokens <= 64.0 { 64.0 } else { 128.0 };
                one([32.0, 96.0, 512.0].iter().position(|most| tokens <= *most).unwrap_or(3), columns)
            }
        }
    }

    /// The time of a call, in parts.
    pub fn time(self, constants: &[f64], row: &MoeRow) -> MoeTime {
        let c = self.read(constants);
        let MoeRow { load, shape, peaks } = row;
        let (options, n) = self.options(load, shape);
        let scatter = libm::pow(1.0 + 2.0 * load.rows * (shape.hidden + shape.intermediate) / SCATTER_BYTES, c.gam);
        let tuned = shape.tuned && self.tiling == Tiling::Switch;
        let rate = if tuned { c.e_ct } else { c.e_c } * peaks.flop_per_s / scatter;
        let tail = c.q * peaks.units * load.active.min(1.0);
        let walk = 0.5 * c.t_e * shape.experts;
        // Time, compute and memory of a GEMM of `columns` x `k` under a tile.
        let gemm = |Tile { height, tiles, columns: bn, small }: Tile, columns: f64, k: f64| {
            let tiles = tiles.max(1e-9);
            let padded = |rows: f64| {
                let rows = c.phi * height + (1.0 - c.phi) * rows;
                (rows * rows + c.m0 * c.m0).sqrt()
            };
            let (span, one) = (tiles * padded(load.rows / tiles), padded(load.rows.min(height)));
            let wide = (columns / bn).ceil();
            let compute = 2.0 * bn * (k + c.k0) * (wide * span + tail * one) / rate;
            let e_m = if small { c.e_m16 } else { c.e_m };
            let memory = k * shape.weight_bytes * (load.active * columns + tail * bn) / (e_m * peaks.bytes_per_s);
            (compute, memory)
        };
        let whole = |(compute, memory): (f64, f64)| norm(c.p, [compute, memory, walk]);
        let shapes = [(shape.first * shape.intermediate, shape.hidden), (shape.hidden, shape.intermediate)];
        let mut best = [(f64::INFINITY, (0.0, 0.0)); 2];
        if self.tiling == Tiling::Best {
            for (best, (columns, k)) in best.iter_mut().zip(shapes) {
                for option in &options[..n] {
                    let terms = gemm(*option, columns, k);
                    // The norm is at least its largest term.
                    if terms.0.max(terms.1).max(walk) < best.0 {
                        let time = whole(terms);
                        if time < best.0 {
                            *best = (time, terms);
                        }
                    }
                }
            }
        } else {
            for option in &options[..n] {
                let terms = shapes.map(|(columns, k)| gemm(*option, columns, k));
                let times = terms.map(whole);
                if times[0] + times[1] < best[0].0 + best[1].0 {
                    best = [(times[0], terms[0]), (times[1], terms[1])];
                }
            }
        }
        let (h, i, ab) = (shape.hidden, shape.intermediate, shape.activation_bytes);
        let here = load.rows * (ab * h + 4.0 * shape.first * i + 2.0 * ab * i + 4.0 * h) + 2.0 * load.tokens * h;
        let others = load.off * (4.0 * shape.first * i + 2.0 * i + 4.0 * h);
        MoeTime {
            fixed_s: c.t0,
            gemm_s: best[0].0 + best[1].0,
            compute_s: best[0].1.0 + best[1].1.0,
            memory_s: best[0].1.1 + best[1].1.1,
            passes_s: (c.a_loc * here + c.a_off * others) / peaks.bytes_per_s,
        }
    }
}

impl MoeTime {
    /// The term that binds: of the fixed time, the row passes, and what compute or memory alone would take of the
    /// GEMMs.
    pub fn bound(&self) -> &'static str {
        largest([
            (self.memory_s, "memory"),
            (self.compute_s, "compute"),
            (self.passes_s, "row passes"),
            (self.fixed_s, "launch"),
        ])
    }
    /// Seconds in all.
    pub fn seconds(&self) -> f64 {
        self.fixed_s + self.gemm_s + self.passes_s
    }
}

impl Form for FusedMoeForm {
    type Row = MoeRow;
    const ROBUST: f64 = 0.05;

    fn constants(&self) -> Vec<Constant> {
        match self.tiling {
            Tiling::Best => vec![T0, E_M, E_C, M0, PHI, Q, K0, P, T_E, A_LOC, A_OFF, GAM],
            Tiling::Fixed64 => vec![T0, E_M, E_C, PHI, Q, K0, P, A_LOC, A_OFF, GAM],
            Tiling::Switch => vec![T0, E_M, E_M16, E_C, E_CT, PHI, Q, K0, P, A_LOC, A_OFF, GAM],
            Tiling::Tokens | Tiling::Rows | Tiling::Blocks => {
                vec![T0, E_M, E_M16, E_C, M0, PHI, Q, K0, P, A_LOC, A_OFF, GAM]
            }
        }
    }

    fn seconds(&self, constants: &[f64], row: &MoeRow) -> f64 {
        self.time(constants, row).seconds()
    }

    fn roofline(&self, row: &MoeRow) -> f64 {
        let [flop, bytes] = self.amounts(row);
        (flop / row.peaks.flop_per_s).max(bytes / row.peaks.bytes_per_s)
    }

    fn bound(&self, constants: &[f64], row: &MoeRow) -> &'static str {
        self.time(constants, row).bound()
    }

    fn amounts(&self, row: &MoeRow) -> [f64; 2] {
        let MoeRow { load, shape: s, .. } = row;
        let matrices = (s.first + 1.0) * s.hidden * s.intermediate;
        let bytes = load.active * matrices * s.weight_bytes + load.rows * (s.activation_bytes + 2.0) * s.hidden;
        [2.0 * load.rows * matrices, bytes]
    }

    fn features(&self, row: &MoeRow) -> [f64; 5] {
        let MoeRow { load, shape: s, .. } = row;
        [s.hidden, s.intermediate, s.experts, load.rows + 1.0, s.first * s.first].map(libm::log)
    }
}

#[cfg(test)]
mod tests;
