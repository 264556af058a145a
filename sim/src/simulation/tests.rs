//! What the host of an engine adds to iterations and requests, by hand.

use super::*;
use crate::experiment;
use crate::metrics::tables::Tables;
use crate::registry::Registry;

/// Two requests at once, of 64 tokens in and 4 out, but for what `set` changes.
fn simulation(set: &[&str]) -> Simulation {
    let common = [
        "workload.arrivals={ kind = \"closed-loop\", concurrency = 2, requests = 2, prompt_tokens = { mean = 64 }, output_tokens = { mean = 4 } }",
        "workload.routing={ kind = \"uniform\", sequences = 2, prompt_rows = 64, decode_rows = 4 }",
        "engine.front_end=0 ns",
        "engine.eager_kernel=0 ns",
    ];
    let set: Vec<String> = common.iter().chain(set).map(|s| (*s).to_string()).collect();
    let resolved = experiment::load("quickstart", &set).unwrap();
    Simulation::new(&resolved, &Registry::builtin(), || open_trace(&resolved), Tables::default()).unwrap()
}

/// Times of all iterations, and whether they have prompts.
fn iterations(set: &[&str]) -> (Vec<(Picos, bool)>, Simulation) {
    let (mut s, mut now, mut out) = (simulation(set), Picos::ZERO, Vec::new());
    while s.step(&mut now).unwrap() {
        out.push((s.last.end.since(s.last.begin), s.last.size.prefill_tokens > 0));
    }
    (out, s)
}

/// An iteration with prompts ends no sooner than the host has launched all kernels, and then has the head to run; others stay as they are.
#[test]
fn prompts_wait_for_launches_and_decodes_do_not() {
    let (graphs, s) = iterations(&[]);
    let (eager, _) = iterations(&["engine.eager_kernel=1 ms"]);
    assert_eq!((graphs.len(), graphs[0].1, graphs[1].1), (4, true, false));
    assert_eq!(graphs[1..], eager[1..]);
    let host = Picos(s.plan.launches() * 1_000_000_000);
    let over = eager[0].0.since(host);
    assert!(eager[0].0 > host && over < graphs[0].0, "{host:?} {eager:?} {graphs:?}");
    // Where devices take longer than all launches, launches cost nothing.
    let (fast, _) = iterations(&["engine.eager_kernel=1 ns"]);
    assert_eq!(fast, graphs);
}

/// A layer of gpt-oss-20b has two norms, two products, the rotary embedding, the cache's copy and core attention, a gate of two kernels
/// and its experts; the model an embedding, and a head with sampling. Ranks exchange tokens twice a layer, or sum twice.
#[test]
fn launches_by_hand() {
    let of = |set: &[&str]| simulation(set).plan.launches();
    assert_eq!(of(&["hardware.topology.devices=1"]), 24 * 10 + 3);
    assert_eq!(of(&[]), 24 * 12 + 3);
    assert_eq!(of(&["deployment.attention_tp=8", "deployment.expert_tp=8"]), 24 * 12 + 3);
}

/// A request's time to the first token counts from its arrival, in front of the front end.
#[test]
fn first_tokens_wait_for_the_front_end() {
    let ttft = |set: &[&str]| iterations(set).1.recorder.totals().requests.ttft.mean();
    let (without, with) = (ttft(&[]), ttft(&["engine.front_end=5 ms"]));
    assert!((with - without - 5e9).abs() < 1.0, "{without} {with}");
}

/// The second pair of requests follows the first; the scheduler sees the pair at once where nothing runs, and every four iterations where
/// one of the first pair still decodes.
#[test]
fn requests_are_seen_when_the_scheduler_looks() {
    let arrivals = "workload.arrivals={ kind = \"closed-loop\", concurrency = 2, requests = 4, prompt_tokens = { mean = 64 }, output_tokens = { mean = 40, spread = 0.5 } }";
    let prompts = |interval: &str| {
        let (all, _) = iterations(&[arrivals, interval]);
        (0..all.len()).filter(|&i| all[i].1).collect::<Vec<_>>()
    };
    let (each, fourth) = (prompts("engine.receive_interval=1"), prompts("engine.receive_interval=4"));
    assert_eq!((each[0], fourth[0]), (0, 0));
    assert!(fourth[1] >= each[1] && fourth[1] - each[1] < 4, "{each:?} {fourth:?}");
    assert!(fourth[1] % 4 == 0 || fourth[1] == each[1], "{each:?} {fourth:?}");
}
