//! Is no resource used beyond what it gives, whatever the machine and the model, and is what was served said right?

use crate::common::{Place, SMALL, at, number};

/// Half of the memory bandwidth for rooflines, while the profile's own kernels reach more: the channel takes both.
#[test]
fn calibrated_kernels_may_be_faster_than_rooflines_are_assumed_to_be() {
    let set = [
        &SMALL[..],
        &[
            "hardware=rtx-pro-6000-2",
            "model=qwen3-30b-a3b",
            "hardware.device.achievable.memory={ value = 0.5, origin = \"assumed: t\" }",
        ],
    ];
    let s = Place::new().run("quickstart", "run", &set.concat()).summary();
    assert!((0.0..=1.0).contains(&number(&s, "utilisation.memory")));
}

/// FP8 counts by the FP8 peak: where all is at the peak and only prompts are computed, cores are nearly always at work and never
/// beyond that.
#[test]
fn utilisation_is_by_the_precision_that_ran() {
    let all = ["compute", "grouped", "attention", "memory"]
        .map(|f| format!("hardware.device.achievable.{f}={{ value = 1.0, origin = \"assumed: t\" }}"));
    let bits = ["attention", "experts", "shared", "dense", "head", "router", "kv", "activation"]
        .map(|b| format!("model.precision.{b}=8"));
    let rest = [
        "hardware=mi300x-8",
        "model=mixtral-8x7b",
        "hardware.host.iteration_overhead={ value = \"1 ns\", origin = \"assumed: t\" }",
        "hardware.device.launch={ value = \"1 ns\", origin = \"assumed: t\" }",
        "hardware.topology={ kind = \"single\" }",
        "workload.arrivals.requests=4",
        "workload.arrivals.prompt_tokens={ mean = 4096 }",
        "workload.arrivals.output_tokens={ mean = 1 }",
        "workload.routing={ kind = \"uniform\", sequences = 2, prompt_rows = 64, decode_rows = 1 }",
    ];
    let set: Vec<&str> = all.iter().chain(&bits).map(String::as_str).chain(rest).collect();
    let s = Place::new().run("quickstart", "run", &set).summary();
    for key in ["utilisation.compute", "phases.with_prompts.utilisation.compute"] {
        let share = number(&s, key);
        assert!(share > 0.6 && share <= 1.0, "{key}: {share}");
    }
    assert!(at(&s, "phases.decode_only").is_null());
    assert_eq!(at(&s, "phases.with_prompts.bottleneck"), "compute");
}

/// What binds is said of prompts and of decodes apart, and both together are the whole.
#[test]
fn prompts_and_decodes_are_the_whole() {
    let s = Place::new().run("quickstart", "run", &SMALL).summary();
    let parts = ["with_prompts", "decode_only"].map(|p| at(&s, &format!("phases.{p}")));
    for (key, whole) in at(&s, "bound_by").as_object().unwrap() {
        let sum: f64 = parts.iter().map(|p| number(p, &format!("bound_by.{key}"))).sum();
        assert!((sum - whole.as_f64().unwrap()).abs() < 1e-9, "{key}");
    }
    let count: f64 = parts.iter().map(|p| number(p, "iterations")).sum();
    assert_eq!(count, number(&s, "iterations"));
}

/// The KV cache in use is recorded before requests that are done give theirs back: the last iteration's too.
#[test]
fn the_last_request_has_a_cache_until_its_end() {
    let p = Place::new();
    let run = p.run("quickstart", "run", &SMALL);
    let used: Vec<u64> = run.table("iterations.csv").column("kv_used_bytes");
    assert!(used.iter().all(|u| *u > 0), "{used:?}");
}

/// The iteration that is drawn has no fewer sequences than iterations have in the mean: no drain stands for the run.
#[test]
fn the_iteration_that_is_drawn_is_typical() {
    for concurrency in [3, 8, 24] {
        let own = format!("workload.arrivals.concurrency={concurrency}");
        let p = Place::new();
        let run = p.run("quickstart", "run", &[&SMALL[..], &[&own]].concat());
        let t = run.table("iterations.csv");
        let kept: Vec<usize> = run.table("operations.csv").column("iteration");
        let (sequences, start, end) =
            (t.column::<f64>("sequences"), t.column::<f64>("start_s"), t.column::<f64>("end_s"));
        let took = |i: usize| end[i] - start[i];
        let until = kept[0];
        let mean = (0..until).map(|i| sequences[i] * took(i)).sum::<f64>() / (0..until).map(took).sum::<f64>();
        assert!(sequences[until - 1] >= mean * (1.0 - 1e-9), "{concurrency}: iteration {until}");
        assert!(until > 1, "{concurrency}");
    }
}

/// Models without experts are the baselines that others are compared with.
#[test]
fn dense_models_run() {
    let p = Place::new();
    let set = ["model=llama-3.1-8b", "deployment.attention_tp=8"];
    let run = p.run("quickstart", "run", &[&SMALL[..], &set].concat());
    let s = run.summary();
    assert_eq!((number(&s, "requests.finished"), number(&s, "assignments.traced")), (24.0, 0.0));
    assert!(number(&s, "breakdown.dense") > 0.0 && number(&s, "breakdown.experts") == 0.0);
    assert!(at(&s, "notes").to_string().contains("workload.routing is not used"));
    assert!(run.table("experts.csv").rows.is_empty());
    // Eight devices hold an eighth of the weights, of which there are 2 bytes for each of 8.0 billion parameters.
    let held = number(&s, "device_memory_peak_bytes");
    assert!((16.0e9 / 8.0..17.5e9 / 8.0).contains(&held), "{held}");
    p.ok(&["explain", "quickstart", "--set", "model=llama-3.1-8b"]);
    p.ok(&["plot", "run"]);
    let refused = |set: &str, problem: &str| {
        let out = p.command(&["run", "quickstart", "--set", "model=llama-3.1-8b", "--set", set]).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(2) && err.contains(problem), "{err}");
    };
    refused("policy.execution=on-demand", "has no experts to keep in host memory");
    let out = p.command(&["run", "quickstart", "--set", "workload.routing={ kind = \"none\" }"]).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("nothing says what they route"));
}

/// Where all experts fit beside the KV cache, each is loaded once; where they do not, the message names the key.
#[test]
fn the_expert_cache_takes_what_memory_is_left() {
    let p = Place::new();
    let offload = ["hardware=rtx4090-offload", "policy.execution=on-demand"];
    let s = p.run("quickstart", "run", &[&SMALL[..], &offload].concat()).summary();
    // 24 layers of 32 experts of 3 x 2880^2 weights at 4.25 bits, and their biases.
    let loads = number(&s, "counters.on-demand.loads");
    assert!(loads <= 24.0 * 32.0 && loads > 24.0 * 31.0, "{loads}");
    let room = number(&s, "counters.on-demand.capacity_bytes");
    assert!((10.1e9..10.4e9).contains(&room), "{room}");
    let set = ["--set", "model=mixtral-8x7b", "--set", "policy.cache_fraction=1", "--set", "hardware=rtx4090-offload"];
    let args = [&["run", "quickstart", "--set", "policy.execution=on-demand"][..], &set].concat();
    let err = String::from_utf8(p.command(&args).output().unwrap().stderr).unwrap();
    assert!(
        err.contains("keep less on devices (policy.execution.cache_fraction)") && err.contains("does not fit"),
        "{err}"
    );
}

/// A profile with collectives serves a machine of one device, and one whose links differ.
#[test]
fn a_profile_with_collectives_serves_one_device() {
    let p = Place::new();
    let single = "hardware.topology={ kind = \"single\" }";
    let s = p.run("quickstart", "run", &[&SMALL[..], &[single]].concat()).summary();
    assert_eq!((number(&s, "devices"), number(&s, "requests.finished")), (1.0, 24.0));
}

/// Requests beyond the model's context are rejected, counted and said; if that is all of them the run fails.
#[test]
fn requests_beyond_the_context_are_rejected() {
    let p = Place::new();
    p.write("log.csv", "arrived_at_s,prompt_tokens,output_tokens\n0,131072,1\n0,131000,72\n1,20,4\n");
    let log = "workload.arrivals={ kind = \"csv\", path = \"log.csv\" }";
    let s = p.run("quickstart", "run", &[log]).summary();
    let requests = at(&s, "requests");
    assert_eq!((requests["finished"].as_u64(), requests["rejected"].as_u64()), (Some(2), Some(1)), "{requests}");
    let why = &requests["rejections"][0];
    assert_eq!(
        (&why["reason"], why["limit"].as_u64(), why["missing"].as_u64()),
        (&"context".into(), Some(131_072), Some(1))
    );
    p.write("log.csv", "arrived_at_s,prompt_tokens,output_tokens\n0,131073,1\n");
    let out = p.command(&["run", "quickstart", "--set", log]).output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && err.contains("the model's context is 131072"), "{err}");
}

/// Presets of devices that are let have a price, and the cost follows it.
#[test]
fn costs_follow_the_price() {
    let p = Place::new();
    let s = p.run("quickstart", "run", &SMALL).summary();
    let twice = ["hardware.price_per_device_hour={ value = 12.31, origin = \"assumed: t\" }"];
    let more = p.run("quickstart", "more", &[&SMALL[..], &twice].concat()).summary();
    let cost = |s| number(s, "cost_usd_per_million_output_tokens");
    assert!((cost(&more) / cost(&s) - 2.0).abs() < 1e-9);
    let rate = number(&s, "throughput.output_tokens_per_s");
    assert!((cost(&s) / (6.155 * 8.0 / 3600.0 / rate * 1e6) - 1.0).abs() < 1e-9);
    assert!(at(&s, "price_per_device_hour.origin").as_str().unwrap().contains("2026"));
}
