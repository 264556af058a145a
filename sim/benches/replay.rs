//! Counting a batch's selections on one core: histograms of experts, and pairs of source device and expert group with a
//! token that goes to several experts of a group counted once.

use divan::{Bencher, counter::ItemsCount};
use moesim::routing::{Binding, Missing, Replay, Segment, SlotMap, Source};
use moesim_solver::{Placement, Problem, method::contiguous::Contiguous};
use moesim_traces::synth::{Subjects, SynthSpec, synthesize};
use std::sync::{Arc, LazyLock};

/// Output rows of a sequence; a batch takes one of each sequence, somewhere inside, so that no two lie together.
const ROWS: u32 = 4;
/// Sequences of the traces: more than a cache holds.
const SEQUENCES: u32 = 7680;

struct TraceShape {
    name: &'static str,
    layers: u32,
    experts: u32,
    k: u32,
}

static LARGE: LazyLock<Source> =
    LazyLock::new(|| source(&TraceShape { name: "58 layers x 256 experts", layers: 58, experts: 256, k: 8 }));
static GPT_OSS: LazyLock<Source> =
    LazyLock::new(|| source(&TraceShape { name: "gpt-oss-20b", layers: 24, experts: 32, k: 4 }));

fn source(shape: &TraceShape) -> Source {
    let spec = SynthSpec {
        model: shape.name.into(),
        layer_numbers: (0..shape.layers).collect(),
        experts: shape.experts,
        k: shape.k,
        sequences: SEQUENCES,
        prompt_rows: 0,
        decode_rows: ROWS,
        subjects: Subjects::Many,
    };
    Source::new(Arc::new(synthesize(&spec, 1).expect("a valid shape")), Missing::Wrap, 1)
}

fn main() {
    // One core, whatever the machine has.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("the first pool");
    divan::main();
}

#[divan::bench(args = [(64, 8), (64, 256), (30_720, 8), (30_720, 256)])]
fn large(bencher: Bencher, (rows, devices): (u32, usize)) {
    count(bencher, &LARGE, rows, devices, devices);
}

/// 320 devices of which 256 have an expert each.
#[divan::bench(args = [64, 30_720])]
fn large_320_devices(bencher: Bencher, rows: u32) {
    count(bencher, &LARGE, rows, 320, 320);
}

#[divan::bench(args = [64, 30_720])]
fn gpt_oss(bencher: Bencher, rows: u32) {
    count(bencher, &GPT_OSS, rows, 8, 8);
}

/// One decode token of each of `rows` requests, dealt over `devices` in blocks.
fn count(bencher: Bencher, source: &Source, rows: u32, devices: usize, groups: usize) {
    let trace = source.trace();
    let (layers, experts) = (trace.layers(), trace.experts());
    let homes = Contiguous.place(&Problem::even(layers, experts, groups)).expect("a placement").homes;
    let mut replay = Replay::new(SlotMap::new(&homes, groups, devices));
    let segments: Vec<Segment> = (0..rows)
        .map(|i| Segment {
            request: u64::from(i),
            // 2,749 is prime to the number of sequences: neighbours in the batch are far apart in the trace.
            binding: Binding { sequence: i * 2749 % SEQUENCES, offset: 0 },
            prompt: 0,
            from: i / SEQUENCES % ROWS,
            count: 1,
            device: (u64::from(i) * devices as u64 / u64::from(rows)) as u32,
            spread: 1,
            turn: 0,
        })
        .collect();
    let selections = rows as usize * trace.width();
    bencher.counter(ItemsCount::new(selections)).bench_local(|| {
        let came = replay.load(source, &segments);
        assert_eq!(came.total(), selections as u64);
    });
}
