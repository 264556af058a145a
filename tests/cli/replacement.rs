//! Do experts that move while a run serves even out loads, and cost what they must?

use crate::common::{Place, Run, at, number};
use serde_json::Value;

/// The quickstart on one sequence of routing, which stays as skewed as it is, with enough requests for several rounds.
const BASE: [&str; 5] = [
    "workload.arrivals.requests=192",
    "workload.arrivals.concurrency=96",
    "workload.arrivals.prompt_tokens={ mean = 32, spread = 0.5 }",
    "workload.arrivals.output_tokens={ mean = 96, spread = 0.5 }",
    "workload.routing.sequences=1",
];
const MOVING: &str = "policy.replacement={ iterations = 30, redundant = 8, method = \"eplb\" }";

fn run(p: &Place, out: &str, set: &[&str]) -> Run {
    p.run("quickstart", out, &[&BASE[..], set].concat())
}

fn assignments(r: &Run) -> Vec<u64> {
    r.table("experts.csv").column("assignments")
}

#[test]
fn moved_experts_even_out_loads() {
    let p = Place::new();
    let (stays, moves) = (run(&p, "stays", &[]), run(&p, "moves", &[MOVING]));
    let (a, b) = (stays.summary(), moves.summary());
    let imbalance = |s: &Value| number(s, "imbalance.mean") - 1.0;
    assert!(imbalance(&b) < 0.8 * imbalance(&a), "{} {}", imbalance(&a), imbalance(&b));
    let r = at(&b, "replacement");
    assert!(number(r, "rounds") > 2.0 && number(r, "layers_switched") >= 24.0, "{r}");
    // Every expert is somewhere, some twice, and who was asked for is the same.
    let on: Vec<String> = moves.table("experts.csv").column("devices");
    let on: Vec<usize> = on.iter().map(|d| d.split_whitespace().count()).collect();
    // EPLB may put two replicas of an expert on one device, where they are one.
    let replicas = on.iter().sum::<usize>();
    assert!(on.iter().all(|n| *n > 0) && replicas > 24 * (32 + 4) && replicas <= 24 * (32 + 8), "{replicas}");
    assert_eq!(assignments(&moves), assignments(&stays));
    assert_eq!(at(&a, "assignments"), at(&b, "assignments"));
    // Links carry dispatch, combine and weights, in at one end and out at the other.
    let weights = number(&b, "traffic_bytes.weights");
    assert!(weights >= number(r, "moved_bytes") && number(r, "moved_bytes") > 0.0);
    let sent = ["dispatch", "combine", "allreduce", "weights"].map(|k| number(&b, &format!("traffic_bytes.{k}")));
    let links = moves.table("links.csv");
    let carried: f64 = links.column::<f64>("bytes").iter().sum();
    assert_eq!(carried, 2.0 * sent.iter().sum::<f64>());
    // Weights in memory: a slot more a layer and device, and as many as five that come.
    let more = number(&b, "replacement.staging_bytes") / 5.0;
    let of = |s: &Value| number(s, "device_memory_peak_bytes");
    assert!(of(&b) - of(&a) > (24.0 + 5.0) * more * 0.9, "{} {more}", of(&b) - of(&a));
    let said = at(&b, "approximations").to_string();
    assert!(said.contains("while weights move") && said.contains("moved weights take links alone"), "{said}");
    // Without the table nothing of it is there.
    assert!(a.get("replacement").is_none() && at(&a, "traffic_bytes").get("weights").is_none());
    assert!(at(&a, "policy").get("replacement").is_none());
}

#[test]
fn threads_and_execution_fidelity_change_no_byte() {
    let p = Place::new();
    let every = "policy.replacement={ every = \"50 ms\", bandwidth_share = 0.5, smoothing = 0.9 }";
    let op = "fidelity.execution=op";
    let threads = |out: &str, n: &str, set: &[&str]| {
        let mut args = vec!["--threads", n, "run", "quickstart", "--quiet", "--out", out];
        [&BASE[..], set].concat().iter().for_each(|s| args.extend(["--set", s]));
        p.ok(&args);
        crate::common::files(&p.path(out))
    };
    // Batches that are counted in parallel, and pictures of what is left.
    let large = [MOVING, "workload.arrivals.prompt_tokens={ mean = 2048, spread = 0.5 }"];
    assert!(threads("one", "1", &large) == threads("two", "2", &large));
    let (a, b) = (run(&p, "phase", &[every]), run(&p, "op", &[every, op]));
    let (mut x, mut y) = (a.summary(), b.summary());
    assert!(number(&x, "replacement.layers_switched") > 0.0);
    for s in [&mut x, &mut y] {
        s["fidelity"]["execution"].take();
    }
    assert_eq!(x, y);
    let (mut x, mut y) = (a.files(), b.files());
    for files in [&mut x, &mut y] {
        files.remove("summary.json");
        files.remove("experiment.toml");
        files.remove("manifest.json");
    }
    assert!(x == y);
    // What was resolved can be run again.
    let again = Place::new().run(a.dir.join("experiment.toml").to_str().unwrap(), "again", &[]).files();
    assert!(again == a.files());
}

#[test]
fn limited_moves_stay_within_their_limit() {
    let p = Place::new();
    let moving = "policy.replacement={ iterations = 20, max_moves = 4 }";
    let s = run(&p, "few", &[moving, "deployment.expert_tp=2"]).summary();
    let rounds = number(&s, "replacement.rounds");
    let moved = number(&s, "replacement.moved_replicas");
    assert!(moved > 0.0 && moved <= 4.0 * rounds, "{moved} in {rounds}");
    // Both devices of a group got their half of each.
    let whole = number(&s, "replacement.moved_bytes") / moved;
    assert_eq!(number(&s, "replacement.staging_bytes"), 4.0 * whole / 2.0);
}

#[test]
fn nonsense_is_refused_with_a_cure() {
    let p = Place::new();
    let key = |toml: &str, words: &[&str]| {
        let set = format!("policy.replacement={{ {toml} }}");
        p.refused(&["run", "quickstart", "--out", "run", "--set", &set], words);
    };
    let at = "policy.replacement";
    key("", &[at, "says not when", "every"]);
    key("every = \"1 s\", iterations = 5", &[at, "both"]);
    key("every = \"0 s\"", &["policy.replacement.every", "above 0"]);
    key("every = \"1 GB\"", &["policy.replacement.every", "not a unit of a time"]);
    key("every = \"-1 s\"", &["policy.replacement.every"]);
    key("iterations = 0", &["policy.replacement.iterations", "at least 1"]);
    key("iterations = -1", &["policy.replacement.iterations", "not negative"]);
    key("iterations = 5, evry = 1", &["did you mean `every`?"]);
    for bad in ["0", "-0.5", "1.5", "nan", "inf"] {
        key(&format!("iterations = 5, smoothing = {bad}"), &["policy.replacement.smoothing", "at most 1"]);
    }
    for bad in ["0", "1.0", "nan", "1e-300"] {
        key(
            &format!("iterations = 5, bandwidth_share = {bad}"),
            &["policy.replacement.bandwidth_share", "0.01 to 0.9"],
        );
    }
    key("iterations = 5, max_moves = 0", &["policy.replacement.max_moves", "at least 1"]);
    key("iterations = 5, method = \"longst-first\"", &["policy.replacement.method", "did you mean \"longest-first\"?"]);
    key("iterations = 5, method = \"cluster\"", &["policy.replacement.method", "longest-first"]);
    key("iterations = 5, redundant = 225", &["policy.replacement.redundant", "ask for fewer"]);
    key("iterations = 5, redundant = 4000000000", &["policy.replacement.redundant"]);
    key("iterations = 5, redundant = 3, max_moves = 9", &["policy.replacement.redundant", "32 a layer, not 35"]);
    // It places anew each time, so that almost all would move.
    key("iterations = 5, method = \"eplb\", max_moves = 9", &["policy.replacement.max_moves", "longest-first"]);
    let with = |more: &[&str], words: &[&str]| {
        let mut args = vec!["run", "quickstart", "--out", "run", "--set", "policy.replacement.iterations=5"];
        more.iter().for_each(|s| args.extend(["--set", s]));
        p.refused(&args, words);
    };
    with(
        &["hardware=rtx4090-offload", "policy.execution=on-demand"],
        &["policy.replacement", "on-demand", "expert-parallel"],
    );
    // Room for the weights, not for those that come.
    let tight = ["hardware.device.memory.capacity=6 GB", "policy.replacement.redundant=224"];
    with(&tight, &["does not fit", "weights that come", "max_moves"]);
}
