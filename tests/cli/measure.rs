//! Does measuring keep what it measured, and lead to a profile that a run uses?

use crate::common::*;
use serde_json::Value;

/// A small sweep on the simulated device.
const MOCK: [&str; 11] = [
    "calibrate",
    "measure",
    "--mock",
    "--quiet",
    "--model",
    "qwen3-30b-a3b,olmoe-1b-7b,deepseek-v2-lite",
    "--tokens",
    "1,4,16,64,256",
    "--time-budget",
    "1000 s",
    "--precision=bf16,int8",
];

fn with(more: &[&'static str]) -> Vec<&'static str> {
    [&MOCK[..], more].concat()
}

#[test]
fn measured_here_fitted_and_run() {
    let p = Place::new();
    let said = p.ok(&with(&["--out", "m.csv", "--hardware-out", "here.toml"]));
    assert!(said.contains("run-to-run spread: mean") && said.contains("next: moesim calibrate fit m.csv"), "{said}");
    let fitted = p.ok(&["calibrate", "fit", "m.csv", "--hardware", "here.toml", "--out", "mine.toml"]);
    assert!(fitted.contains("moesim_mock bfloat16") && fitted.contains("moesim_mock int8_wo"), "{fitted}");
    let text = p.ok(&["calibrate", "check", "mine.toml", "m.csv", "--hardware", "here.toml", "--format", "json"]);
    let checked: Value = serde_json::from_str(&text).unwrap();
    let kernels = checked.as_array().unwrap();
    // Experts and products in two precisions, and norms.
    assert_eq!(kernels.len(), 5, "{text}");
    for k in kernels {
        let mean = number(&k["errors"], "mean");
        assert!(mean < 0.1, "{} {}: {mean}", k["family"], k["op"]);
    }
    p.write("x.toml", p.ok(&["show", "quickstart"]));
    let set = [
        "hardware=here.toml",
        "hardware.device.profile=\"mine.toml\"",
        "model=olmoe-1b-7b",
        "workload.routing.kind=\"uniform\"",
    ];
    let mut set = set.to_vec();
    set.extend(SMALL);
    let summary = p.run("x.toml", "run", &set).summary();
    for (what, kernel) in
        [("experts", "moesim_mock bfloat16"), ("gemm", "moesim_mock bfloat16"), ("stream", "layernorm")]
    {
        let costs = summary["costs"][what].as_str().unwrap();
        assert!(costs.starts_with("profile mine: ") && costs.contains(kernel) && !costs.contains("donor"), "{costs}");
    }
}

#[test]
fn what_was_cut_off_goes_on_to_the_same_file() {
    let p = Place::new();
    let whole = p.ok(&with(&["--out", "whole.csv"]));
    // A budget that ends in the middle, a device that goes away, a cut line, and on.
    let said = p.ok(&[&MOCK[..8], &["--time-budget", "20 s", MOCK[10], "--out", "part.csv"]].concat());
    assert!(said.contains("the time budget is used up") && said.contains("--resume goes on"), "{said}");
    let first = p.text("part.csv");
    let out = p.command(&with(&["--out", "part.csv"])).output().unwrap();
    assert!(out.status.code() == Some(2) && p.text("part.csv") == first, "without --resume");
    let out = p.command(&with(&["--out", "part.csv", "--resume", "--mock-fails-after", "2000"])).output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && err.contains("the device is gone") && err.lines().count() == 1, "{err}");
    let second = p.text("part.csv");
    assert!(second.len() > first.len() && second.starts_with(&first) && second.ends_with('\n'));
    // The table is one that can be read as it is.
    p.ok(&["calibrate", "fit", "part.csv", "--hardware", "h100-8", "--no-cross", "--out", "part.toml"]);
    p.write("part.csv", &second[..second.len() - 7]);
    let resumed = p.ok(&with(&["--out", "part.csv", "--resume"]));
    assert!(p.text("part.csv") == p.text("whole.csv"), "the resumed table differs");
    assert_eq!(resumed.replace("part.csv", "whole.csv"), whole);
    // Nothing is left to do.
    p.ok(&with(&["--out", "part.csv", "--resume"]));
    assert!(p.text("part.csv") == p.text("whole.csv"), "a whole table grew");
}

/// Batches of a routing trace are measured as they are.
#[test]
fn a_trace_gives_loads() {
    let p = Place::new();
    p.ok(&["trace", "synth", "--model", "olmoe-1b-7b", "--sequences", "40", "--out", "t.arrow"]);
    p.ok(&with(&["--trace", "t.arrow", "--out", "m.csv"]));
    let text = p.text("m.csv");
    let traced: Vec<&str> = text.lines().filter(|l| l.contains(",trace,")).collect();
    // Five sizes in two precisions, some of them twice.
    assert!(traced.len() >= 10, "{}", traced.len());
    for line in traced {
        let fields: Vec<&str> = line.split(',').collect();
        let pair = |run: &str| run.split_once('x').map(|(a, b)| [a, b].map(|n| n.parse::<u64>().unwrap())).unwrap();
        let runs: Vec<[u64; 2]> = fields[12].split(' ').map(pair).collect();
        let tokens: u64 = fields[5].parse().unwrap();
        assert_eq!(runs.iter().map(|[n, _]| n).sum::<u64>(), 64, "{line}");
        assert_eq!(runs.iter().map(|[n, t]| n * t).sum::<u64>(), 8 * tokens, "{line}");
    }
    let out = p.command(&with(&["--trace", "t.arrow", "--model=qwen3-30b-a3b", "--out", "x.csv"])).output().unwrap();
    assert!(out.status.success(), "--model may be given again");
    p.ok(&["trace", "synth", "--model", "mixtral-8x7b", "--sequences", "4", "--out", "u.arrow"]);
    let out = p.command(&with(&["--trace", "u.arrow", "--out", "y.csv"])).output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(2) && err.contains("routes over 8 experts, top-2"), "{err}");
}

/// Processors are measured for real, briefly.
#[test]
fn processors_are_measured() {
    let p = Place::new();
    p.write("tiny.toml", p.ok(&["show", "olmoe-1b-7b"]));
    let text = p.ok(&[
        "calibrate",
        "measure",
        "--quiet",
        "--model",
        "olmoe-1b-7b",
        "--tokens",
        "1,8",
        "--active",
        "8",
        "--memory",
        "128 MiB",
        "--precision",
        "bf16",
        "--time-budget",
        "60 s",
        "--out",
        "cpu.csv",
        "--hardware-out",
        "cpu.toml",
        "--format",
        "json",
    ]);
    let summary: Value = serde_json::from_str(&text).unwrap();
    for key in ["read_bytes_per_s", "write_bytes_per_s", "copy_bytes_per_s", "flop_per_s", "experts_bytes_per_s"] {
        assert!(number(&summary, key) > 1e6, "{summary}");
    }
    let table = Csv::new(&p.text("cpu.csv"));
    let [low, middle, high] = ["low_us", "latency_us", "high_us"].map(|c| table.column::<f64>(c));
    assert!((0..table.rows.len()).all(|i| low[i] <= middle[i] && middle[i] <= high[i] && low[i] > 0.0));
    assert!(table.column::<u32>("repeats").iter().all(|n| *n >= 3));
    assert_eq!(table.rows.len(), number(&summary, "rows") as usize);
    p.ok(&["show", "cpu.toml"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_measurement_leaves_a_table() {
    use std::process::{Command, Stdio};
    let p = Place::new();
    let rows = |p: &Place| std::fs::read_to_string(p.path("m.csv")).map_or(0, |t| t.lines().count());
    for signal in ["-INT", "-KILL"] {
        let mut args =
            vec!["calibrate", "measure", "--quiet", "--memory", "256 MiB", "--model", "olmoe-1b-7b", "--out", "m.csv"];
        args.extend(["--resume", "--time-budget", "600 s"]);
        let before = rows(&p);
        let mut c = Command::new(assert_cmd::cargo::cargo_bin("moesim"));
        let mut child = c.current_dir(p.path("")).args(&args).stderr(Stdio::piped()).spawn().unwrap();
        let begin = std::time::Instant::now();
        while rows(&p) < before + 3 {
            assert!(begin.elapsed().as_secs() < 100, "no rows");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        let text = p.text("m.csv");
        assert!(text.ends_with('\n') && text.lines().all(|l| l.matches(',').count() >= 28), "{text}");
        if signal == "-INT" {
            assert_eq!(status.code(), Some(1));
        }
    }
}

#[test]
fn wrong_sweeps_are_refused() {
    let p = Place::new();
    for (args, part) in [
        (&["--device", "cpv"][..], "did you mean \"cpu\""),
        (&["--tokens", "0"], "--tokens"),
        (&["--active", "0"], "--active"),
        (&["--skew", "zip-1"], "is not a skew"),
        (&["--precision", "fp7"], "is not a precision"),
        (&["--model", "olmo"], "olmoe-1b-7b"),
        (&["--out", "nowhere/m.csv"], "is no folder"),
        (&["--mock", "--time-budget", "0 s"], "--time-budget"),
    ] {
        let out = p.command(&[&["calibrate", "measure"], args].concat()).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && err.contains(part), "{args:?}: {err}");
    }
    assert_eq!(p.names(), [""; 0]);
}

/// Without a driver, one line says so.
#[test]
fn a_device_that_is_not_there() {
    let p = Place::new();
    let out = p.command(&["calibrate", "measure", "--device", "cuda:0", "--time-budget", "1 s"]).output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    if !err.contains("no CUDA driver") {
        println!("skipped: there is a CUDA driver");
        return;
    }
    assert!(out.status.code() == Some(1) && err.lines().count() == 1 && err.contains("--device cpu"), "{err}");
    assert_eq!(p.names(), [""; 0]);
}

/// An experiment's batches say what is measured, until its interval is small; a table that is there goes on.
#[test]
fn an_experiment_chooses_what_is_measured() {
    let p = Place::new();
    p.write("x.toml", p.ok(&["show", "quickstart"]));
    p.ok(&with(&["--out", "few.csv", "--hardware-out", "here.toml"]));
    let mut driven = vec!["calibrate", "measure", "--mock", "--quiet", "--experiment", "x.toml"];
    for set in SMALL.into_iter().chain(HERE) {
        driven.extend(["--set", set]);
    }
    let go = |more: &[&'static str]| [&driven[..], more].concat();
    let text = p.ok(&go(&["--out", "m.csv", "--format", "json"]));
    let found: Value = serde_json::from_str(&text).unwrap();
    let [before, after] = ["interval_before", "interval_after"].map(|key| number(&found, key));
    assert!(after <= 0.05 && before > 2.0 * after, "{before} {after}");
    assert!(found["stopped"].as_str().unwrap().contains("at most 5.0 %"), "{text}");
    let list = |key: &str| found[key].as_array().unwrap().clone();
    let (works, points, apart) = (list("works"), list("points"), list("not_measurable"));
    let share = |all: &[Value]| all.iter().map(|w| number(w, "share")).sum::<f64>();
    assert!((share(&works) + share(&apart) - 1.0).abs() < 1e-6, "{text}");
    assert!(works.len() <= 48 && works[0]["work"].as_str().unwrap().starts_with("experts 2048 x 1024"), "{text}");
    assert!(apart.iter().any(|a| a["why"] == "core attention"), "{text}");
    // The first point is the one that the interval owes most to, and the table has a row for every point.
    let worth = |w: &Value| number(w, "share") * number(w, "before");
    assert!(works.iter().all(|w| worth(w) <= worth(&points[0]) + 1e-12), "{text}");
    assert_eq!(p.text("m.csv").lines().count(), points.len() + 1);
    // Nothing is left to do; another goal goes on to the same table.
    let first = p.text("m.csv");
    let said = p.ok(&go(&["--out", "m.csv", "--resume"]));
    assert!(
        said.contains("stopped: the interval of what can be measured is at most 5.0 %") && p.text("m.csv") == first,
        "{said}"
    );
    p.ok(&go(&["--out", "m.csv", "--resume", "--until", "0.01"]));
    let more = p.text("m.csv");
    assert!(more.starts_with(&first) && more.len() > first.len(), "the table was not gone on with");
    // The profile says by how much the experiment moved.
    let mut fit = vec!["calibrate", "fit", "m.csv", "--hardware", "here.toml", "--out", "mine.toml", "--experiment"];
    fit.push("x.toml");
    for set in SMALL.into_iter().chain(HERE) {
        fit.extend(["--set", set]);
    }
    let said = p.ok(&fit);
    assert!(said.contains("as it is") && said.matches("interval").count() >= 2, "{said}");
}

/// The quickstart on the device that is simulated.
const HERE: [&str; 3] = ["hardware=here.toml", "model=olmoe-1b-7b", "workload.routing.kind=\"uniform\""];

#[test]
fn wrong_experiments_to_measure_are_refused() {
    let p = Place::new();
    for (args, part) in [
        (&["--experiment", "quickstat"][..], "quickstart"),
        (&["--experiment", "quickstart", "--until", "0"], "--until"),
        (&["--experiment", "quickstart", "--model", "olmoe-1b-7b"], "--model"),
        (&["--set", "seed=1"], "--experiment"),
        (&["--until", "0.01"], "--experiment"),
        (&["--experiment", "quickstart", "--time-budget", "0 s"], "--time-budget"),
        (&["--experiment", "quickstart", "--device", "gpu"], "--device"),
    ] {
        let out = p.command(&[&["calibrate", "measure", "--mock"], args].concat()).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && err.contains(part), "{args:?}: {err}");
    }
    assert_eq!(p.names(), [""; 0]);
}
