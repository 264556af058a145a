//! Do the files of a run say what they promise, and agree with each other?

use crate::common::{Place, SMALL, at, number};
use serde_json::Value;

/// Every key that a summary promises.
const KEYS: &str = "name seed versions model hardware requests.admitted requests.finished requests.rejected tokens.prompt \
    tokens.output assignments.traced assignments.wrapped assignments.drawn fidelity.execution fidelity.network \
    fidelity.routing window simulated_s events ttft_ms tpot_ms itl_ms e2e_ms throughput.prompt_tokens_per_s \
    throughput.output_tokens_per_s throughput.output_tokens_per_s_per_device throughput.requests_per_s \
    throughput.goodput_requests_per_s breakdown.attention breakdown.gate breakdown.dispatch breakdown.experts \
    breakdown.shared breakdown.combine breakdown.load breakdown.idle utilisation.compute utilisation.memory \
    utilisation.links bottleneck traffic_bytes imbalance.mean imbalance.p99 cache counters device_memory_peak_bytes energy_j \
    cost_usd_per_million_output_tokens";

#[test]
fn a_summary_has_what_it_promises() {
    let p = Place::new();
    let goodput = [&SMALL[..], &["slo.ttft=20 ms", "slo.tpot=3 ms"]].concat();
    let s = p.run("quickstart", "run", &goodput).summary();
    for key in KEYS.split_whitespace() {
        at(&s, key);
    }
    for latency in ["ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"] {
        let at = |part: &str| number(&s, &format!("{latency}.{part}"));
        assert!(0.0 < at("p50") && at("p50") <= at("p90") && at("p90") <= at("p99") && at("p99") <= at("max"));
        assert!(at("mean") <= at("max"));
    }
    assert!(number(&s, "throughput.goodput_requests_per_s") <= number(&s, "throughput.requests_per_s"));
    // What is null has its reason.
    for (key, why) in s["not_reported"].as_object().unwrap() {
        assert!(why.as_str().unwrap().len() > 10, "{key}");
    }
    for key in ["sessions", "cache", "energy_j", "cost_usd_per_million_output_tokens"] {
        assert_eq!(s[key].is_null(), s["not_reported"].get(key).is_some(), "{key}");
    }
    let offload = [&SMALL[..], &["hardware=rtx4090-offload", "policy.execution=on-demand"]].concat();
    let s = p.run("quickstart", "offload", &offload).summary();
    assert_eq!(s["counters"].as_object().unwrap().keys().collect::<Vec<_>>(), ["on-demand"]);
    for key in ["hit_rate", "hits", "loads", "loaded_bytes", "capacity_bytes"] {
        at(&s, &format!("counters.on-demand.{key}"));
    }
    for key in ["hit_rate", "loads"] {
        assert_eq!(at(&s, &format!("cache.{key}")), at(&s, &format!("counters.on-demand.{key}")));
    }
    at(&s, "cache.prefetch_precision");
}

#[test]
fn parts_sum_to_the_whole() {
    let p = Place::new();
    let log = "arrived_at_s,prompt_tokens,output_tokens\n0,300,5\n50,20,90\n50.00001,7,3\n";
    p.write("log.csv", log);
    let machines: [&[&str]; 4] = [
        &["hardware=h100-8", "deployment.attention_tp=2"],
        &["hardware=rtx4090-offload", "policy.execution=on-demand"],
        &["hardware=duplex-1", "policy.execution=pim-split"],
        &["hardware=wafer-5x5", "policy.placement=home-die"],
    ];
    let open = ["workload.arrivals={ kind = \"csv\", path = \"log.csv\" }"];
    for (i, set) in machines.iter().flat_map(|m| [[&SMALL[..], m].concat(), [&open[..], m].concat()]).enumerate() {
        let run = p.run("quickstart", &format!("run{i}"), &set);
        let s = run.summary();
        let simulated = number(&s, "simulated_s");
        let sum = |key: &str| at(&s, key).as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum::<f64>();
        assert!((sum("breakdown") / simulated - 1.0).abs() < 1e-9, "{set:?}");
        let busy = simulated - number(&s, "breakdown.idle");
        assert!((sum("bound_by") / busy - 1.0).abs() < 1e-9, "{set:?}");
        assert_eq!(number(&s, "breakdown.idle") > 0.1, i % 2 == 1, "only open arrivals leave it idle: {set:?}");
        let assigned = sum("assignments");
        let experts = run.table("experts.csv").column::<u64>("assignments");
        assert_eq!(experts.iter().sum::<u64>() as f64, assigned, "{set:?}");
        // Every layer computes every position: gpt-oss-20b has 24 layers and takes 4 of 32 experts.
        let requests = run.table("requests.csv");
        let (prompt, output) = (requests.column::<u64>("prompt_tokens"), requests.column::<u64>("output_tokens"));
        let positions: u64 = prompt.iter().zip(&output).map(|(p, o)| p + o - 1).sum();
        assert_eq!(assigned, (positions * 24 * 4) as f64);
        assert!(experts.chunks(32).all(|l| l.iter().sum::<u64>() == positions * 4));
        assert_eq!(requests.rows.len() as f64, number(&s, "requests.finished"));
        assert_eq!(number(&s, "requests.admitted"), number(&s, "requests.finished") + number(&s, "requests.rejected"));
        assert_eq!(prompt.iter().sum::<u64>() as f64, number(&s, "tokens.prompt"));
        assert_eq!(output.iter().sum::<u64>() as f64, number(&s, "tokens.output"));
        let iterations = run.table("iterations.csv");
        assert_eq!(iterations.rows.len() as f64, number(&s, "iterations"));
        let computed: u64 = ["prefill_tokens", "decode_tokens"].iter().flat_map(|c| iterations.column::<u64>(c)).sum();
        assert_eq!(computed, positions);
        let (start, end) = (iterations.column::<f64>("start_s"), iterations.column::<f64>("end_s"));
        assert!(start.iter().zip(&end).all(|(s, e)| s < e) && end.iter().zip(&start[1..]).all(|(e, s)| e <= s));
        // Requests are given to the machine after they come and before they are done.
        let time = |c: &str| requests.column::<f64>(c);
        let ordered = |a: &str, b: &str| time(a).iter().zip(time(b)).all(|(a, b)| *a <= b);
        assert!(ordered("arrival_s", "scheduled_s") && ordered("scheduled_s", "first_token_s"));
        assert!(ordered("first_token_s", "finished_s") && time("finished_s").iter().all(|t| *t <= simulated));
        for name in ["devices.csv", "links.csv"] {
            let table = run.table(name);
            let column = if name == "links.csv" { "utilisation" } else { "busy_fraction" };
            assert!(table.column::<f64>(column).iter().all(|u| (0.0..=1.0).contains(u)), "{name}");
        }
        for (what, share) in at(&s, "utilisation").as_object().unwrap() {
            assert!(share.is_null() || (0.0..=1.0).contains(&share.as_f64().unwrap()), "{what}: {share}");
        }
    }
}

#[test]
fn the_timeline_is_a_chrome_trace() {
    // A host, eight devices, one row of collectives.
    timeline(&[], 10);
    // Copies run beside kernels: a host, a device, its copies.
    timeline(&["hardware=rtx4090-offload", "policy.execution=on-demand", "policy.cache_fraction=0.25"], 3);
    // Four devices with processing in memory beside the cores; two ranks reduce at the same time.
    timeline(&["hardware=duplex-4", "policy.execution=pim-split", "deployment.attention_tp=2"], 11);
}

/// The timeline of a small run has so many rows, nothing is missing, and no row has two events at once.
fn timeline(set: &[&str], rows: usize) {
    let p = Place::new();
    let mut args = vec!["run", "quickstart", "--quiet", "--timeline", "--out", "run", "--set", "output.plots=false"];
    SMALL.iter().chain(set).for_each(|s| args.extend(["--set", s]));
    p.ok(&args);
    let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(p.path(name)).unwrap()).unwrap() };
    let end = number(&read("run/summary.json"), "simulated_s") * 1e6;
    let timeline = read("run/timeline.json");
    let events = timeline["traceEvents"].as_array().unwrap();
    let mut last: f64 = 0.0;
    let (mut complete, mut threads) = (0, 0);
    let mut spans: std::collections::BTreeMap<u64, Vec<(f64, f64)>> = Default::default();
    for e in events {
        match e["ph"].as_str().unwrap() {
            "M" => threads += usize::from(e["name"] == "thread_name"),
            "X" => {
                let (ts, dur) = (e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap());
                assert!(ts >= 0.0 && dur >= 0.0 && ts + dur <= end * (1.0 + 1e-12) + 1e-6, "{e}");
                assert!(e["name"].is_string() && e["pid"].is_u64() && e["tid"].is_u64());
                last = last.max(ts + dur);
                spans.entry(e["tid"].as_u64().unwrap()).or_default().push((ts, ts + dur));
                complete += 1;
            }
            other => panic!("unknown phase {other}"),
        }
    }
    assert_eq!((threads, spans.len()), (rows, rows), "{set:?}");
    for (tid, mut of) in spans {
        of.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Microseconds are printed rounded.
        assert!(of.windows(2).all(|w| w[1].0 >= w[0].1 - 1e-6), "{set:?}: row {tid} has two events at once");
    }
    assert!(complete > 1000 && last > 0.99 * end, "{complete} events until {last} of {end}");
}

#[test]
fn json_is_one_document() {
    let p = Place::new();
    let mut args = vec!["run", "quickstart", "--format", "json", "--out", "run"];
    SMALL.iter().for_each(|s| args.extend(["--set", s]));
    let out = p.command(&args).output().unwrap();
    let mut printed: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    let timing = printed.as_object_mut().unwrap().remove("timing").unwrap();
    assert!(number(&timing, "wall_s") > 0.0 && timing["threads"].is_u64() && timing["host"].is_string());
    let written: Value = serde_json::from_slice(&std::fs::read(p.path("run/summary.json")).unwrap()).unwrap();
    assert_eq!(printed, written);

    p.write(
        "s.toml",
        "name = \"s\"\nbase = \"quickstart\"\n[[axis]]\nkey = \"workload.arrivals.requests\"\nvalues = [1, 2]\n",
    );
    let sweep: Value = serde_json::from_str(&p.ok(&["sweep", "s.toml", "--format", "json"])).unwrap();
    assert_eq!(sweep.as_array().unwrap().len(), 2);
    assert_eq!(p.names(), ["run", "s.toml"]);
}

#[test]
fn a_point_that_does_not_fit_is_a_row() {
    let p = Place::new();
    // No sequences would be refused, if routing were drawn for the one that does not fit.
    let sweep = "name = \"s\"\nbase = \"quickstart\"\nmetrics = [\"throughput.output_tokens_per_s\", \"cache.hit_rate\"]\n\
        [set]\n\"workload.arrivals.requests\" = 2\n\"workload.routing.sequences\" = 2\n\
        [[axis]]\nname = \"model\"\npoints = [{ label = \"gpt-oss-20b\", set = {} }, \
        { label = \"deepseek-v3\", set = { model = \"deepseek-v3\", \"workload.routing.sequences\" = 0 } }]\n";
    p.write("s.toml", sweep);
    p.ok(&["sweep", "s.toml", "--out", "out", "--quiet"]);
    let table = std::fs::read_to_string(p.path("out/sweep.csv")).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "model,status,bottleneck,basis,throughput.output_tokens_per_s,cache.hit_rate");
    assert!(lines[1].starts_with("gpt-oss-20b,ok,compute,") && lines[1].ends_with(','), "{table}");
    assert_eq!(lines[2], "deepseek-v3,does not fit,,,,");
    assert!(p.path("out/sweep.svg").is_file() && p.path("out/sweep.png").is_file());
    assert_eq!(std::fs::read_dir(p.path("out/points")).unwrap().count(), 1);
}

/// The presets of a kind, from `moesim list`.
fn presets(p: &Place, kind: &str) -> Vec<String> {
    let text = p.ok(&["list", kind]);
    text.lines().skip(1).map(|l| l.split_whitespace().next().unwrap().to_string()).collect()
}

#[test]
fn presets_and_finished_experiments_follow_their_schema() {
    let p = Place::new();
    let parse = |text: &str| serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
    let schema = |kind: &str| {
        let schema: Value = serde_json::from_str(&p.ok(&["schema", kind])).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    };
    let valid = |v: &jsonschema::Validator, value: &Value, name: &str| {
        let errors: Vec<String> = v.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path)).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    };
    for (kind, list) in [("hardware", "hardware"), ("model", "models")] {
        let (validator, names) = (schema(kind), presets(&p, list));
        assert!(names.len() >= 8, "{names:?}");
        for name in names {
            let mut value = parse(&p.ok(&["show", &name]));
            valid(&validator, &value, &name);
            value["no_such_key"] = 1.into();
            assert!(!validator.is_valid(&value), "{name}: unknown keys are accepted");
        }
    }
    let (experiment, sweep) = (schema("experiment"), schema("sweep"));
    for name in presets(&p, "experiments") {
        let value = parse(&p.ok(&["show", &name]));
        valid(if value.get("axis").is_some() { &sweep } else { &experiment }, &value, &name);
    }
    // Everything inlined, with every kind of key.
    let set = [&SMALL[..], &["slo.ttft=1 s", "window.start=1 ms", "window.end=2 ms"]].concat();
    let run = p.run("quickstart", "run", &set);
    valid(&experiment, &parse(&run.text("experiment.toml")), "experiment.toml");
    assert!(!experiment.is_valid(&serde_json::json!({ "name": "x" })));
}

#[test]
fn requests_left_out_are_noted() {
    let p = Place::new();
    let rows = "3,GPT-4,30,4,34,API log\n4,GPT-4,0,0,0,API log\n4,ChatGPT,20,2,22,API log\n5,GPT-4,9,0,9,API log\n";
    p.write("b.csv", format!("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n{rows}"));
    let s = p.run("quickstart", "run", &["workload.arrivals={ kind = \"burstgpt\", path = \"b.csv\" }"]).summary();
    assert_eq!(s["notes"][0], "2 failed requests of the log (0 tokens) were left out");
    assert_eq!((s["requests"]["finished"].as_u64(), s["tokens"]["prompt"].as_u64()), (Some(2), Some(50)));
}

#[test]
fn clients_of_a_folder_are_served_again() {
    let p = Place::new();
    std::fs::create_dir(p.path("clients")).unwrap();
    p.write("clients/chunk-3-trace.csv", "0,0.05,2,Weibull,0.55,1.1\n600,0.02,0.5,Gamma,4,0.99\n");
    let lengths = "{\"input_tokens\": \"{10: 0.5, 20: 0.5}\", \"output_tokens\": \"{2: 0.25, 7: 0.75}\"}";
    p.write("clients/chunk-3-dataset.json", format!("{{\"0\": {lengths}}}"));
    let set = ["workload.arrivals={ kind = \"servegen\", path = \"clients\", from = \"300 s\", to = \"900 s\" }"];
    let run = p.run("quickstart", "run", &set);
    let s = run.summary();
    assert!(number(&s, "requests.finished") > 0.0 && number(&s, "simulated_s") < 610.0);
    assert!(s["notes"][0].as_str().unwrap().contains("drawn independently"));
    let text = run.text("experiment.toml");
    assert!(text.contains("# Arrivals: /") && text.contains("clients, hash "), "{text}");
    let again = p.run("run/experiment.toml", "again", &[]);
    assert_eq!(again.text("requests.csv"), run.text("requests.csv"));
}

#[test]
fn show_draws_hardware_and_says_what_its_network_is_like() {
    let p = Place::new();
    let text = p.ok(&["show", "cloudmatrix384", "--svg", "c.svg"]);
    assert!(text.contains("# topology: 768 devices in 48 nodes, 1632 directed links\n"), "{text}");
    assert!(text.contains("# paths: 2 to 4 links") && text.contains("# bisection: "), "{text}");
    let svg = std::fs::read_to_string(p.path("c.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("+41 nodes"));
    // A file of one's own, with a link that failed.
    let failed =
        p.ok(&["show", "wafer-5x5"]).replacen("\n[device]\n", "\nfailed_links = [\"gpu0>gpu1\"]\n[device]\n", 1);
    p.write("mine.toml", &failed);
    let text = p.ok(&["show", "mine.toml", "--svg", "m.svg"]);
    assert!(text.contains("# failed links: gpu0>gpu1"), "{text}");
    let model = p.command(&["show", "gpt-oss-20b", "--svg", "x.svg"]).output().unwrap();
    assert!(model.status.code() == Some(2) && String::from_utf8_lossy(&model.stderr).contains("no topology to draw"));
    assert_eq!(p.names(), ["c.svg", "m.svg", "mine.toml"]);
}
