//! The bottleneck bound on an all-to-all, which a simulated iteration asks for twice a layer.

use divan::{Bencher, black_box};
use moesim_hwmodels::{Bottleneck, Hardware, Topology, Transfer};
use std::sync::Arc;

fn main() {
    divan::main();
}

#[divan::bench(args = ["h100-8"])]
fn all_to_all(bencher: Bencher, preset: &str) {
    let hardware = Hardware::load(preset).expect("a preset loads");
    let topology = Arc::new(Topology::build(&hardware.topology).expect("a preset builds"));
    let n = topology.devices() as u32;
    let transfers: Vec<Transfer> = (0..n)
        .flat_map(|src| (0..n).map(move |dst| Transfer { src, dst, bytes: 1000 + u64::from(src * 13 + dst * 7) }))
        .filter(|t| t.src != t.dst)
        .collect();
    let mut network = Bottleneck::new(topology);
    bencher.bench_local(|| network.phase(black_box(&transfers), None));
}

#[divan::bench(args = ["h100-8"])]
fn all_to_all_with_link_bytes(bencher: Bencher, preset: &str) {
    let hardware = Hardware::load(preset).expect("a preset loads");
    let topology = Arc::new(Topology::build(&hardware.topology).expect("a preset builds"));
    let n = topology.devices() as u32;
    let transfers: Vec<Transfer> = (0..n)
        .flat_map(|src| (0..n).map(move |dst| Transfer { src, dst, bytes: 1000 + u64::from(src * 13 + dst * 7) }))
        .filter(|t| t.src != t.dst)
        .collect();
    let mut links = vec![0; topology.links().len()];
    let mut network = Bottleneck::new(topology);
    bencher.bench_local(|| network.phase(black_box(&transfers), Some(&mut links)));
}
