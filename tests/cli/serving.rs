//! Does serving conserve what it serves, and does more hardware never serve less?

use crate::common::{Place, Run, SMALL, number};

/// Positions that the finished requests of a run computed, each once.
fn positions(run: &Run) -> u64 {
    let t = run.table("requests.csv");
    let (prompt, output) = (t.column::<u64>("prompt_tokens"), t.column::<u64>("output_tokens"));
    prompt.iter().zip(output).map(|(p, o)| p + o - 1).sum()
}

/// gpt-oss-20b: 24 layers, 4 experts a token.
const SELECTIONS: u64 = 24 * 4;

/// `--set` for a device memory that leaves `kv_bytes` for KV beside the weights.
fn room_for(p: &Place, kv_bytes: u64) -> String {
    let set = "hardware.device.memory.capacity=1000000000 B";
    let out = p.command(&["run", "quickstart", "--set", set]).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    // "..; N bytes (.. GiB) are missing" of the weights and one block: 16 tokens x 24 layers x 2,048 bytes.
    let missing = text.split(" bytes (").next().and_then(|t| t.rsplit(' ').next()).unwrap();
    let weights = missing.parse::<u64>().unwrap_or_else(|_| panic!("{text}")) + 900_000_000 - 16 * 24 * 2048;
    format!("hardware.device.memory.capacity={} B", ((weights + kv_bytes) as f64 / 0.9).ceil())
}

#[test]
fn a_full_cache_preempts_and_everything_finishes() {
    let p = Place::new();
    // Eight requests of 64 + 64 tokens a rank, 6.3 MB each at the end.
    let set = [
        "workload.arrivals.requests=128",
        "workload.arrivals.concurrency=64",
        "workload.arrivals.prompt_tokens={ mean = 64, spread = 0.5 }",
        "workload.arrivals.output_tokens={ mean = 64, spread = 0.5 }",
    ];
    let roomy = p.run("quickstart", "roomy", &set);
    assert_eq!(number(&roomy.summary(), "recomputed.preemptions"), 0.0);
    let mut last = 0.0f64;
    for (i, kv_bytes) in [30_000_000, 15_000_000, 10_000_000].into_iter().enumerate() {
        let room = room_for(&p, kv_bytes);
        let run = p.run("quickstart", &format!("tight{i}"), &[&set[..], &[&room]].concat());
        let s = run.summary();
        assert_eq!((number(&s, "requests.finished"), number(&s, "requests.rejected")), (128.0, 0.0));
        let t = run.table("requests.csv");
        let preempted: u64 = t.column::<u64>("preemptions").iter().sum();
        assert_eq!(preempted as f64, number(&s, "recomputed.preemptions"));
        assert!(preempted > 0, "{kv_bytes}");
        let again: u64 = t.column::<u64>("recomputed_tokens").iter().sum();
        assert_eq!(again as f64, number(&s, "recomputed.tokens"));
        let computed: u64 = run.table("experts.csv").column::<u64>("assignments").iter().sum();
        assert_eq!(computed, (positions(&run) + again) * SELECTIONS);
        assert_eq!(positions(&run), positions(&roomy));
        // All ranks together, as iterations.csv has them.
        let used = run.table("iterations.csv").column::<u64>("kv_used_bytes").into_iter().max().unwrap();
        assert!(used <= 8 * (kv_bytes + 2), "{used}");
        let capacity: f64 = room.split(['=', ' ']).nth(1).unwrap().parse().unwrap();
        assert!(number(&s, "device_memory_peak_bytes") <= 0.9 * capacity);
        assert!(run.table("devices.csv").column::<f64>("memory_peak_bytes").iter().all(|b| *b <= 0.9 * capacity));
        // Tighter is slower.
        assert!(number(&s, "simulated_s") > last.max(number(&roomy.summary(), "simulated_s")));
        last = number(&s, "simulated_s");
    }
}

#[test]
fn what_can_never_fit_is_rejected_and_the_rest_finishes() {
    let p = Place::new();
    let room = room_for(&p, 10_000_000);
    p.write(
        "log.csv",
        "arrived_at_s,prompt_tokens,output_tokens\n0,64,8\n0,4000,8\n0,64,8\n0,1,16000000\n0.001,64,1\n",
    );
    let set = [room.as_str(), "workload.arrivals={ kind = \"csv\", path = \"log.csv\" }"];
    let run = p.run("quickstart", "run", &set);
    let s = run.summary();
    let requests = ["admitted", "finished", "rejected"].map(|k| number(&s, &format!("requests.{k}")));
    assert_eq!(requests, [5.0, 3.0, 2.0]);
    let mut ids = run.table("requests.csv").column::<u64>("id");
    ids.sort_unstable();
    assert_eq!(ids, [0, 2, 4]);
    // In a closed loop, the user of a rejected request sends the next one.
    let all =
        [room.as_str(), SMALL[0], SMALL[1], SMALL[3], "workload.arrivals.prompt_tokens={ mean = 300, spread = 1.0 }"];
    let s = p.run("quickstart", "loop", &all).summary();
    assert_eq!(number(&s, "requests.admitted"), 24.0);
    assert!(number(&s, "requests.rejected") > 0.0 && number(&s, "requests.finished") > 0.0);
    assert_eq!(number(&s, "requests.finished") + number(&s, "requests.rejected"), 24.0);
}

#[test]
fn more_devices_never_serve_less() {
    let p = Place::new();
    let mut last = 0.0;
    for devices in [2, 4, 8, 16] {
        let set = [
            &format!("hardware.topology.devices={devices}"),
            "workload.arrivals.requests=1024",
            "workload.arrivals.concurrency=512",
            "workload.arrivals.prompt_tokens.mean=32",
            "workload.arrivals.output_tokens.mean=32",
            "output.iterations=false",
        ];
        let throughput =
            number(&p.run("quickstart", &format!("on{devices}"), &set).summary(), "throughput.output_tokens_per_s");
        assert!(throughput >= last, "{devices} devices: {throughput} < {last}");
        last = throughput;
    }
}

#[test]
fn more_memory_bandwidth_never_slows_a_token() {
    let p = Place::new();
    let machines: [(&[&str], f64); 4] = [
        (&["hardware=h100-8"], 3.35),
        (&["hardware=h100-8", "deployment.attention_tp=8"], 3.35),
        (&["hardware=rtx4090-offload", "policy.execution=on-demand"], 1.008),
        (&["hardware=duplex-1", "policy.execution=pim-split"], 3.35),
    ];
    for (i, (machine, bandwidth)) in machines.into_iter().enumerate() {
        // All users come at once and never again, so that batches are the same.
        let users = ["workload.arrivals.concurrency=24"];
        let mut last = f64::INFINITY;
        for factor in [0.5, 1.0, 2.0, 4.0] {
            let faster = format!("hardware.device.memory.bandwidth={} TB/s", bandwidth * factor);
            let set = [&SMALL[..], &users, machine, &[&faster]].concat();
            let s = p.run("quickstart", &format!("run{i}x{factor}"), &set).summary();
            let tpot = number(&s, "tpot_ms.mean");
            assert!(tpot <= last, "{machine:?} at {faster}: {tpot} > {last}");
            // At half the bandwidth it is what binds, so that the last check says something.
            assert!(factor != 1.0 || tpot < last, "{machine:?}");
            last = tpot;
        }
    }
}

#[test]
fn routing_does_not_depend_on_the_deployment() {
    let p = Place::new();
    let deployments: [&[&str]; 8] = [
        &[],
        &["deployment.attention_tp=2"],
        &["deployment.attention_tp=4"],
        &["deployment.attention_tp=8"],
        &["deployment.expert_tp=2"],
        &["deployment.attention_tp=4", "deployment.expert_tp=2", "policy.placement=round-robin"],
        &["deployment.max_batched_tokens=16", "policy.load_balancer=round-robin"],
        &["hardware=duplex-1", "policy.execution=pim-split"],
    ];
    let mut counts = Vec::new();
    for (i, deployment) in deployments.into_iter().enumerate() {
        let run =
            p.run("quickstart", &format!("run{i}"), &[&SMALL[..], &["policy.dispatch=flat"], deployment].concat());
        assert_eq!(number(&run.summary(), "requests.finished"), 24.0);
        let experts = run.table("experts.csv").column::<u64>("assignments");
        assert_eq!(experts.iter().sum::<u64>(), positions(&run) * SELECTIONS);
        counts.push(experts);
        assert_eq!(counts[i], counts[0], "{deployment:?}");
        let s = run.summary();
        let reduced = number(&s, "traffic_bytes.allreduce");
        // Every path on a switch has two links.
        let sent =
            ["dispatch", "combine", "allreduce"].map(|k| number(&s, &format!("traffic_bytes.{k}"))).iter().sum::<f64>();
        let carried = run.table("links.csv").column::<f64>("bytes").iter().sum::<f64>();
        assert_eq!(carried, 2.0 * sent, "{deployment:?}");
        assert_eq!(reduced > 0.0, deployment.iter().any(|d| d.contains("_tp=")), "{deployment:?}: {reduced}");
    }
}

#[test]
fn turns_follow_their_answers() {
    let p = Place::new();
    let sessions = "kind = \"sessions\", sessions_per_s = 50.0, sessions = 20, think_time = \"5 ms\", \
                    turns = { mean = 3 }, prompt_tokens = { mean = 40, spread = 0.5 }, output_tokens = { mean = 6 }";
    let set = format!("workload.arrivals={{ {sessions} }}");
    let run = p.run("quickstart", "run", &[&set]);
    let (s, t) = (run.summary(), run.table("requests.csv"));
    let (session, turn) = (t.column::<u64>("session"), t.column::<u32>("turn"));
    let (prompt, output) = (t.column::<u32>("prompt_tokens"), t.column::<u32>("output_tokens"));
    let (arrival, end) = (t.column::<f64>("arrival_s"), t.column::<f64>("finished_s"));
    let sequence = t.column::<u64>("sequence");
    let mut order: Vec<usize> = (0..session.len()).collect();
    order.sort_by_key(|&i| (session[i], turn[i]));
    for w in order.windows(2) {
        let (a, b) = (w[0], w[1]);
        if session[a] == session[b] {
            assert_eq!((turn[b], sequence[b]), (turn[a] + 1, sequence[a]));
            assert!(arrival[b] > end[a], "{} {}", arrival[b], end[a]);
            let new = prompt[b] - prompt[a] - output[a];
            assert!((20..=60).contains(&new), "{new}");
        } else {
            assert_eq!((session[b], turn[b]), (session[a] + 1, 0));
        }
    }
    assert_eq!(number(&s, "sessions.begun"), 20.0);
    assert_eq!(number(&s, "sessions.requests_per_session"), session.len() as f64 / 20.0);
    assert_eq!(number(&s, "sessions.most_requests"), f64::from(turn.iter().max().unwrap() + 1));
    assert_eq!((number(&s, "sessions.cut"), number(&s, "requests.finished")), (0.0, session.len() as f64));
    assert!(s["notes"][0].as_str().unwrap().contains("no prefix cache"), "{}", s["notes"]);
    assert!(p.ok(&["run", "quickstart", "--quiet", "--set", &set]).contains("20 of "));
    // What is asked does not depend on the machine.
    let slow = p.run("quickstart", "slow", &[&set, "hardware.device.memory.bandwidth=0.5 TB/s"]).table("requests.csv");
    let pairs = |t: &crate::common::Csv| {
        let mut all: Vec<_> = t.column::<u64>("id").into_iter().zip(t.column::<u32>("prompt_tokens")).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(pairs(&slow), pairs(&t));
    assert_ne!(slow.column::<f64>("arrival_s"), arrival);
    // A history that outgrows the cache ends its session.
    let room = room_for(&p, 6_000_000);
    let s = p.run("quickstart", "tight", &[&set, &room]).summary();
    let of = |key: &str| number(&s, key);
    assert!(of("sessions.cut") > 0.0 && of("sessions.cut") <= of("requests.rejected"));
    assert_eq!(of("requests.finished") + of("requests.rejected"), of("requests.admitted"));
    assert!(of("sessions.requests_per_session") < session.len() as f64 / 20.0);
}

/// One batch, so that a slower network cannot change what runs together.
#[test]
fn networks_are_slower_than_their_bound_and_move_the_same_bytes() {
    let p = Place::new();
    let run = |network: &str| {
        let fidelity = format!("fidelity.network={network}");
        let one = [
            "hardware=h800-2x8",
            // Behind the time of a measured kernel small differences of the network do not show.
            "fidelity.costs=roofline",
            "policy.dispatch=flat",
            "deployment.attention_tp=2",
            "workload.arrivals.requests=16",
            "workload.arrivals.concurrency=16",
            "workload.arrivals.prompt_tokens={ mean = 32 }",
            "workload.arrivals.output_tokens={ mean = 4 }",
        ];
        let s = p.run("quickstart", network, &[&one[..], &[&fidelity]].concat()).summary();
        assert_eq!(s["fidelity"]["network"], network);
        let bytes = ["dispatch", "combine", "allreduce"].map(|k| number(&s, &format!("traffic_bytes.{k}")));
        (number(&s, "simulated_s"), bytes, s["approximations"].to_string())
    };
    let bound = run("bottleneck");
    let others = ["flow", "reserve", "reserve-head-of-line"].map(run);
    for other in &others {
        assert!(other.0 > bound.0 && other.1 == bound.1, "{other:?} {bound:?}");
        assert!(!other.2.contains("lower bound"), "{}", other.2);
    }
    assert!(others[0].0 != others[1].0);
    let e = p.command(&["run", "quickstart", "--set", "fidelity.network=flows"]).output().unwrap();
    assert!(e.status.code() == Some(2) && String::from_utf8_lossy(&e.stderr).contains("did you mean `flow`?"));
}
