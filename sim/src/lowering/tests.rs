//! Collectives of a layer by deployment, and their bytes, against counts by hand.

use crate::engine::OpKind;
use crate::experiment;
use crate::metrics::tables::Tables;
use crate::registry::Registry;
use crate::simulation::{Simulation, open_trace};
use moesim_core::Picos;

/// Tokens of the iteration: one prompt a device, of as many tokens each, so that every piece is whole.
const PROMPT: u64 = 64;
const DEVICES: u64 = 8;
const LAYERS: u64 = 24;
/// gpt-oss-20b: 2,880 of 16 bits.
const TOKEN_BYTES: u64 = 2 * 2880;

/// What an iteration of eight prompts has.
#[derive(Debug, PartialEq)]
struct Counted {
    /// Operations a layer.
    all_reduces: u64,
    dispatches: u64,
    combines: u64,
    /// Bytes of rings a layer, over all edges.
    ring_bytes: u64,
    /// Bytes of dispatches and combines a layer, if all experts are wanted by all devices.
    exchanged: Option<[u64; 2]>,
    /// Tokens that each device's gate sees, as its share of the gate's operations on all tokens.
    gate_flop: u64,
}

fn counted(set: &[&str]) -> Counted {
    let common = [
        "workload.arrivals={ kind = \"closed-loop\", concurrency = 8, requests = 8, prompt_tokens = { mean = 64 }, output_tokens = { mean = 1 } }",
        "workload.routing={ kind = \"uniform\", sequences = 8, prompt_rows = 64, decode_rows = 1 }",
    ];
    let set: Vec<String> = common.iter().chain(set).map(|s| (*s).to_string()).collect();
    let resolved = experiment::load("quickstart", &set).unwrap();
    let mut s = Simulation::new(&resolved, &Registry::builtin(), || open_trace(&resolved), Tables::default()).unwrap();
    let mut now = Picos::ZERO;
    assert!(s.step(&mut now).unwrap());
    let g = &s.executor.graph;
    let of = |kind| (0..g.len()).filter(|&i| g.kind(i) == kind).count() as u64;
    let all_reduces = of(OpKind::AllReduce);
    let gate = (0..g.len()).filter(|&i| g.kind(i) == OpKind::Gate && g.device(i) == 0);
    Counted {
        all_reduces: all_reduces / LAYERS,
        dispatches: of(OpKind::Dispatch) / LAYERS,
        combines: of(OpKind::Combine) / LAYERS,
        ring_bytes: s.network.allreduce_bytes / LAYERS,
        exchanged: Some([s.network.dispatch_bytes / LAYERS, s.network.combine_bytes / LAYERS]),
        gate_flop: gate.map(|i| g.flop(i)).sum::<u64>() / LAYERS,
    }
}

#[test]
fn collectives_of_a_layer_by_layout() {
    let tokens = PROMPT * DEVICES;
    let bytes = tokens * TOKEN_BYTES;
    // A ring of n devices sends n - 1 pieces of 1 / n over each of its n edges: a round is (n - 1) times the buffer.
    let round = |n: u64, buffer: u64| (n - 1) * buffer;
    let gate = |tokens: u64| 2 * tokens * 2880 * 32;
    let none = Some([0, 0]);
    // Two all-reduces of two rounds each; every gate sees all tokens. Experts by number or in parts, it is the same.
    let expected = Counted {
        all_reduces: 2,
        dispatches: 0,
        combines: 0,
        ring_bytes: 2 * 2 * round(DEVICES, bytes),
        exchanged: none,
        gate_flop: gate(tokens),
    };
    assert_eq!(counted(&["deployment.attention_tp=8"]), expected);
    assert_eq!(counted(&["deployment.attention_tp=8", "deployment.expert_tp=8"]), expected);
    assert_eq!(counted(&["deployment.attention_tp=8", "deployment.layout=replicated"]), expected);
    // A reduce-scatter and an all-gather of a round each, and the exchange.
    let dealt = ["deployment.attention_tp=8", "deployment.layout=sequence-parallel"];
    let found = counted(&dealt);
    let expected = Counted {
        all_reduces: 2,
        dispatches: 1,
        combines: 1,
        ring_bytes: 2 * round(DEVICES, bytes),
        exchanged: None,
        gate_flop: gate(PROMPT),
    };
    assert_eq!(Counted { exchanged: None, ..found }, expected);
    // Four ranks of two devices: the same in rings of two.
    let found = counted(&["deployment.attention_tp=2"]);
    let rings = Counted { ring_bytes: 4 * 2 * round(2, bytes / 4), all_reduces: 8, ..expected };
    assert_eq!(Counted { exchanged: None, ..found }, rings);
    // Data-parallel attention: no rings. All tokens to all devices, or those that are wanted.
    let flat = counted(&["policy.dispatch=flat"]);
    let all = [round(DEVICES, bytes); 2];
    let everywhere = Some(all);
    let expected = Counted { all_reduces: 0, ring_bytes: 0, exchanged: everywhere, ..rings };
    assert_eq!(counted(&["policy.dispatch=all-gather"]), Counted { gate_flop: gate(PROMPT), ..expected });
    assert!(flat.exchanged.unwrap()[0] < all[0] && flat.all_reduces == 0);
    // Parts of experts are summed with the rest, not before.
    let parts = counted(&["policy.dispatch=all-gather", "deployment.expert_tp=8"]);
    assert_eq!((parts.all_reduces, parts.exchanged), (0, everywhere));
    assert_eq!(counted(&["policy.dispatch=flat", "deployment.expert_tp=8"]).all_reduces, 1);
}

/// Shared experts are split where tokens are replicated: a device holds an eighth of them and computes an eighth for all tokens.
#[test]
fn shared_experts_and_memory_by_layout() {
    let set = |layout: &str| {
        let set = [
            "model=deepseek-v2-lite",
            "deployment.attention_tp=8",
            layout,
            "workload.routing={ kind = \"uniform\", sequences = 8, prompt_rows = 64, decode_rows = 1 }",
            "workload.arrivals={ kind = \"closed-loop\", concurrency = 8, requests = 8, prompt_tokens = { mean = 64 }, output_tokens = { mean = 1 } }",
        ];
        let set: Vec<String> = set.iter().map(|s| (*s).to_string()).collect();
        let resolved = experiment::load("quickstart", &set).unwrap();
        Simulation::new(&resolved, &Registry::builtin(), || open_trace(&resolved), Tables::default()).unwrap().plan
    };
    let (everywhere, dealt) = (set("deployment.layout=replicated"), set("deployment.layout=sequence-parallel"));
    let m = &dealt.model;
    let shared: u64 = m.decoder.iter().map(|l| l.shared_weight_bytes(m)).sum();
    let less = dealt.common_weight_bytes() - everywhere.common_weight_bytes();
    assert!(less.abs_diff(shared - shared / 8) <= 1, "{less} {shared}");
    assert_eq!(everywhere.shared_cost(0, 512).flop, dealt.shared_cost(0, 64).flop);
}

#[test]
fn tokens_of_several_ranks_are_not_everywhere() {
    let refused = |set: &[&str], words: &str| {
        let set: Vec<String> = set.iter().map(|s| (*s).to_string()).collect();
        let resolved = experiment::load("quickstart", &set).unwrap();
        let made = Simulation::new(&resolved, &Registry::builtin(), || open_trace(&resolved), Tables::default());
        let problem = made.err().unwrap().to_string();
        assert!(problem.contains("deployment.layout") && problem.contains(words), "{problem}");
    };
    refused(&["deployment.layout=replicated"], "attention_tp to 8");
    let follow = ["deployment.attention_tp=8", "deployment.tokens=token-follows", "deployment.layout=replicated"];
    refused(&follow, "follow nothing");
}
