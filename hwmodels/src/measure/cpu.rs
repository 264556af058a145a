//! This machine's processors as a [`Bench`].
//!
//! All weights come from one large block of numbers that begin random, each call's from where the last one's ended,
//! round and round, so that no call finds its weights in a cache that the block exceeds several times.

use super::{Bench, Facts, Point, Precision, Work, host};
use crate::kernel::cpu::{self, Cpu};
use crate::kernel::route::deal;
use crate::kernel::{Expert, Layer, Matrix, Selections};
use moesim_core::rng::{draw, purpose_key};
use moesim_core::{Diag, Result};
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// The block is at least this many times the last cache, if memory allows.
const TIMES_LLC: u64 = 4;
/// Calls of a point, as good as always at most.
const CALLS: usize = 512;
/// Between batches of short calls: ten of them take a tenth of a second, longer than memory that comes back from a
/// hypervisor was seen to slow every call of a sample.
const PAUSE: Duration = Duration::from_millis(10);
/// Whole 32-bit words that a piece of the block begins at: a page.
const STEP: usize = 1024;

/// The bench.
#[derive(Debug)]
pub struct Processors {
    facts: Facts,
    begin: Instant,
    block: Vec<f32>,
    scales: Vec<f32>,
    /// Where the next call's weights begin, in words.
    at: usize,
    cpu: Cpu,
    work: Work,
    x: Vec<f32>,
    narrow: Vec<u16>,
    out: Vec<f32>,
    places: (Vec<u16>, Vec<f32>),
}

/// Most bytes of weights at once by default: half of the memory that is free.
pub fn most_bytes() -> u64 {
    host::memory_bytes()[1] / 2
}

impl Processors {
    /// With a block of `bytes` or several times the last cache, whichever is more, but at most `most_bytes`.
    ///
    /// # Errors
    /// The memory is not there.
    pub fn new(bytes: u64, most_bytes: u64) -> Result<Self> {
        let llc_bytes = host::llc_bytes();
        let threads = rayon::current_num_threads();
        let size = bytes.max(TIMES_LLC * llc_bytes).min(most_bytes).max(1 << 20);
        let words = (size / 4) as usize;
        let mut block: Vec<f32> = Vec::new();
        block.try_reserve_exact(words).map_err(|_| {
            Diag::run(format!("{size} bytes of memory for weights are not to be had"))
                .cure("ask for less with --memory")
        })?;
        // Either half: a BF16 from 2^-8 to 1.5 times that, of either sign, and no byte that E4M3 has no number for, so
        // that every reading of it is a fair number.
        let purpose = purpose_key("measure-weights");
        let word = |i: usize| f32::from_bits((draw(0, purpose, 0, i as u64) as u32 & 0x803f_803f) | 0x3b80_3b80);
        block.resize(words, 0.0);
        block.par_chunks_mut(1 << 16).enumerate().for_each(|(c, chunk)| {
            chunk.iter_mut().enumerate().for_each(|(i, w)| *w = word((c << 16) + i));
        });
        let facts = Facts {
            device: format!("{} with {threads} threads", host::processor()),
            family: "moesim_cpu",
            code: code(),
            threads,
            llc_bytes,
            memory_bytes: host::memory_bytes()[0],
            rotated_bytes: 4 * words as u64,
            date: host::date(),
        };
        Ok(Self {
            facts,
            begin: Instant::now(),
            block,
            scales: Vec::new(),
            at: 0,
            cpu: Cpu::default(),
            work: Work::Launch,
            x: Vec::new(),
            narrow: Vec::new(),
            out: Vec::new(),
            places: Default::default(),
        })
    }

    /// The block's next piece of so many bytes, as words.
    fn piece(&mut self, bytes: usize) -> std::ops::Range<usize> {
        let words = bytes.div_ceil(4);
        if self.at + words > self.block.len() {
            self.at = 0;
        }
        let piece = self.at..self.at + words;
        self.at = piece.end.next_multiple_of(STEP);
        piece
    }

    /// Reads a word of every page that the next calls take their weights from: pages that the system or a hypervisor
    /// took away as cold come back now, not while a call is timed.
    fn touch(&self, bytes: usize) {
        let words = (CALLS * bytes.div_ceil(4).next_multiple_of(STEP)).min(self.block.len());
        let (from, to) = (self.at.min(self.block.len()), (self.at + words).min(self.block.len()));
        let pages = |words: &[f32]| words.par_chunks(STEP).map(|p| p[0].to_bits()).reduce(|| 0, |a, b| a ^ b);
        std::hint::black_box(pages(&self.block[from..to]) ^ pages(&self.block[..words - (to - from)]));
    }
}

/// Weights of a precision out of words.
fn matrix<'a>(words: &'a [f32], elements: usize, precision: Precision, scales: &'a [f32]) -> Matrix<'a> {
    // SAFETY: every bit pattern is a value of these types, whose alignment is at most that of f32.
    unsafe {
        match precision {
            Precision::F32 => Matrix::F32(&words[..elements]),
            Precision::Bf16 => Matrix::Bf16(&words.align_to::<u16>().1[..elements]),
            Precision::Int8 => Matrix::Int8 { values: &words.align_to::<i8>().1[..elements], scales },
            Precision::Fp8 => Matrix::Fp8 { values: &words.align_to::<u8>().1[..elements], scales },
        }
    }
}

fn code() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as detected;
        if detected!("avx512f") && detected!("avx512bw") && detected!("avx512dq") && detected!("avx512vl") {
            return "rust avx512".into();
        }
        if detected!("avx2") && detected!("fma") {
            return "rust avx2".into();
        }
    }
    format!("rust {}", std::env::consts::ARCH)
}

/// Seconds of a call.
fn timed(call: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    call();
    begin.elapsed().as_secs_f64().max(1e-9)
}

impl Bench for Processors {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn prepare(&mut self, point: &Point) -> Result<Option<String>> {
        let need = point.work.bytes() + 65536.0;
        if need > self.facts.rotated_bytes as f64 {
            return Ok(Some(format!("needs {:.1} GB of weights at once", need / 1e9)));
        }
        self.work = point.work.clone();
        self.touch(point.work.bytes() as usize);
        let ones = |v: &mut Vec<f32>, n: usize| {
            v.clear();
            v.extend((0..n).map(|i| (i % 251) as f32 / 251.0 - 0.5));
        };
        match &self.work {
            Work::Experts { shape, tokens, counts, .. } => {
                ones(&mut self.x, tokens * shape.hidden);
                self.out.resize(tokens * shape.hidden, 0.0);
                self.places = deal(*tokens, shape.top_k, counts);
                self.scales.resize(2 * shape.intermediate.max(shape.hidden), 1e-2);
            }
            Work::Gemm { size: [m, n, k], .. } => {
                ones(&mut self.x, m * k);
                self.out.resize(m * n, 0.0);
                self.scales.resize(*n, 1e-2);
            }
            Work::Library { precision: Precision::F32, size: [m, n, k] } => {
                ones(&mut self.x, m * k);
                self.out.resize(m * n, 0.0);
            }
            Work::Library { .. } | Work::HostCopy { .. } => return Ok(Some("is nothing that processors do".into())),
            Work::Norm { tokens, hidden } => self.narrow.resize(tokens * hidden, 0),
            Work::Read(_) | Work::Write(_) | Work::Copy(_) | Work::Launch => {}
        }
        Ok(None)
    }

    fn once(&mut self) -> Result<f64> {
        let work = self.work.clone();
        Ok(match work {
            Work::Experts { shape, precision, counts, .. } => {
                let (h, i) = (shape.hidden, shape.intermediate);
                let bytes = shape.weights() * precision.bytes();
                // Experts without tokens are there, and are not looked at.
                let pieces: Vec<_> = counts
                    .iter()
                    .scan(0..0, |last, n| {
                        if *n > 0 {
                            *last = self.piece(bytes);
                        }
                        Some(last.clone())
                    })
                    .collect();
                let any = self.piece(bytes);
                let scales = &self.scales[..];
                let expert = |p: std::ops::Range<usize>| {
                    let words = &self.block[if p.is_empty() { any.clone() } else { p }];
                    let (first, second) = words.split_at(2 * h * i * precision.bytes() / 4);
                    Expert {
                        intermediate: i,
                        first: matrix(first, 2 * h * i, precision, scales),
                        second: matrix(second, h * i, precision, scales),
                    }
                };
                let experts: Vec<Expert> = pieces.into_iter().map(expert).collect();
                let layer = Layer { hidden: h, experts: &experts, shared: &[] };
                let s = Selections { top_k: shape.top_k, experts: &self.places.0, weights: &self.places.1 };
                let (cpu, x, out) = (&mut self.cpu, &self.x, &mut self.out);
                timed(|| cpu.layer(&layer, x, &s, out))
            }
            Work::Gemm { precision, size: [_, n, k] } => {
                let piece = self.piece(n * k * precision.bytes());
                let m = matrix(&self.block[piece], n * k, precision, &self.scales);
                let (cpu, x, out) = (&mut self.cpu, &self.x, &mut self.out);
                timed(|| cpu.gemm(&m, n, k, x, out))
            }
            Work::Library { size: [m, n, k], .. } => {
                let piece = self.piece(4 * n * k);
                let (w, threads) = (&self.block[piece], self.facts.threads);
                let (x, out) = (&self.x, &mut self.out);
                timed(|| cpu::plain(x, w, out, [m, n, k], threads))
            }
            Work::Norm { tokens, hidden } => {
                let piece = self.piece(2 * tokens * hidden);
                let Matrix::Bf16(x) = matrix(&self.block[piece], tokens * hidden, Precision::Bf16, &[]) else {
                    unreachable!("asked for BF16")
                };
                let out = &mut self.narrow;
                timed(|| cpu::norm(x, hidden, out))
            }
            Work::Read(bytes) => {
                let piece = self.piece(bytes);
                let words = &self.block[piece];
                timed(|| {
                    std::hint::black_box(cpu::read(words));
                })
            }
            Work::Write(bytes) => {
                let piece = self.piece(bytes);
                let words = &mut self.block[piece];
                // With what fair weights may be.
                timed(|| cpu::write(words, f32::from_bits(0x3c12_3456)))
            }
            Work::Copy(bytes) => {
                let piece = self.piece(2 * bytes);
                let (from, to) = self.block[piece].split_at_mut(bytes / 4);
                timed(|| cpu::copy(from, to))
            }
            Work::Launch => timed(|| {
                let threads = self.facts.threads;
                (0..threads).into_par_iter().with_max_len(1).for_each(|t| {
                    std::hint::black_box(t);
                });
            }),
            Work::HostCopy { .. } => unreachable!("prepare has refused it"),
        })
    }

    fn now_s(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    fn others_s(&self) -> f64 {
        host::others_s()
    }

    fn pause(&self) {
        std::thread::sleep(PAUSE);
    }

    fn clock_mhz(&self) -> Option<f64> {
        host::clock_mhz()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::plan::{plan, tests::options};
    use crate::measure::sample::{SampleOutcome, sample};

    /// Every kind of work runs, and gives numbers.
    #[test]
    fn everything_can_be_timed() {
        let mut o = options();
        o.host_link = false;
        o.tokens = vec![1, 70];
        o.precisions = vec![Precision::F32, Precision::Bf16, Precision::Int8, Precision::Fp8];
        let mut bench = Processors::new(1 << 22, 1 << 25).unwrap();
        assert!(bench.facts().rotated_bytes >= 1 << 20);
        let all = &bench.block;
        assert!(all.iter().all(|w| w.abs() > 1e-3 && w.abs() < 1.0), "weights");
        let mut names = std::collections::BTreeSet::new();
        for point in plan(&o) {
            if bench.prepare(&point).unwrap().is_none() {
                assert!(bench.once().unwrap() > 0.0 && bench.out.iter().all(|x| x.is_finite()), "{point:?}");
                names.insert(point.work.name());
            }
        }
        assert_eq!(names.len(), 8, "{names:?}");
        let stopped = sample(&mut bench, &Point { work: Work::Launch, pass: 1 }, &|| true).unwrap();
        assert_eq!(stopped, SampleOutcome::Stopped);
        let far = Work::Gemm { precision: Precision::F32, size: [1, 1 << 20, 1 << 20] };
        let SampleOutcome::Left(why) = sample(&mut bench, &Point { work: far, pass: 1 }, &|| false).unwrap() else {
            panic!("measured what does not fit");
        };
        assert!(why.contains("GB"));
    }
}
