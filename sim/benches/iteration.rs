//! Whole decode iterations: scheduled, replayed, lowered, executed and recorded, on 24 layers and 8 devices.

use divan::{Bencher, counter::ItemsCount};
use moesim::experiment;
use moesim::metrics::tables::Tables;
use moesim::registry::Registry;
use moesim::simulation::{Simulation, open_trace};
use std::sync::Arc;

/// Tokens of each request; the first comes of its prompt of one token, so that iterations are alike.
const TOKENS: u32 = 128;
const RANKS: u32 = 8;

fn main() {
    divan::main();
}

/// Time over the iterations of a run in which every rank decodes `sequences` at once; an item is an iteration.
#[divan::bench(args = [1, 8, 64, 256], sample_count = 20)]
fn phase(bencher: Bencher, sequences: u32) {
    run(bencher, "phase", sequences);
}

/// The same by events.
#[divan::bench(args = [1, 8, 64, 256], sample_count = 20)]
fn op(bencher: Bencher, sequences: u32) {
    run(bencher, "op", sequences);
}

fn run(bencher: Bencher, execution: &str, sequences: u32) {
    let users = sequences * RANKS;
    let set = [
        format!("fidelity.execution={execution}"),
        format!("workload.arrivals.concurrency={users}"),
        format!("workload.arrivals.requests={users}"),
        "workload.arrivals.prompt_tokens={ mean = 1 }".into(),
        format!("workload.arrivals.output_tokens={{ mean = {TOKENS} }}"),
        format!("workload.routing.sequences={}", users.min(512)),
        "workload.routing.prompt_rows=1".into(),
        format!("workload.routing.decode_rows={TOKENS}"),
    ];
    let resolved = experiment::load("quickstart", &set).expect("a valid experiment");
    let registry = Registry::builtin();
    let trace = open_trace(&resolved).expect("a valid shape");
    let new = || Simulation::new(&resolved, &registry, || Ok(Arc::clone(&trace)), Tables::default());
    bencher
        .counter(ItemsCount::new(TOKENS))
        .with_inputs(|| new().expect("a valid experiment"))
        .bench_local_values(|mut simulation| simulation.run(&mut |_| true).expect("a run"));
}
