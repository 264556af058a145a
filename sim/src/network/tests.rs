//! Sums over devices and nodes against transfers one by one, in whole runs.

use crate::experiment;
use crate::metrics::tables::Tables;
use crate::registry::Registry;
use crate::simulation::{Simulation, open_trace};

/// Bytes of all links, those of dispatches and combines, all and between nodes, and the end of a run.
type Found = (Vec<u64>, [u64; 4], u64);

/// A run of sixteen requests, but for what `set` changes; with transfers one by one if `walk`.
fn run(set: &[&str], walk: bool) -> Found {
    let common = [
        "workload.arrivals={ kind = \"closed-loop\", concurrency = 16, requests = 16, prompt_tokens = { mean = 40, spread = 0.5 }, output_tokens = { mean = 3 } }",
        "workload.routing={ kind = \"uniform\", sequences = 4, prompt_rows = 64, decode_rows = 4 }",
    ];
    let set: Vec<String> = common.iter().chain(set).map(|s| (*s).to_string()).collect();
    let resolved = experiment::load("quickstart", &set).unwrap();
    let mut s = Simulation::new(&resolved, &Registry::builtin(), || open_trace(&resolved), Tables::default()).unwrap();
    assert!(s.network.summed.is_some(), "{set:?}");
    if walk {
        s.network.summed = None;
    }
    s.run(&mut |_| true).unwrap();
    let n = &s.network;
    let bytes = [n.dispatch_bytes, n.combine_bytes, n.cross_node_bytes, n.dispatch_cross_node_bytes];
    (n.link_bytes.clone(), bytes, s.recorder.totals().end.0)
}

/// Behind a switch, on planes and on fat trees, with every way of dispatch, by roofline and by calibrated kernels, with
/// expert groups of several devices, tensor-parallel ranks, and tokens that follow their experts.
#[test]
fn sums_are_the_walk_over_pairs_in_whole_runs() {
    let machines: [&[&str]; 4] = [
        &["hardware=h100-8"],
        &["hardware=h800-2x8"],
        &["hardware=h800-2x8", "hardware.topology.cross_rail=spine"],
        &["hardware=cloudmatrix384", "hardware.topology.nodes=2"],
    ];
    let ways = ["flat", "per-selection", "all-gather", "hierarchical"];
    let deployments: [&[&str]; 5] = [
        &[],
        &["fidelity.costs=roofline"],
        &["deployment.expert_tp=2"],
        &["deployment.attention_tp=2"],
        &["policy.placement=random", "deployment.dispatch_bits=8"],
    ];
    let mut runs: Vec<Vec<&str>> = Vec::new();
    for machine in machines {
        for way in ways.map(|w| format!("policy.dispatch={w}").leak() as &str) {
            runs.extend(deployments.map(|d| [machine, &[way], d].concat()));
        }
    }
    let follow = ["deployment.attention_tp=8", "deployment.tokens=token-follows", "policy.dispatch=flat"];
    runs.push([&["hardware=h100-8"], &follow[..]].concat());
    for set in runs {
        let (sums, pairs) = (run(&set, false), run(&set, true));
        assert!(sums.1[0] > 0, "{set:?}");
        assert_eq!(sums, pairs, "{set:?}");
    }
}
