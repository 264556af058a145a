//! Does `place` place, prove, export, judge and refuse?

use super::common::*;
use moesim_traces::synth::{SynthSpec, uniform};
use moesim_traces::{Model, OwnedSequence, Trace};
use serde_json::Value;

/// Forty sequences of gpt-oss-20b with 12 rows each, skewed: a quarter of the ids are folded onto the first experts.
fn trace(p: &Place) {
    let spec = SynthSpec::for_model(&Model::load("gpt-oss-20b").unwrap(), 40, 4, 8).unwrap();
    let drawn = uniform(&spec, None, 5).unwrap();
    let fold = |ids: &[u16]| -> Vec<u16> {
        let four = |ids: &[u16]| {
            let mut out: Vec<u16> = Vec::new();
            for &e in ids {
                let e = if e >= 24 && !out.contains(&(e - 24)) && !ids.contains(&(e - 24)) { e - 24 } else { e };
                out.push(e);
            }
            out
        };
        ids.chunks_exact(4).flat_map(four).collect()
    };
    let one = |i: usize| {
        let s = drawn.sequence(i).to_owned();
        OwnedSequence { prefill: fold(&s.prefill), decode: fold(&s.decode), ..s }
    };
    let folded = Trace::from_sequences(drawn.meta().clone(), (0..40).map(one).collect()).unwrap();
    let mut w = moesim_traces::trace::Writer::create(&p.path("t.arrow"), folded.meta().clone()).unwrap();
    (0..40).for_each(|i| w.push_sequence(&folded.sequence(i).to_owned()).unwrap());
    w.finish().unwrap();
}

/// Two nodes of four H100.
const SITE: [&str; 9] = [
    "place",
    "--trace",
    "t.arrow",
    "--model",
    "gpt-oss-20b",
    "--hardware",
    "h100-2x8",
    "--set",
    "hardware.topology.devices_per_node=4",
];

fn json(p: &Place, more: &[&str]) -> Value {
    let args: Vec<&str> = SITE.iter().chain(more).chain(&["--format", "json"]).copied().collect();
    serde_json::from_str(&p.ok(&args)).unwrap()
}

fn method<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["methods"].as_array().unwrap();
    all.iter().find(|m| m["method"] == name).unwrap_or_else(|| panic!("{name} in {report}"))
}

#[test]
fn methods_are_compared_and_none_beats_its_bound() {
    let p = Place::new();
    trace(&p);
    for objective in ["time", "load", "traffic", "lexicographic"] {
        let quick = ["--compare", "--objective", objective, "--steps", "300", "--batch", "64", "--no-simulation"];
        let report = json(&p, &quick);
        let placed: Vec<&Value> =
            report["methods"].as_array().unwrap().iter().filter(|m| m["gap"].is_number()).collect();
        assert!(placed.len() >= 10, "{report}");
        for m in &placed {
            assert!(number(m, "objective") >= number(m, "bound") * (1.0 - 1e-9), "{m}");
            assert!(number(m, "load") >= number(m, "load_bound") * (1.0 - 1e-9), "{m}");
            assert_eq!(m["reproducible"], true);
        }
        // The program is never worse than what it starts from, nor than DeepSeek's balancer on load.
        if objective == "load" {
            let (ilp, eplb) =
                (number(method(&report, "ilp"), "objective"), number(method(&report, "eplb"), "objective"));
            assert!(ilp <= eplb && ilp < number(method(&report, "contiguous"), "objective"), "{report}");
        }
    }
}

#[test]
fn held_out_sequences_are_simulated_with_the_placement() {
    let p = Place::new();
    trace(&p);
    let report = json(&p, &["--solver", "contiguous,eplb,longest-first", "--batch", "64", "--steps", "100"]);
    for name in ["contiguous", "eplb", "longest-first"] {
        let held = &method(&report, name)["held_out"];
        assert!(number(held, "simulated.output_tokens_per_s") > 0.0 && number(held, "load") > 0.0, "{held}");
        assert!(number(held, "simulated.cross_node_bytes") < number(held, "simulated.cross_device_bytes"), "{held}");
        if name != "eplb" {
            let (low, high) = (held["interval"][0].as_f64().unwrap(), held["interval"][1].as_f64().unwrap());
            assert!(low <= number(held, "ratio") && number(held, "ratio") <= high, "{held}");
        }
    }
    assert_eq!(report["held_out_on"], "12 sequences");
}

/// The same input gives the same file, on any number of threads; a run takes it, in our format and in those of engines.
#[test]
fn a_placement_is_written_once_and_run_from_any_format() {
    let p = Place::new();
    trace(&p);
    let place = |out: &str, more: &[&str]| {
        let own = [
            "--batch",
            "64",
            "--steps",
            "200",
            "--no-simulation",
            "--redundant",
            "8",
            "--unit",
            "tokens",
            "--out",
            out,
            "--quiet",
        ];
        p.ok(&SITE.iter().chain(&own).chain(more).copied().collect::<Vec<_>>());
    };
    place("a.json", &["--threads", "1"]);
    place("b.json", &["--threads", "2"]);
    assert_eq!(p.text("a.json"), p.text("b.json"));
    let placed: Value = serde_json::from_str(&p.text("a.json")).unwrap();
    assert_eq!((&placed["experts"], &placed["devices"]), (&32.into(), &8.into()));
    assert!(placed["result"]["value"].as_f64() >= placed["result"]["bound"].as_f64());
    let experiment = |placement: &str| {
        format!(
            "name = \"x\"\nmodel = \"gpt-oss-20b\"\nhardware = \"h100-8\"\n[policy]\nplacement = \"{placement}\"\n\
             [workload.arrivals]\nkind = \"closed-loop\"\nconcurrency = 8\nrequests = 16\n\
             prompt_tokens = {{ mean = 4 }}\noutput_tokens = {{ mean = 8 }}\n\
             [workload.routing]\nkind = \"trace\"\npath = \"t.arrow\"\n"
        )
    };
    // Every slot is taken, so that maps of slots say the same.
    place("c.json", &["--solver", "contiguous"]);
    p.write("own.toml", experiment("./c.json"));
    let own = p.run("own.toml", "own", &[]).summary();
    assert_eq!(own["placement"]["format"], "moesim");
    assert_eq!(own["placement"]["redundant"], 24 * 8);
    for format in ["eplb", "sglang", "tensorrt-llm"] {
        let file = format!("{format}.{}", if format == "tensorrt-llm" { "yaml" } else { "json" });
        place(&file, &["--solver", "contiguous", "--as", format]);
        p.write("other.toml", experiment(&format!("./{file}")));
        let other = p.run("other.toml", format, &[]).summary();
        assert_eq!(other["placement"]["format"], format);
        assert_eq!(other["simulated_s"], own["simulated_s"], "{format}");
        // The copy in the run directory names the file from anywhere.
        let again = p.run(&format!("{format}/experiment.toml"), &format!("{format}-again"), &[]).summary();
        assert_eq!(again["simulated_s"], own["simulated_s"]);
    }
    // Judged beside what is computed, and by itself.
    let report = json(
        &p,
        &[
            "--solver",
            "contiguous",
            "--judge",
            "a.json",
            "--redundant",
            "8",
            "--no-simulation",
            "--batch",
            "64",
            "--unit",
            "tokens",
        ],
    );
    assert!(number(method(&report, "a.json"), "objective") < number(method(&report, "contiguous"), "objective"));
    let alone: Value = serde_json::from_str(&p.ok(&["place", "--judge", "c.json,c.json", "--format", "json"])).unwrap();
    assert_eq!(
        (&alone[1]["moves"], &alone[0]["redundant"], &alone[0]["load"]),
        (&0.into(), &(24 * 8).into(), &"no data".into())
    );
}

/// One device, more devices than experts, no loads, a clock that runs out, moves, pins.
#[test]
fn odd_problems_have_clear_results() {
    let p = Place::new();
    p.write("few.csv", "0,0,0\n0,7,0\n");
    p.write("loads.csv", "5,1,1\n2,2,9\n");
    let run = |more: &[&str]| -> Value {
        let args: Vec<&str> = ["place", "--format", "json"].iter().chain(more).copied().collect();
        serde_json::from_str(&p.ok(&args)).unwrap()
    };
    // Most experts without any load: the busiest device has the only one.
    let few = run(&["--counts", "few.csv", "--devices", "2", "--batch", "7"]);
    assert_eq!(number(method(&few, "ilp"), "objective"), 7.0, "{few}");
    assert!(number(method(&few, "ilp"), "gap") < 1e-6);
    let one = run(&["--counts", "loads.csv", "--devices", "1", "--batch", "7"]);
    assert_eq!(number(method(&one, "ilp"), "gap"), 0.0);
    let many = run(&["--counts", "loads.csv", "--devices", "8"]);
    assert!(number(method(&many, "ilp"), "gap") < 1e-6, "{many}");
    let cut = run(&[
        "--counts",
        "loads.csv",
        "--devices",
        "2",
        "--solver",
        "anneal",
        "--steps",
        "4000000000",
        "--time-limit",
        "0.2s",
    ]);
    assert_eq!(method(&cut, "anneal")["reproducible"], false);
    p.ok(&["place", "--counts", "loads.csv", "--devices", "3", "--solver", "contiguous", "--out", "c.json", "--quiet"]);
    let moved = run(&["--counts", "loads.csv", "--devices", "3", "--from", "c.json", "--moves", "0"]);
    assert_eq!(number(method(&moved, "ilp"), "moves"), 0.0);
    let pinned =
        run(&["--counts", "loads.csv", "--devices", "3", "--pin", "1:2:0", "--slots", "3", "--out", "pin.json"]);
    assert!(number(method(&pinned, "ilp"), "objective") > 0.0);
    let file: Value = serde_json::from_str(&p.text("pin.json")).unwrap();
    assert!(file["layers"][1][0].as_array().unwrap().contains(&2.into()), "{file}");
}

#[test]
fn wrong_input_is_refused_in_one_line() {
    let p = Place::new();
    trace(&p);
    p.write("loads.csv", "5,1,1\n2,2,9\n");
    p.write("none.csv", "0,0,0\n0,0,0\n");
    p.write("torn.json", "{\"format\": \"moesim-placement\", \"version\": 1");
    let site: Vec<&str> = SITE.to_vec();
    let with = |more: &[&'static str]| -> Vec<&str> { site.iter().copied().chain(more.iter().copied()).collect() };
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["place"], "nothing to place for"),
        (vec!["place", "--trace", "t.arrow"], "no model is named"),
        (vec!["place", "--counts", "none.csv", "--devices", "2"], "no selections"),
        (vec!["place", "--counts", "loads.csv"], "how many devices"),
        (vec!["place", "--counts", "loads.csv", "--devices", "2", "--redundant", "9"], "redundant"),
        (with(&["--redundant", "18446744073709551615"]), "redundant"),
        (with(&["--redundant", "4000000000"]), "redundant"),
        (with(&["--batch", "0"]), "--batch"),
        (with(&["--batch", "4294967295"]), "--batch"),
        (vec!["place", "--counts", "loads.csv", "--devices", "2", "--slots", "1"], "slots"),
        (vec!["place", "--counts", "loads.csv", "--devices", "2", "--solver", "longest"], "longest-first"),
        (vec!["place", "--counts", "loads.csv", "--devices", "2", "--solver", "cluster"], "needs rows"),
        (vec!["place", "--counts", "loads.csv", "--devices", "2", "--pin", "9:0:0"], "does not exist"),
        (vec!["place", "--counts", "loads.csv", "--devices", "2", "--memory", "1 GiB"], "size of an expert"),
        (vec!["place", "--counts", "loads.csv", "--devices", "2", "--from", "torn.json", "--moves", "1"], "torn.json"),
        (vec!["place", "--judge", "torn.json"], "torn.json"),
        (with(&["--memory", "1 GiB"]), "bytes are missing"),
        (with(&["--train", "0"]), "--train"),
        (with(&["--set", "deployment.tokens=token-follows"]), "attention_tp"),
        (with(&["--as", "elbp", "--out", "x.json", "--no-simulation", "--solver", "contiguous"]), "placement format"),
    ];
    for (args, said) in cases {
        let out = p.command(&args).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {err}");
        assert!(err.contains(said) && err.trim_end().lines().count() == 1, "{args:?}: {err}");
        assert!(out.stdout.is_empty());
    }
    assert!(!p.names().contains(&"x.json".to_string()));
    // A run says where loads come from.
    let out = p.command(&["run", "quickstart", "--set", "policy.placement=eplb"]).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("moesim place --solver eplb"));
}

/// Placements that omni-infer ships: nine arrays for DeepSeek-V3.
#[test]
fn shipped_placements_are_judged() {
    let Some(npz) = data("routing/placements/deepseek-v3_device_layer_expert.npz") else { return };
    let p = Place::new();
    let names = std::process::Command::new("python3")
        .args(["-c", "import sys, zipfile; print(*[n[:-4] for n in zipfile.ZipFile(sys.argv[1]).namelist()])"])
        .arg(&npz)
        .output();
    let Ok(names) = names else { return println!("skipped: no python3 to list the arrays") };
    let names = String::from_utf8(names.stdout).unwrap();
    let list: Vec<String> = names.split_whitespace().map(|n| format!("{}#{n}", npz.display())).collect();
    assert_eq!(list.len(), 9);
    let rows: Value = serde_json::from_str(&p.ok(&["place", "--judge", &list.join(","), "--format", "json"])).unwrap();
    for r in rows.as_array().unwrap() {
        assert_eq!((&r["layers"], &r["experts"], &r["load"]), (&58.into(), &256.into(), &"no data".into()), "{r}");
        assert!(r["slots"].as_u64().unwrap() == 58 * 256 + r["redundant"].as_u64().unwrap());
    }
    assert!(rows.as_array().unwrap().iter().filter(|r| r["redundant"] != 0).count() == 3);
}

/// A row names what ran: the default method solves no program where that would be too large, and says so.
#[test]
fn rows_name_what_ran() {
    let p = Place::new();
    trace(&p);
    let quick = ["--batch", "64", "--steps", "50", "--no-simulation"];
    let report = json(&p, &[&quick[..], &["--solver", "ilp,two-stage,contiguous", "--out", "ilp.json"]].concat());
    let ran = |name: &str| method(&report, name)["ran"].clone();
    // 336 rows, 24 layers and 8 devices, and who is where: 24 x 32 x 9.
    assert_eq!(ran("ilp"), format!("anneal: no program, {} variables", 336 * 24 * 8 + 24 * 32 * 9));
    assert_eq!((ran("two-stage"), ran("contiguous")), (Value::Null, Value::Null));
    let table = p.ok(&[&SITE[..], &quick, &["--out", "t.json"]].concat());
    assert!(table.contains("  what ran\n") && table.contains("  anneal: no program, 71424 variables\n"), "{table}");
    let file: Value = serde_json::from_str(&p.text("t.json")).unwrap();
    assert_eq!(file["result"]["ran"], "anneal: no program, 71424 variables");
    // Small enough for a program.
    p.write("loads.csv", "5,1,1\n2,2,9\n");
    let small = p.ok(&["place", "--counts", "loads.csv", "--devices", "2"]);
    assert!(small.contains("\nobjective: load, in tokens an iteration"), "{small}");
    assert!(small.contains("  longest-first, program of 18 variables"), "{small}");
}

/// The part that is placed on is drawn, since a trace may be sorted by what it is about, unless the order is asked for.
#[test]
fn the_part_to_place_on_is_drawn() {
    let p = Place::new();
    trace(&p);
    let quick = ["--solver", "longest-first", "--batch", "64", "--steps", "50", "--no-simulation"];
    let place = |more: &[&str]| json(&p, &[&quick[..], more].concat());
    let (drawn, ordered, whole) = (place(&[]), place(&["--in-order"]), place(&["--train", "1"]));
    let hash = Trace::open(&p.path("t.arrow")).unwrap().hash().to_string();
    for (report, expected) in [
        (&drawn, "28 of 40 sequences in a shuffled order, 336 rows, trace "),
        (&ordered, "28 of 40 sequences, 336 rows, trace "),
        (&whole, "40 of 40 sequences, 480 rows, trace "),
    ] {
        assert_eq!(report["trained_on"], format!("{expected}{hash}"));
    }
    let objective = |r: &Value| number(method(r, "longest-first"), "objective");
    assert_eq!(objective(&drawn), objective(&place(&["--shuffle"])));
    assert_ne!(objective(&drawn), objective(&ordered));
    assert_ne!(objective(&drawn), objective(&place(&["--seed", "2"])));
    p.command(&[&SITE[..], &["--in-order", "--shuffle"]].concat()).assert().code(2);
}
