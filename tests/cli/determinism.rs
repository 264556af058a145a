//! Does the same input give the same bytes, whatever the threads, the fidelity of execution, and who runs it again?

use crate::common::{Place, SMALL, at};
use serde_json::Value;

/// The machines of the preset sweep of that name.
const MACHINES: [&[&str]; 4] = [
    &["hardware=h100-8"],
    &["hardware=rtx4090-offload", "policy.execution=on-demand"],
    &["hardware=duplex-1", "policy.execution=pim-split"],
    &["hardware=wafer-5x5", "policy.placement=home-die"],
];

/// Runs with plots and a timeline on so many threads.
fn run(p: &Place, out: &str, threads: &str, set: &[&str]) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut args = vec!["--threads", threads, "run", "quickstart", "--quiet", "--timeline", "--out", out];
    set.iter().for_each(|s| args.extend(["--set", s]));
    p.ok(&args);
    crate::common::files(&p.path(out))
}

fn same(a: &std::collections::BTreeMap<String, Vec<u8>>, b: &std::collections::BTreeMap<String, Vec<u8>>) {
    assert!(a.keys().eq(b.keys()), "{:?} {:?}", a.keys(), b.keys());
    for (name, bytes) in a {
        assert!(bytes == &b[name], "{name} differs");
    }
}

#[test]
fn threads_and_repetition_change_no_byte() {
    let p = Place::new();
    let one = run(&p, "one", "1", &SMALL);
    assert!(one.len() > 12 && one.contains_key("timeline.json") && one.keys().any(|n| n.ends_with(".png")));
    same(&one, &run(&p, "two", "2", &SMALL));
    same(&one, &run(&p, "again", "2", &SMALL));
    // Large batches, which are counted in parallel.
    let large = [
        "workload.arrivals.requests=400",
        "workload.arrivals.concurrency=200",
        "workload.arrivals.prompt_tokens={ mean = 1024, spread = 0.5 }",
        "workload.arrivals.output_tokens={ mean = 24, spread = 0.5 }",
        "deployment.attention_tp=2",
        "output.plots=false",
    ];
    same(&run(&p, "large1", "1", &large), &run(&p, "large2", "2", &large));
}

#[test]
fn another_seed_is_another_run() {
    let p = Place::new();
    let seed = |n: &str, out: &str| {
        let set = [&SMALL[..], &[n]].concat();
        p.run("quickstart", out, &set).summary()
    };
    let (a, b) = (seed("seed=1", "a"), seed("seed=2", "b"));
    for key in ["seed", "simulated_s", "routing.hash", "tokens.output", "imbalance.mean"] {
        assert_ne!(at(&a, key), at(&b, key), "{key}");
    }
    p.ok(&[&["run", "quickstart", "--seed", "2", "--out", "c", "--quiet", "--set", "output.plots=false"][..], &sets()]
        .concat());
    let c: Value = serde_json::from_slice(&std::fs::read(p.path("c/summary.json")).unwrap()).unwrap();
    assert_eq!(b, c);
}

fn sets() -> Vec<&'static str> {
    SMALL.iter().flat_map(|s| ["--set", s]).collect()
}

#[test]
fn every_operation_or_whole_phases_give_the_same_run() {
    let p = Place::new();
    for (i, machine) in MACHINES.iter().enumerate() {
        let run = |fidelity: &str| {
            let execution = format!("fidelity.execution={fidelity}");
            let set = [&SMALL[..], machine, &[execution.as_str()]].concat();
            p.run("quickstart", &format!("{fidelity}{i}"), &set)
        };
        let (op, phase) = (run("op"), run("phase"));
        let (mut a, mut b) = (op.summary(), phase.summary());
        for (s, name) in [(&mut a, "op"), (&mut b, "phase")] {
            assert_eq!(s["fidelity"]["execution"].take(), name);
        }
        assert_eq!(a, b, "{machine:?}");
        let (mut a, mut b) = (op.files(), phase.files());
        for files in [&mut a, &mut b] {
            files.remove("summary.json");
            files.remove("experiment.toml");
            files.remove("manifest.json");
        }
        same(&a, &b);
    }
}

#[test]
fn a_finished_run_can_be_run_again() {
    let p = Place::new();
    p.write("log.csv", "arrived_at_s,prompt_tokens,output_tokens\n0,100,5\n0.01,20,9\n0.5,7,3\n");
    p.write("own.toml", include_str!("../../sim/presets/quickstart.toml"));
    for (experiment, set) in [
        ("quickstart", &SMALL[..]),
        ("quickstart", &[SMALL[0], SMALL[2], "hardware=duplex-4", "policy.execution=pim-split", "seed=9"]),
        ("own.toml", &["workload.arrivals={ kind = \"csv\", path = \"log.csv\", rate_scale = 2.0 }"]),
    ] {
        let first = p.run(experiment, "first", set);
        // From another folder: what it names is found all the same.
        let other = Place::new();
        let again = other.run(first.dir.join("experiment.toml").to_str().unwrap(), "again", &[]);
        same(&first.files(), &again.files());
    }
}
