//! The bottleneck bound on an all-to-all, which a simulated iteration asks for twice a layer.

use divan::{Bencher, black_box};
use moesim_hwmodels::{Bottleneck, Hardware, Topology, Transfer};
use std::sync::Arc;

fn main() {
    divan::main();
}

const PRESETS: [&str; 4] = ["h100-8", "mi300x-8", "h800-2x8", "wafer-5x5"];

/// Every device sends to every other, with unequal bytes: 56, 56, 240 and 600 transfers.
fn all_pairs(preset: &str) -> (Bottleneck, Vec<Transfer>) {
    let hardware = Hardware::load(preset).expect("a preset loads");
    let topology = Arc::new(Topology::build(&hardware.topology).expect("a preset builds"));
    let n = topology.devices() as u32;
    let pairs = (0..n).flat_map(|src| (0..n).map(move |dst| (src, dst))).filter(|(src, dst)| src != dst);
    let transfers = pairs.map(|(src, dst)| Transfer { src, dst, bytes: 1000 + u64::from(src * 13 + dst * 7) });
    (Bottleneck::new(topology), transfers.collect())
}

#[divan::bench(args = PRESETS)]
fn all_to_all(bencher: Bencher, preset: &str) {
    let (mut network, transfers) = all_pairs(preset);
    bencher.bench_local(|| network.phase(black_box(&transfers), None));
}

#[divan::bench(args = PRESETS)]
fn all_to_all_with_link_bytes(bencher: Bencher, preset: &str) {
    let (mut network, transfers) = all_pairs(preset);
    let mut links = vec![0; network.topology().links().len()];
    bencher.bench_local(|| network.phase(black_box(&transfers), Some(&mut links)));
}
