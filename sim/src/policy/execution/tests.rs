//! What the mechanisms of a model file do to tokens, bytes and FLOP, on layers small enough to count by hand.

use super::{ExpertParallel, OnDemand, PimSplit};
use crate::engine::{Graph, OpKind};
use crate::lowering::Ops;
use crate::machine::{Deployment, Machine, Plan};
use crate::network::Network;
use crate::network::dispatch::Flat;
use crate::placing::place;
use crate::policy::{CacheFraction, ExecutionPolicy, Report, View};
use crate::routing::{Binding, Missing, Replay, Revealed, Segment, Selections, Source};
use crate::simulation::check_trace;
use moesim_core::Picos;
use moesim_hwmodels::Hardware;
use moesim_solver::method::contiguous::Contiguous;
use moesim_traces::{Meta, Model, OwnedSequence, Trace};
use std::sync::Arc;

/// Width of the residual stream; a token's activation is 128 bytes.
const HIDDEN: u64 = 64;
/// A place of a row without an expert.
const NONE: u16 = u16::MAX;

/// One decoder layer with this MoE block, everything in 16 bits.
fn model(moe: &str) -> Model {
    let text = format!(
        "name = \"t\"\nsource = \"none\"\nhidden = {HIDDEN}\nvocabulary = 100\n[decoder]\nlayers = 1\n\
         attention = {{ heads = {{ gqa = {{ heads = 4, kv_heads = 4, head_dim = 16 }} }} }}\nmoe = {{ {moe} }}\n\
         [precision]\nattention = 16\nrouter = 16\nexperts = 16\nshared = 16\ndense = 16\nembedding = 16\nhead = 16\n\
         kv = 16\nactivation = 16\n[published]\n"
    );
    Model::from_table(text.parse().unwrap(), "t").unwrap()
}

/// What a layer does on two groups of devices, the experts split in the middle.
#[derive(Debug, PartialEq)]
struct Done {
    /// FLOP and bytes of memory of each device's experts.
    experts: Vec<(u64, u64)>,
    dispatch_bytes: u64,
    combine_bytes: u64,
    allreduce_bytes: u64,
    selections: Selections,
    /// Bytes of experts that each device holds.
    held: Vec<u64>,
}

/// Executes `rows` of `k` ids on two devices of the hardware `hw`, of which the first `on_first` are tokens of device 0 and the rest of device 1.
fn on(m: &Model, hw: &str, k: u32, rows: &[&[u16]], on_first: u32, policy: &mut dyn ExecutionPolicy) -> Done {
    on_groups(m, hw, 1, k, rows, on_first, policy)
}

/// The same on two groups of `expert_tp` devices, of which each has its part of the group's experts.
fn on_groups(
    m: &Model,
    hw: &str,
    expert_tp: u32,
    k: u32,
    rows: &[&[u16]],
    on_first: u32,
    policy: &mut dyn ExecutionPolicy,
) -> Done {
    let devices = 2 * expert_tp as usize;
    let mut table: toml::Table = moesim_hwmodels::preset_text(hw).unwrap().parse().unwrap();
    let h100: toml::Table = moesim_hwmodels::preset_text("h100-8").unwrap().parse().unwrap();
    table.insert("topology".into(), h100["topology"].clone());
    moesim_core::config::set(&mut table, &format!("topology.devices={devices}")).unwrap();
    let machine = Machine::new(Hardware::from_table(table, "h").unwrap()).unwrap();
    let plan = Plan::new(m.clone(), machine, Deployment { expert_tp, ..Deployment::default() }).unwrap();
    let meta = Meta {
        model: "t".into(),
        layer_numbers: vec![0],
        experts: m.decoder[0].moe().unwrap().ids(),
        k,
        source: "by hand".into(),
        licence: "none".into(),
    };
    let sequence = OwnedSequence { prefill: rows.concat(), ..OwnedSequence::default() };
    let trace = Arc::new(Trace::from_sequences(meta, vec![sequence]).unwrap());
    trace.check_sequence(0).unwrap();
    check_trace(&plan, &trace).unwrap();
    let source = Source::new(trace, Missing::Refuse, 1);
    let mut replay = Replay::new(place(&plan, &Contiguous, "contiguous").unwrap());
    let count = rows.len() as u32;
    let binding = Binding { sequence: 0, offset: 0 };
    let part =
        |device, from, count| Segment { request: 0, binding, prompt: count, from, count, device, spread: 1, turn: 0 };
    let segments = [part(0, 0, on_first), part(1, on_first, count - on_first)];
    let segments = segments.map(|s| Segment { prompt: count, ..s });
    let came = replay.load(&source, &segments);
    assert_eq!(came.total(), replay.assigned());
    let selections = replay.selections();
    assert_eq!(selections.routed(), replay.assigned());
    let (mut graph, mut network) =
        (Graph::default(), Network::new(&plan, Default::default(), Box::new(Flat), Default::default()));
    let gate = graph.join(0, &[]);
    let mut tokens = vec![0; devices];
    tokens[..2].copy_from_slice(&[u64::from(on_first), u64::from(count - on_first)]);
    let view = View {
        now: Picos::ZERO,
        iterations: 0,
        history: replay.history(),
        placement: replay.map(),
        queued: &[],
        kv_used: &[],
        rows: Revealed::new(&source, &segments, 0),
        future: None,
    };
    let mut ops = Ops {
        plan: &plan,
        moe_layer: 0,
        placement: replay.map(),
        graph: &mut graph,
        network: &mut network,
        layer: 0,
        gate,
        arrived: gate,
        frontier: &mut vec![Some(gate); devices],
        tokens: &tokens,
        done: &mut Vec::new(),
    };
    policy.lower(&view, &replay.reveal(0), &mut ops);
    let mut experts = vec![(0, 0); devices];
    for i in (0..graph.len()).filter(|&i| graph.kind(i) == OpKind::Experts) {
        let at = &mut experts[graph.device(i) as usize];
        at.0 += graph.flop(i);
        at.1 += graph.demands(i).iter().map(|d| d.amount).sum::<u64>();
    }
    // Behind one switch, every byte leaves its device once.
    let links = plan.machine.topology.links().iter().zip(&network.link_bytes);
    let left: u64 = links.filter(|(l, _)| (l.from as usize) < devices).map(|l| l.1).sum();
    assert_eq!(left, network.dispatch_bytes + network.combine_bytes + network.allreduce_bytes);
    let common = plan.common_part_bytes(replay.map());
    let held = policy.resident_expert_bytes(&plan, replay.map()).iter().zip(common).map(|(a, b)| a + b).collect();
    Done {
        experts,
        dispatch_bytes: network.dispatch_bytes,
        combine_bytes: network.combine_bytes,
        allreduce_bytes: network.allreduce_bytes,
        selections,
        held,
    }
}

fn run(model: &Model, k: u32, rows: &[&[u16]], on_first: u32) -> Done {
    on(model, "h100-8", k, rows, on_first, &mut ExpertParallel)
}

/// FLOP and bytes of `tokens` tokens on `experts` activated experts of inner width `width`, three matrices each: every
/// weight once, tokens in, the product out and in, results out, 2 bytes each.
fn ffn(tokens: u64, experts: u64, width: u64) -> (u64, u64) {
    let matrices = 3 * HIDDEN * width;
    (2 * tokens * matrices, 2 * (experts * matrices + tokens * (2 * HIDDEN + 2 * width)))
}

fn sum(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 + b.0, a.1 + b.1)
}

#[test]
fn zero_compute_experts_cost_nothing() {
    let m = model(
        "experts = 2, top_k = 3, expert_intermediate = 32, zero_experts = 1, copy_experts = 1, constant_experts = 1",
    );
    // Ids 2, 3 and 4 compute nothing. Only the second token leaves its device.
    let done = run(&m, 3, &[&[0, 2, 3], &[1, 4, 2], &[2, 3, 4]], 2);
    assert_eq!(done.experts, [ffn(1, 1, 32); 2]);
    assert_eq!((done.dispatch_bytes, done.combine_bytes), (128, 128));
    assert_eq!(done.selections, Selections { computed: 2, zero_compute: 7, ..Selections::default() });
    assert_eq!(done.held, [2 * 3 * HIDDEN * 32; 2]);
    // With zero-compute experts alone, nothing runs and nothing moves.
    let idle = run(&m, 3, &[&[4, 2, 3], &[3, 4, 2]], 1);
    assert_eq!((idle.experts, idle.dispatch_bytes), (vec![(0, 0); 2], 0));
    // The router has a row an id; a constant expert three vectors.
    assert_eq!(m.decoder[0].router_weight_bytes(&m), 2 * (5 + 3) * HIDDEN);
    assert_eq!(m.decoder[0].expert_weight_bytes(&m, 2), 0);
}

#[test]
fn a_token_computes_as_many_experts_as_its_row_has() {
    let m = model("experts = 4, top_k = 3, expert_intermediate = 32");
    let rows: [&[u16]; 4] = [&[0, 1, 2], &[3, NONE, NONE], &[NONE, NONE, NONE], &[2, 3, NONE]];
    let done = run(&m, 3, &rows, 2);
    // Experts 0 and 1 on device 0, 2 and 3 on device 1.
    assert_eq!(done.experts, [ffn(2, 2, 32), ffn(4, 2, 32)]);
    // Tokens 0 and 1 of device 0 go to device 1, once each.
    assert_eq!((done.dispatch_bytes, done.combine_bytes), (256, 256));
    assert_eq!(done.selections, Selections { computed: 6, absent: 6, ..Selections::default() });
    // A trace of narrower rows than the model's top_k is one of fewer experts a token.
    assert_eq!(run(&m, 1, &[&[0], &[NONE]], 1).experts, [ffn(1, 1, 32), (0, 0)]);
}

#[test]
fn experts_of_different_sizes_weigh_what_they_are() {
    let m = model("experts = 4, top_k = 2, expert_intermediate = 0, expert_sizes = [16, 32, 48, 64]");
    let rows: [&[u16]; 3] = [&[0, 1], &[0, 3], &[2, 3]];
    let done = run(&m, 2, &rows, 3);
    let expected = [sum(ffn(2, 1, 16), ffn(1, 1, 32)), sum(ffn(1, 1, 48), ffn(2, 1, 64))];
    assert_eq!(done.experts, expected);
    let bytes = |width: u64| 2 * 3 * HIDDEN * width;
    assert_eq!(done.held, [bytes(16 + 32), bytes(48 + 64)]);
    assert_eq!(run(&model("experts = 4, top_k = 2, expert_intermediate = 32"), 2, &rows, 3).experts[0], ffn(3, 2, 32));
}

#[test]
fn loads_and_caches_count_bytes_where_sizes_differ() {
    let mut m = model("experts = 4, top_k = 2, expert_intermediate = 0, expert_sizes = [16, 32, 48, 64]");
    m.precision.experts = 8.0;
    let bytes = |width: u64| 3 * HIDDEN * width;
    // Half of 16 + 32 is 24, of 48 + 64 is 56, less than the largest expert of each device.
    let mut policy = OnDemand::new(CacheFraction::Of(0.5));
    let done = on(&m, "rtx4090-offload", 2, &[&[0, 1], &[0, 3], &[2, 3]], 3, &mut policy);
    assert_eq!(done.held, [bytes(32) + bytes(64), bytes(64) + bytes(64)]);
    let mut report = Report::default();
    policy.report(&mut report);
    let counted = ["hits", "loads", "loaded_bytes"].map(|name| report.get(name).unwrap());
    assert_eq!(counted, [0, 4, bytes(16 + 32 + 48 + 64)]);
}

#[test]
fn each_size_goes_to_the_side_that_favours_it() {
    let m = model("experts = 4, top_k = 2, expert_intermediate = 0, expert_sizes = [16, 32, 48, 64]");
    let rows: [&[u16]; 3] = [&[0, 1], &[0, 3], &[2, 3]];
    // PIM or cores, FLOP and bytes are the same.
    let split = on(&m, "duplex-1", 2, &rows, 3, &mut PimSplit::default());
    assert_eq!(split, run(&m, 2, &rows, 3));
}

#[test]
fn a_groups_common_part_is_computed_once_a_token_and_device() {
    let groups = |n: u32| {
        model(&format!("experts = 6, top_k = 3, expert_intermediate = 32, groups = {n}, group_intermediate = 16"))
    };
    // Experts 0 to 2 are on device 0. Pairs {0, 1}, {2, 3}, {4, 5}: the middle one is on both devices.
    let rows: [&[u16]; 3] = [&[0, 1, 2], &[2, 3, NONE], &[0, 1, NONE]];
    let done = run(&groups(3), 3, &rows, 3);
    // Device 0: pair {0, 1} by tokens 0 and 2, pair {2, 3} by tokens 0 and 1. Device 1: pair {2, 3} by token 1.
    assert_eq!(done.experts, [sum(ffn(6, 3, 32), ffn(4, 2, 16)), sum(ffn(1, 1, 32), ffn(1, 1, 16))]);
    let bytes = |width: u64| 2 * 3 * HIDDEN * width;
    assert_eq!(done.held, [3 * bytes(32) + 2 * bytes(16); 2]);
    assert_eq!(done.dispatch_bytes, 128);
    // Triples lie on a device each, and token 0 computes the common part of {0, 1, 2} once.
    let together = run(&groups(2), 3, &rows, 3);
    assert_eq!(together.experts, [sum(ffn(6, 3, 32), ffn(3, 1, 16)), sum(ffn(1, 1, 32), ffn(1, 1, 16))]);
    assert_eq!(together.held, [3 * bytes(32) + bytes(16); 2]);
    // Three of six ids, pairs: a pair is missed with probability 4/6 x 3/5 x 2/4 = 1/5.
    assert_eq!(groups(3).decoder[0].moe().unwrap().groups_hit(), 3.0 * (1.0 - 0.2));
    // On demand, experts are loaded and common parts stay.
    let held = on(&groups(3), "rtx4090-offload", 3, &rows, 3, &mut OnDemand::new(CacheFraction::Of(0.5))).held;
    assert_eq!(held, [2 * bytes(32) + 2 * bytes(16); 2]);
}

#[test]
fn factors_and_fewer_bits_make_experts_smaller() {
    let rows: [&[u16]; 3] = [&[0, 1], &[0, 3], &[2, 3]];
    let with = |more: &str| model(&format!("experts = 4, top_k = 2, expert_intermediate = 32{more}"));
    // Rank 8: three pairs of factors of 8 x (64 + 32) an expert; three activations of 8 between factors go out and in.
    let done = run(&with(", expert_rank = 8"), 2, &rows, 3);
    let (weights, between) = (3 * 8 * (HIDDEN + 32), 2 * 3 * 8);
    let small = (2 * 3 * weights, 2 * (2 * weights + 3 * (2 * HIDDEN + 2 * 32 + between)));
    assert_eq!((done.experts, done.held), (vec![small; 2], vec![2 * 2 * weights; 2]));
    // A base of full width: each token once a device. Tokens 0 and 1 are on device 0, tokens 1 and 2 on device 1.
    let based = run(&with(", expert_rank = 8, expert_base = true"), 2, &rows, 3);
    assert_eq!(based.experts, [sum(small, ffn(2, 1, 32)); 2]);
    assert_eq!(based.held, [2 * (2 * weights + 3 * HIDDEN * 32); 2]);
    // Two bits a weight: an eighth of the weights' bytes, the same FLOP.
    let mut narrow = with("");
    narrow.precision.experts = 2.0;
    let ((flop, bytes), whole) = (run(&narrow, 2, &rows, 3).experts[0], ffn(3, 2, 32));
    assert_eq!((flop, whole.1 - bytes), (whole.0, 2 * 2 * 3 * HIDDEN * 32 * 7 / 8));
}

#[test]
fn an_expert_takes_no_more_than_its_capacity() {
    let with = |more: &str| model(&format!("experts = 2, top_k = 2, expert_intermediate = 32, zero_experts = 1{more}"));
    let capped = with(", capacity_factor = 0.5");
    // Six tokens: ceil(0.5 x 6 x 2 / 2) = 3 an expert. The fourth and the last want expert 0 in vain.
    let rows: [&[u16]; 6] = [&[0, 2], &[0, 1], &[0, 2], &[0, 1], &[2, NONE], &[0, NONE]];
    let done = run(&capped, 2, &rows, 4);
    assert_eq!(done.selections, Selections { computed: 5, zero_compute: 3, dropped: 2, absent: 2 });
    assert_eq!(done.experts, [ffn(3, 1, 32), ffn(2, 1, 32)]);
    // Tokens 1 and 3 go to device 1; token 5 would have gone to device 0 but is dropped.
    assert_eq!((done.dispatch_bytes, done.combine_bytes), (256, 256));
    assert_eq!(run(&with(""), 2, &rows, 4).experts, [ffn(5, 1, 32), ffn(2, 1, 32)]);
    // Padded: three rows an expert, two of each from device 0 with its four tokens, one from device 1 with its two.
    let padded = run(&with(", capacity_factor = 0.5, capacity_padding = true"), 2, &rows, 4);
    assert_eq!(padded.selections, done.selections);
    assert_eq!(padded.experts, [ffn(3, 1, 32); 2]);
    assert_eq!((padded.dispatch_bytes, padded.combine_bytes), (128 * (2 + 1), 128 * (2 + 1)));
    // An expert that nobody chose computes its padding.
    let idle = run(&with(", capacity_factor = 1.0, capacity_padding = true"), 2, &[&[0, 2], &[0, 2]], 1);
    assert_eq!(idle.experts, [ffn(2, 1, 32); 2]);
    // The base is for tokens alone: three of expert 0 that were not dropped, two of expert 1.
    let more = ", capacity_factor = 0.5, capacity_padding = true, expert_rank = 8, expert_base = true";
    let based = run(&with(more), 2, &rows, 4).experts;
    let base = [ffn(3, 1, 32), ffn(2, 1, 32)];
    assert_eq!((based[0].0 - based[1].0, based[0].1 - based[1].1), (base[0].0 - base[1].0, base[0].1 - base[1].1));
    // Dropped members of a group do not compute its common part: it is on both devices.
    let group = ", capacity_factor = 0.5, groups = 1, group_intermediate = 16";
    let grouped = run(&with(group), 2, &rows, 4).experts;
    assert_eq!(grouped, [sum(ffn(3, 1, 32), ffn(3, 1, 16)), sum(ffn(2, 1, 32), ffn(2, 1, 16))]);
}

/// Tokens of devices 0 and 1, which share the first half of the experts; 2 and 3 share the other.
#[test]
fn padded_capacities_on_devices_that_share_experts() {
    let on_four = |m: &Model, k, rows: &[&[u16]], first| on_groups(m, "h100-8", 2, k, rows, first, &mut ExpertParallel);
    let with = |more: &str| {
        model(&format!(
            "experts = 2, top_k = 2, expert_intermediate = 32, zero_experts = 1, capacity_factor = 0.5{more}"
        ))
    };
    let rows: [&[u16]; 6] = [&[0, 2], &[0, 1], &[0, 2], &[0, 1], &[2, NONE], &[0, NONE]];
    let done = on_four(&with(", capacity_padding = true"), 2, &rows, 4);
    // Three rows an expert, of half its width on each device.
    assert_eq!((done.experts, done.held), (vec![ffn(3, 1, 16); 4], vec![2 * 3 * HIDDEN * 16; 4]));
    assert_eq!(done.selections, Selections { computed: 5, zero_compute: 3, dropped: 2, absent: 2 });
    // Of each expert's rows, device 0 sends two to each device of the group but itself, device 1 one: 2 + 2 x 2 + 1 + 2 x 1.
    assert_eq!(done.dispatch_bytes, 128 * 9);
    // Back from one device of the group, which for expert 0 is the token's own: 2 + 1.
    assert_eq!(done.combine_bytes, 128 * 3);
    // Two devices, two rounds, three rows in both groups.
    assert_eq!(done.allreduce_bytes, 2 * 2 * 128 * 3);
    // The common part is on all four, for the tokens that were not dropped: three of expert 0, two of expert 1.
    let common = on_four(&with(", capacity_padding = true, groups = 1, group_intermediate = 16"), 2, &rows, 4);
    let (first, other) = (sum(ffn(3, 1, 16), ffn(3, 1, 8)), sum(ffn(3, 1, 16), ffn(2, 1, 8)));
    assert_eq!((common.experts, common.held), (vec![first, first, other, other], vec![2 * 3 * HIDDEN * (16 + 8); 4]));
    // So is the base of factorised experts: padding has no tokens.
    let factored = on_four(&with(", capacity_padding = true, expert_rank = 8"), 2, &rows, 4);
    let based = on_four(&with(", capacity_padding = true, expert_rank = 8, expert_base = true"), 2, &rows, 4);
    let base: Vec<u64> = based.experts.iter().zip(&factored.experts).map(|(b, f)| b.0 - f.0).collect();
    assert_eq!(base, [3, 3, 2, 2].map(|tokens| ffn(tokens, 1, 16).0));
}

#[test]
fn common_parts_on_devices_that_share_experts() {
    let m = model("experts = 6, top_k = 3, expert_intermediate = 32, groups = 3, group_intermediate = 16");
    let rows: [&[u16]; 3] = [&[0, 1, 2], &[2, 3, NONE], &[0, 1, NONE]];
    let done = on_groups(&m, "h100-8", 2, 3, &rows, 3, &mut ExpertParallel);
    // As on two devices, half as wide: pair {0, 1} by tokens 0 and 2, pair {2, 3} by tokens 0 and 1, and by token 1.
    let (first, other) = (sum(ffn(6, 3, 16), ffn(4, 2, 8)), sum(ffn(1, 1, 16), ffn(1, 1, 8)));
    assert_eq!(done.experts, [first, first, other, other]);
    assert_eq!(done.held, [2 * 3 * HIDDEN * (3 * 16 + 2 * 8); 4]);
    // Three tokens to device 1, one to devices 2 and 3; one comes back from device 2.
    assert_eq!((done.dispatch_bytes, done.combine_bytes), (128 * 5, 128));
    assert_eq!(done.allreduce_bytes, 2 * 128 * (3 + 1));
}

/// Four devices in a ring send the same over the same links in every fidelity, and all that is counted is on links.
#[test]
fn rings_are_on_their_links_in_every_fidelity() {
    let m = model("experts = 2, top_k = 1, expert_intermediate = 32");
    let machine = Machine::new(Hardware::load("h100-8").unwrap()).unwrap();
    let deployment = Deployment { attention_tp: 4, ..Deployment::default() };
    let plan = Plan::new(m, machine, deployment).unwrap();
    let of = |fidelity| {
        let mut n = Network::new(&plan, fidelity, Box::new(Flat), Default::default());
        // 1001 bytes in four pieces of 251, three of them a round and edge.
        assert!(n.rank_ring(&plan, 1, 2, 1001).is_some() && n.rank_ring(&plan, 1, 1, 1001).is_some());
        assert_eq!(n.allreduce_bytes, 4 * 3 * 3 * 251);
        for (l, bytes) in plan.machine.topology.links().iter().zip(&n.link_bytes) {
            let own = (4..8).contains(&l.from) || (4..8).contains(&l.to);
            assert_eq!(*bytes, if own { 3 * 3 * 251 } else { 0 }, "{}", l.name);
        }
        n.link_bytes
    };
    use crate::network::NetworkFidelity::{Bottleneck, Flow, Reserve, ReserveHeadOfLine};
    let [a, b, c, d] = [Bottleneck, Flow, Reserve, ReserveHeadOfLine].map(of);
    assert!(a == b && b == c && c == d);
}
