//! Two devices, few experts: what moves, when it arrives, and who waits for it, by hand.

use super::*;
use crate::experiment::{self, Resolved};
use crate::metrics::Summary;
use crate::metrics::tables::Tables;
use crate::registry::Registry;
use crate::simulation::Simulation;
use moesim_core::config;
use moesim_traces::{Meta, OwnedSequence, Trace};

/// An experiment on two devices with `layers` layers of `experts` experts, one a token, 100 GB/s between the devices, and `set` over it.
fn experiment(layers: u32, experts: u32, set: &[&str]) -> Resolved {
    let text = format!(
        "name = \"t\"\nhardware = \"h100-8\"\n\
         [model]\nname = \"t\"\nsource = \"none\"\nhidden = 64\nvocabulary = 100\n\
         [model.decoder]\nlayers = {layers}\n\
         attention = {{ heads = {{ gqa = {{ heads = 4, kv_heads = 4, head_dim = 16 }} }} }}\n\
         moe = {{ experts = {experts}, top_k = 1, expert_intermediate = 32, matrices = 3 }}\n\
         [model.precision]\nattention = 16\nrouter = 16\nexperts = 16\nshared = 16\ndense = 16\nembedding = 16\nhead = 16\n\
         kv = 16\nactivation = 16\n[model.published]\n\
         [workload.arrivals]\nkind = \"closed-loop\"\nconcurrency = 2\nrequests = 6\n\
         prompt_tokens = {{ mean = 4 }}\noutput_tokens = {{ mean = 8 }}\n\
         [workload.routing]\nkind = \"uniform\"\nsequences = 1\ndecode_rows = 1\n"
    );
    let link =
        ["devices=2", "link.bandwidth=100 GB/s", "link.achievable=1.0"].map(|s| format!("hardware.topology.{s}"));
    let all = link.iter().map(String::as_str).chain(set.iter().copied());
    let all: Vec<_> = all.map(|s| config::split_assignment(s).unwrap()).collect();
    experiment::resolve("t", text.parse().unwrap(), ".".into(), &all).unwrap()
}

/// A run in which every token of every sequence selects what `row` says, layer by layer.
fn simulation(r: &Resolved, row: &[u16]) -> Result<Simulation> {
    let meta = Meta {
        model: "t".into(),
        layer_numbers: (0..row.len() as u32).collect(),
        experts: r.model.decoder[0].moe().unwrap().experts,
        k: 1,
        source: "by hand".into(),
        licence: "none".into(),
    };
    let rows =
        OwnedSequence { prefill: row.repeat(4), decode: row.repeat(4), decode_first_position: 4, ..Default::default() };
    let trace = Trace::from_sequences(meta, vec![rows]).unwrap();
    Simulation::new(r, &Registry::builtin(), || Ok(Arc::new(trace)), Tables::default())
}

fn run(r: &Resolved, row: &[u16]) -> (Simulation, Summary) {
    let mut s = simulation(r, row).unwrap();
    s.run(&mut |_| true).unwrap();
    let summary = Summary::new(&s.ended());
    (s, summary)
}

/// Three matrices of 64 x 32 at 16 bits.
const EXPERT: u64 = 3 * 64 * 32 * 2;

/// Two experts, of which each gets a second replica on the other's device: both cross at once, each at a quarter of 100 GB/s, and
/// arrive after half a microsecond on each side of the switch.
#[test]
fn a_move_takes_its_bytes_over_its_share_and_the_latency() {
    for fidelity in ["bottleneck", "flow", "reserve"] {
        let network = format!("fidelity.network={fidelity}");
        let moving = "policy.replacement={ iterations = 1, redundant = 2, bandwidth_share = 0.25 }";
        let (s, summary) = run(&experiment(1, 2, &[moving, &network]), &[0]);
        let r = summary.replacement.unwrap();
        assert_eq!((r.layers_switched, r.moved_replicas, r.moved_bytes), (1, 2, 2 * EXPERT), "{fidelity}");
        let expected = EXPERT as f64 / 25e9 + 1e-6;
        assert!((r.moving_s - expected).abs() < 2e-12, "{fidelity}: {} {expected}", r.moving_s);
        // A round whenever something came, and nothing more to move.
        assert!(r.rounds > 3 && r.rounds < summary.iterations, "{} rounds", r.rounds);
        assert_eq!(summary.traffic_bytes["weights"], u128::from(2 * EXPERT));
        assert_eq!(s.replay.map().slots(), 4);
        // Slots for both experts, of which one moves at a time.
        assert_eq!(r.staging_bytes, 2 * EXPERT);
        // Weights have arrived before the iteration's first gate is done, whatever they take: no collective is slower.
        let most = moving.replace("0.25", "0.9");
        let faster = run(&experiment(1, 2, &[&most, &network]), &[0]).1;
        assert!(faster.replacement.unwrap().moving_s < r.moving_s && summary.breakdown["dispatch"] > 0.0);
        assert_eq!(faster.breakdown["dispatch"], summary.breakdown["dispatch"]);
        let stays = run(&experiment(1, 2, &[&network]), &[0]).0;
        assert_eq!(s.ended().weight_bytes - stays.ended().weight_bytes, EXPERT + 2 * EXPERT);
        assert_eq!(s.replay.totals(), stays.replay.totals());
    }
}

/// While weights take a fifth of the links, a dispatch has four fifths; its bytes are the same.
#[test]
fn collectives_have_the_rest_of_the_links() {
    for fidelity in ["bottleneck", "flow", "reserve"] {
        let (mut s, _) = run(&experiment(1, 2, &[&format!("fidelity.network={fidelity}")]), &[1]);
        s.network = Network::new(
            &s.plan,
            s.experiment.fidelity.network,
            Box::new(crate::network::dispatch::Flat),
            Default::default(),
        );
        let routing = s.replay.reveal(0);
        let copies = f64::from(routing.tokens_between(0, 1));
        let bytes = copies * s.plan.dispatch_token_bytes as f64;
        assert!(bytes > 0.0);
        let mut sent = Vec::new();
        let all = s.network.dispatch(&s.plan, &routing, &[1, 1]).unwrap().launch;
        for left in [1.0, 0.8, 0.5] {
            s.network.leave(left, Picos(7));
            s.network.reach(Picos(6));
            let before = s.network.link_bytes.iter().sum::<u64>();
            let work = s.network.dispatch(&s.plan, &routing, &[1, 1]).unwrap();
            let launch = s.plan.machine.hardware.device.launch.value.seconds();
            let expected = 1e12 * (bytes / (left * 100e9) + 1e-6 + launch);
            // A byte, which the stretching may round up, and a picosecond.
            assert!((work.launch.0 as f64 - expected).abs() <= 12.0, "{fidelity} {left}: {} {expected}", work.launch.0);
            s.network.reach(Picos(7));
            let after = s.network.dispatch(&s.plan, &routing, &[1, 1]).unwrap().launch;
            assert_eq!(after, all, "{fidelity} {left}: weights have arrived");
            sent.push(s.network.link_bytes.iter().sum::<u64>() - before);
        }
        assert!(sent.iter().all(|b| *b == sent[0] && *b as f64 == 2.0 * 2.0 * bytes), "{sent:?}");
    }
}

/// One hot expert a layer: of the others, the one beside it changes places with one of the other device. At a fifth of 1 MB/s that takes
/// 61 ms, more than all iterations before or after a second of thinking: three layers only arrive because nothing runs meanwhile.
#[test]
fn layers_follow_each_other_while_nothing_runs() {
    let slow = "hardware.topology.link.bandwidth=1 MB/s";
    let think = ["workload.arrivals.think_time=1 s", "workload.arrivals.requests=4"];
    let set = ["policy.replacement={ iterations = 1 }", slow, think[0], think[1]];
    let (s, summary) = run(&experiment(3, 4, &set), &[0, 1, 0]);
    let r = summary.replacement.unwrap();
    assert_eq!((r.layers_switched, r.moved_replicas, r.moved_bytes), (3, 6, 6 * EXPERT), "{r:?}");
    let expected = 3.0 * (EXPERT as f64 / 0.2e6 + 1e-6);
    assert!((r.moving_s - expected).abs() < 6e-12 && summary.simulated_s < 1.06, "{} {expected}", r.moving_s);
    let links: u64 = s.network.link_bytes.iter().sum();
    let collectives = s.network.dispatch_bytes + s.network.combine_bytes + s.network.allreduce_bytes;
    assert_eq!(links, 2 * (collectives + s.network.weight_bytes));
    assert_eq!(s.network.weight_bytes, r.moved_bytes);
}

/// An expert takes 61 ms at a fifth of 1 MB/s, and the run ends before: the first placement serves to the end, with four fifths of the links
/// from the second iteration on. Of 33 tokens that a device sends, that iteration and later ones have 29.
#[test]
fn a_run_ends_before_weights_have_arrived() {
    let slow = "hardware.topology.link.bandwidth=1 MB/s";
    let moving = "policy.replacement={ iterations = 1, redundant = 2, bandwidth_share = 0.2 }";
    let (s, summary) = run(&experiment(1, 2, &[slow, moving]), &[0]);
    let r = summary.replacement.unwrap();
    assert_eq!((r.rounds, r.layers_switched, r.moved_bytes), (1, 0, 0));
    assert!(r.moving_s > 0.0 && r.moving_s < summary.simulated_s);
    let sent = s.network.weight_bytes;
    let expected = 2.0 * EXPERT as f64 * r.moving_s / (EXPERT as f64 / 0.2e6 + 1e-6);
    assert!(sent > 0 && (sent as f64 - expected).abs() <= 2.0, "{sent} {expected}");
    assert_eq!(s.replay.map().slots(), 2);
    let stays = run(&experiment(1, 2, &[slow]), &[0]).1;
    let slower = summary.breakdown["dispatch"] / stays.breakdown["dispatch"] - 1.0;
    // The kernel's fixed time stays.
    assert!(slower > 0.2 && slower < 0.25 * 29.0 / 33.0, "{slower}");
}

/// Four devices in a ring: the nearest holder sends, equals take turns.
#[test]
fn sources_are_near_and_take_turns() {
    let ring = "hardware.topology={ kind = \"ring\", devices = 4, link = { bandwidth = \"100 GB/s\", latency = \"1 us\", achievable = 1.0 } }";
    let r = experiment(1, 4, &[ring]);
    let s = simulation(&r, &[0]).unwrap();
    let of = |old: &[Vec<u32>], new: &[Vec<u32>]| {
        let (t, n) = transfers(&s.plan, 0, old, new);
        assert!(t.len() as u64 == n && t.iter().all(|t| t.bytes == EXPERT));
        t.iter().map(|t| (t.src, t.dst)).collect::<Vec<_>>()
    };
    let homes = |on: [&[u32]; 4]| on.map(<[u32]>::to_vec);
    // Device 1 is next to 2 and 0; what 1 and 3 hold comes to 2 and 0 from either in turn.
    let old = homes([&[0], &[1, 3], &[1, 3], &[1, 3]]);
    let new = homes([&[0, 1], &[0, 1, 2], &[1, 2], &[0]]);
    assert_eq!(of(&old, &new), [(0, 1), (1, 0), (3, 2), (1, 2), (3, 0)]);
    // Device 2 is one hop from 3, and 1 two.
    let near = of(&homes([&[1, 2], &[0], &[0], &[0]]), &homes([&[1, 2, 3], &[0], &[0], &[0]]));
    assert_eq!(near, [(2, 3)]);
    // Where there is no other, the way is long.
    assert_eq!(of(&homes([&[0], &[0], &[0], &[0]]), &homes([&[2], &[0], &[0], &[0]])), [(0, 2)]);
}
