//! A CUDA device as a [`Bench`].
//!
//! As with processors, all weights come from one large block, each call's from where the last one's ended; it is
//! several times the L2. Times are the device's own, between two events, but for copies to and from the host, which are
//! waited for.

use super::{Bench, Facts, Point, Precision, Work, host};
use crate::cuda::{DeviceMemory, Gpu, HostBytes, Params};
use crate::kernel::route::deal;
use crate::kernel::{CUDA_TOLERANCE, Expert, Layer, Matrix, Selections, number, reference};
use crate::measure::work::Way;
use moesim_core::rng::draw;
use moesim_core::{Diag, Result};
use std::process::Command;
use std::time::Instant;

/// The block is at least this many times the L2, if memory allows.
const TIMES_L2: u64 = 4;
/// Calls by which two ways of multiplying are compared.
const CALLS: usize = 10;
/// Tables of weights' addresses that calls take in turn.
const TURNS: usize = 16;

/// The bench.
#[derive(Debug)]
pub struct Cuda {
    gpu: Gpu,
    ordinal: usize,
    facts: Facts,
    begin: Instant,
    block: DeviceMemory,
    at: u64,
    point: Point,
    params: Params,
    /// What the point's parameters point to.
    owned: Vec<DeviceMemory>,
    /// Addresses of the tables of the turns, of first and second matrices.
    tables: Vec<[u64; 2]>,
    turn: usize,
    host: Option<(HostBytes, DeviceMemory)>,
}

impl Cuda {
    /// Device `ordinal` with a block of `bytes` or several times the L2, whichever is more, at most half of what is
    /// free. The kernels are compared with the reference first.
    ///
    /// # Errors
    /// No driver, no device, a device that fails, or kernels that are wrong on it.
    pub fn new(ordinal: usize, bytes: u64) -> Result<Self> {
        let gpu = Gpu::open(ordinal)?;
        let [free, all] = gpu.memory_bytes()?;
        let l2 = gpu.l2_bytes()?;
        let size = bytes.max(TIMES_L2 * l2).min(free / 2) / 4096 * 4096;
        check(&gpu)?;
        let block = gpu.memory(size as usize)?;
        let threads = gpu.multiprocessors()?;
        gpu.stream("moe_fill", 8 * threads, 512, &[block.address(), size / 4], Some(1))?;
        gpu.finish()?;
        let facts = Facts {
            device: gpu.name()?.replace([',', '"'], " "),
            family: "moesim_cuda",
            code: gpu.code.clone(),
            threads: threads as usize,
            llc_bytes: l2,
            memory_bytes: all,
            rotated_bytes: size,
            date: host::date(),
        };
        let mut bench = Self {
            gpu,
            ordinal,
            facts,
            begin: Instant::now(),
            block,
            at: 0,
            point: Point { work: Work::Launch, pass: 1 },
            params: Params::default(),
            owned: Vec::new(),
            tables: Vec::new(),
            turn: 0,
            host: None,
        };
        if bench.gpu.knows_groups()? {
            let how = bench.choose()?;
            bench.facts.code += how;
        }
        Ok(bench)
    }

    /// Takes products of warpgroups for tall tiles if they are right on this device, and faster; says which it is.
    fn choose(&mut self) -> Result<&'static str> {
        self.gpu.wgmma = true;
        let right = check(&self.gpu).is_ok();
        self.gpu.wgmma = false;
        if !right {
            self.gpu.finish()?;
            return Ok(" mma.sync (wgmma is wrong on this device)");
        }
        let work = Work::Gemm { precision: Precision::Bf16, size: [4096; 3] };
        if self.prepare(&Point { work, pass: 1 })?.is_some() {
            return Ok(" mma.sync (no room to compare with wgmma)");
        }
        let mut best = [f64::INFINITY; 2];
        for _ in 0..CALLS {
            for (wgmma, best) in [false, true].into_iter().zip(&mut best) {
                self.gpu.wgmma = wgmma;
                *best = best.min(self.once()?);
            }
        }
        self.gpu.wgmma = best[1] < best[0];
        Ok(if self.gpu.wgmma { " wgmma" } else { " mma.sync (wgmma is slower)" })
    }

    /// The address of the block's next piece of so many bytes.
    fn piece(&mut self, bytes: usize) -> u64 {
        let bytes = bytes as u64;
        if self.at + bytes > self.block.len() as u64 {
            self.at = 0;
        }
        let piece = self.block.address() + self.at;
        self.at = (self.at + bytes).next_multiple_of(256);
        piece
    }

    /// Keeps numbers on the device for this point; their address.
    fn keep<T: Copy>(&mut self, numbers: &[T]) -> Result<u64> {
        let memory = self.gpu.copied(numbers)?;
        let address = memory.address();
        self.owned.push(memory);
        Ok(address)
    }

    /// A layer of experts with these tokens each, its buffers, and tables of weights for all turns.
    fn layer(&mut self, p: Params, places: (&[u16], &[f32]), counts: &[u32], bytes: usize) -> Result<()> {
        let mut p = p;
        self.owned = self.gpu.buffers(&mut p)?;
        let tokens = (p.tokens as usize) * (p.hidden.max(p.widest) as usize);
        let x = self.gpu.memory(2 * tokens)?;
        let grid = self.facts.threads as u32;
        self.gpu.stream("moe_fill", grid, 512, &[x.address(), tokens as u64 / 2], Some(7))?;
        p.x = x.address();
        self.owned.push(x);
        p.experts = self.keep(places.0)?;
        p.weights = self.keep(places.1)?;
        let experts = counts.len();
        p.inner = self.keep(&vec![p.widest; experts])?;
        let scales = self.keep(&vec![1e-2f32; 2 * p.hidden.max(p.widest) as usize])?;
        p.first_scales = self.keep(&vec![scales; experts])?;
        p.second_scales = p.first_scales;
        self.tables.clear();
        for _ in 0..TURNS {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            // Experts without tokens are not looked at.
            for n in counts {
                let at = if *n > 0 { self.piece(bytes) } else { self.block.address() };
                first.push(at);
                second.push(at + bytes as u64 / 3 * 2);
            }
            let pair = [self.keep(&first)?, self.keep(&second)?];
            self.tables.push(pair);
        }
        self.params = p;
        self.gpu.finish()
    }
}

/// Widens what kernels take.
fn width(precision: Precision) -> Option<i32> {
    match precision {
        Precision::Bf16 => Some(0),
        Precision::Fp8 => Some(1),
        Precision::F32 | Precision::Int8 => None,
    }
}

impl Bench for Cuda {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn prepare(&mut self, point: &Point) -> Result<Option<String>> {
        self.point = point.clone();
        (self.turn, self.host) = (0, None);
        if point.work.bytes() > self.block.len() as f64 {
            return Ok(Some(format!("needs {:.1} GB of weights at once", point.work.bytes() / 1e9)));
        }
        let no_kernel = || Ok(Some("the device has kernels for BF16 and FP8 weights alone".to_string()));
        match &point.work {
            Work::Experts { shape, precision, tokens, counts, .. } => {
                let Some(fp8) = width(*precision) else { return no_kernel() };
                let step = 8 << fp8;
                if shape.hidden % step != 0 || shape.intermediate % step != 0 {
                    return Ok(Some(format!("widths that are no multiples of {step}")));
                }
                let places = deal(*tokens, shape.top_k, counts);
                let p = Params {
                    tokens: *tokens as i32,
                    top_k: shape.top_k as i32,
                    hidden: shape.hidden as i32,
                    routed: shape.experts as i32,
                    widest: shape.intermediate as i32,
                    fp8,
                    ..Params::default()
                };
                let bytes = shape.weights() * precision.bytes();
                self.layer(p, (&places.0, &places.1), counts, bytes)?;
            }
            Work::Gemm { precision, size: [m, n, k] } => {
                let Some(fp8) = width(*precision) else { return no_kernel() };
                // The second product of one expert, whose rows are what the first would have written.
                let p = Params {
                    tokens: *m as i32,
                    top_k: 1,
                    hidden: *n as i32,
                    routed: 1,
                    widest: *k as i32,
                    fp8,
                    ..Params::default()
                };
                let bytes = 3 * n * k * precision.bytes();
                if bytes as f64 > self.block.len() as f64 {
                    return Ok(Some("needs more weights than the block has".into()));
                }
                self.layer(p, (&vec![0; *m], &vec![1.0; *m]), &[*m as u32], bytes)?;
                let rows = (m * k / 2) as u64;
                self.gpu.stream("moe_fill", self.facts.threads as u32, 512, &[self.params.h, rows], Some(3))?;
                self.gpu.sort(&self.params)?;
                self.gpu.finish()?;
            }
            Work::Library { .. } => {
                return Ok(Some("cuBLAS is compared with by hwmodels/cuda/driver.cu".into()));
            }
            Work::HostCopy { pinned, bytes, .. } => {
                self.host = Some((self.gpu.host_bytes(*bytes, *pinned)?, self.gpu.memory(*bytes)?));
            }
            Work::Norm { tokens, hidden } => self.owned = vec![self.gpu.memory(2 * tokens * hidden)?],
            Work::Read(_) => self.owned = vec![self.gpu.memory(256)?],
            Work::Write(_) | Work::Copy(_) | Work::Launch => {}
        }
        Ok(None)
    }

    fn once(&mut self) -> Result<f64> {
        self.turn += 1;
        let grid = 8 * self.facts.threads as u32;
        match self.point.work {
            Work::Experts { .. } | Work::Gemm { .. } => {
                let [first, second] = self.tables[self.turn % TURNS];
                let p = Params { first, second, ..self.params };
                let dense = matches!(self.point.work, Work::Gemm { .. });
                self.gpu.timed(|g| if dense { g.down(&p) } else { g.layer(&p) })
            }
            Work::Norm { tokens, hidden } => {
                let (x, out) = (self.piece(2 * tokens * hidden), self.owned[0].address());
                self.gpu.timed(|g| g.stream("moe_norm", tokens as u32, 256, &[x, out], Some(hidden as u32)))
            }
            Work::Read(bytes) => {
                let (at, out) = (self.piece(bytes), self.owned[0].address());
                self.gpu.timed(|g| g.stream("moe_read", grid, 512, &[at, out, bytes as u64 / 16], None))
            }
            Work::Write(bytes) => {
                let at = self.piece(bytes);
                self.gpu.timed(|g| g.stream("moe_write", grid, 512, &[at, bytes as u64 / 16], Some(0x3b9c_3ba5)))
            }
            Work::Copy(bytes) => {
                let at = self.piece(2 * bytes);
                let to = at + bytes as u64;
                self.gpu.timed(|g| g.stream("moe_copy", grid, 512, &[at, to, bytes as u64 / 16], None))
            }
            Work::Launch => self.gpu.timed(|g| g.stream("moe_nothing", 1, 32, &[], None)),
            Work::HostCopy { way, .. } => {
                let (host, memory) = self.host.as_mut().expect("prepared");
                let begin = Instant::now();
                self.gpu.host_copy(host, memory, way == Way::ToDevice)?;
                Ok(begin.elapsed().as_secs_f64())
            }
            Work::Library { .. } => unreachable!("prepare has refused it"),
        }
    }

    fn now_s(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    fn clock_mhz(&self) -> Option<f64> {
        let query = ["--query-gpu=clocks.sm", "--format=csv,noheader,nounits"];
        let out = Command::new("nvidia-smi").arg(format!("--id={}", self.ordinal)).args(query).output().ok()?;
        String::from_utf8(out.stdout).ok()?.trim().parse().ok()
    }
}

/// The kernels beside the reference on a few layers; the driver in `hwmodels/cuda` does hundreds.
fn check(gpu: &Gpu) -> Result<()> {
    for case in 0..8u64 {
        let fp8 = (case % 2) as i32;
        let [tokens, hidden, inner, experts, k] =
            [[3, 96, 64, 5, 2], [40, 160, 144, 3, 2], [200, 64, 208, 4, 1], [1, 256, 32, 9, 8]][(case / 2) as usize];
        let unit = |what: u64, i: usize| (draw(case, what, 0, i as u64) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        let x: Vec<u16> = (0..tokens * hidden).map(|i| number::to_bf16(unit(1, i))).collect();
        let counts: Vec<u32> = super::Skew::Zipf(1.0).counts(
            tokens,
            &super::MeasuredShape { hidden, intermediate: inner, experts, top_k: k },
            experts,
        );
        let (ids, weights) = deal(tokens, k, &counts);
        let each = 3 * hidden * inner;
        let size = 1.0 / (hidden as f32).sqrt();
        let wide: Vec<u16> = (0..experts * each).map(|i| number::to_bf16(size * unit(2, i))).collect();
        let eight: Vec<u8> = (0..experts * each).map(|i| number::to_e4m3(unit(2, i))).collect();
        let scales = vec![size; 2 * hidden.max(inner)];
        let matrix = |at: usize, len: usize| match fp8 {
            0 => Matrix::Bf16(&wide[at..at + len]),
            _ => Matrix::Fp8 { values: &eight[at..at + len], scales: &scales },
        };
        let expert = |e: usize| Expert {
            intermediate: inner,
            first: matrix(e * each, 2 * hidden * inner),
            second: matrix(e * each + 2 * hidden * inner, hidden * inner),
        };
        let list: Vec<Expert> = (0..experts).map(expert).collect();
        let wide_x: Vec<f32> = x.iter().map(|v| number::from_bf16(*v)).collect();
        let layer = Layer { hidden, experts: &list, shared: &[] };
        let wanted = reference::layer(&layer, &wide_x, &Selections { top_k: k, experts: &ids, weights: &weights });
        let mut p = Params {
            tokens: tokens as i32,
            top_k: k as i32,
            hidden: hidden as i32,
            routed: experts as i32,
            widest: inner as i32,
            fp8,
            ..Params::default()
        };
        let _buffers = gpu.buffers(&mut p)?;
        let stored = if fp8 == 0 { gpu.copied(&wide)? } else { gpu.copied(&eight)? };
        let bytes = (2 - fp8 as u64) * each as u64;
        let first: Vec<u64> = (0..experts as u64).map(|e| stored.address() + e * bytes).collect();
        let second: Vec<u64> = first.iter().map(|a| a + bytes / 3 * 2).collect();
        let scale = gpu.copied(&scales)?;
        let kept = [gpu.copied(&first)?, gpu.copied(&second)?, gpu.copied(&vec![scale.address(); experts])?];
        let given = [gpu.copied(&x)?, gpu.copied(&ids)?];
        let (weights, inners) = (gpu.copied(&weights)?, gpu.copied(&vec![inner as i32; experts])?);
        [p.first, p.second, p.first_scales] = [0, 1, 2].map(|i: usize| kept[i].address());
        p.second_scales = p.first_scales;
        [p.x, p.experts] = [0, 1].map(|i: usize| given[i].address());
        (p.weights, p.inner) = (weights.address(), inners.address());
        gpu.layer(&p)?;
        gpu.finish()?;
        let out = _buffers.iter().find(|b| b.address() == p.out).expect("a buffer of outputs");
        let found = gpu.floats(out, tokens * hidden)?;
        let worst = CUDA_TOLERANCE.worst(hidden, &wanted, &found);
        if worst > 1.0 {
            let problem = format!(
                "the kernels are wrong on this device: {worst:.3} times the error that is allowed ({})",
                gpu.code
            );
            return Err(Diag::run(problem).cure("report it with the device, the driver and this line"));
        }
    }
    Ok(())
}
