//! Networks on an all-to-all, which a simulated iteration asks for twice a layer.

use divan::{Bencher, black_box, counter::ItemsCount};
use moesim_hwmodels::{Bottleneck, Flow, Hardware, Reserve, Topology, Transfer, TransferModel};
use std::sync::Arc;

/// Runs the benchmarks; with `MOESIM_LARGE=1` instead those of 384 endpoints, once each, since one takes minutes.
fn main() {
    if std::env::var_os("MOESIM_LARGE").is_none() {
        return divan::main();
    }
    for skew in SKEWS {
        let (topology, transfers) = half_a_supernode(skew);
        println!("384 endpoints, {skew}: {} transfers", transfers.len());
        let mut flow = Flow::new(topology.clone());
        let flow_s = timed("flow", &mut flow, &transfers);
        println!("  {} events", flow.events());
        for (name, network) in [
            ("bottleneck", Box::new(Bottleneck::new(topology.clone())) as Box<dyn TransferModel>),
            ("reserve", Box::new(Reserve::new(topology.clone(), true))),
        ] {
            let mut network = network;
            let time_s = timed(name, &mut *network, &transfers);
            println!("  {name} against flow: {:+.2} %", (time_s / flow_s - 1.0) * 100.0);
        }
    }
}

/// Simulated seconds.
fn timed(name: &str, network: &mut dyn TransferModel, transfers: &[Transfer]) -> f64 {
    let start = std::time::Instant::now();
    let time_s = network.phase(transfers, None).time_s;
    println!("  {name}: {:.2} us simulated in {:.3} s", time_s * 1e6, start.elapsed().as_secs_f64());
    time_s
}

const SKEWS: [&str; 3] = ["uniform", "tokens", "skewed"];

/// Half of CloudMatrix384, 24 nodes of 16 dies, every die sending to every other: all the same; a few tokens of 7.5 KB
/// (96 tokens a die, 8 experts each, drawn evenly); or as many drawn with a popularity of receivers that falls as 1 /
/// rank.
fn half_a_supernode(skew: &str) -> (Arc<Topology>, Vec<Transfer>) {
    let mut hardware = Hardware::load("cloudmatrix384").expect("a preset loads");
    if let moesim_hwmodels::TopologySpec::Planes { nodes, .. } = &mut hardware.topology {
        *nodes = 24;
    }
    let topology = Arc::new(hardware.build_topology().expect("a preset builds"));
    let n = topology.devices() as u32;
    let mut bytes = vec![if skew == "uniform" { 15_000 } else { 0 }; (n * n) as usize];
    if skew != "uniform" {
        // Cumulative popularity in units of 1 / 2^32.
        let weight = |i: u32| if skew == "skewed" { 1.0 / f64::from(i + 1) } else { 1.0 };
        let total: f64 = (0..n).map(weight).sum();
        let mut sum = 0.0;
        let below: Vec<f64> = (0..n)
            .map(|i| {
                sum += weight(i) / total;
                sum
            })
            .collect();
        let mut state = 1u64;
        for src in 0..n {
            for _ in 0..96 * 8 {
                // Knuth's generator is random enough here.
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let u = (state >> 32) as f64 / 4_294_967_296.0;
                let rank = below.partition_point(|&b| b < u) as u32;
                // Popular receivers are apart from each other.
                let dst = rank.min(n - 1) * 5 % n;
                bytes[(src * n + dst) as usize] += 7_500;
            }
        }
    }
    let all = (0..n).flat_map(|src| (0..n).map(move |dst| (src, dst)));
    let transfers = all.zip(bytes).map(|((src, dst), bytes)| Transfer { src, dst, bytes });
    (topology, transfers.filter(|t| t.bytes > 0 && t.src != t.dst).collect())
}

/// Events per second.
#[divan::bench(args = PRESETS)]
fn flow_all_to_all(bencher: Bencher, preset: &str) {
    let (network, transfers) = all_pairs(preset);
    let mut flow = Flow::new(network.topology().clone());
    flow.phase(&transfers, None);
    let events = flow.events();
    bencher.counter(ItemsCount::new(events)).bench_local(|| flow.phase(black_box(&transfers), None));
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
