//! Does `explain` account for the whole iteration?

use super::common::*;
use serde_json::Value;

fn sum(list: &Value, key: &str) -> f64 {
    list.as_array().unwrap().iter().map(|row| number(row, key)).sum()
}

fn explain(p: &Place, args: &[&str]) -> Value {
    let mut all = vec!["explain", "quickstart", "--quiet", "--format", "json"];
    SMALL.iter().for_each(|s| all.extend(["--set", s]));
    all.extend(args);
    serde_json::from_str(&p.ok(&all)).unwrap()
}

#[test]
fn times_sum_to_the_iteration_and_links_carry_what_is_sent() {
    let p = Place::new();
    for hardware in ["hardware=h100-8", "hardware=wafer-5x5"] {
        let x = explain(&p, &["--set", hardware, "--iteration", "5", "--layer", "2"]);
        let time = number(&x, "time_s");
        assert_eq!((&x["iteration"], &x["last"]), (&5.into(), &false.into()));
        assert!((sum(&x["operations"], "path_s") / time - 1.0).abs() < 1e-9, "{x}");
        let bound: f64 = x["bound_by"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
        assert!((bound / time - 1.0).abs() < 1e-9, "{bound} {time}");
        // Every layer, and what belongs to none.
        let outside = ["host", "embed", "head"];
        let of_none =
            x["operations"].as_array().unwrap().iter().filter(|k| outside.contains(&k["kind"].as_str().unwrap()));
        let rest: f64 = of_none.map(|k| number(k, "path_s")).sum();
        assert_eq!(x["layers"].as_array().unwrap().len(), 24);
        assert!(((sum(&x["layers"], "path_s") + rest) / time - 1.0).abs() < 1e-9);
        // The slowest device is no faster than the mean.
        for l in x["layers"].as_array().unwrap() {
            assert!(number(l, "experts.longest_s") >= number(l, "experts.mean_s") * (1.0 - 1e-12), "{l}");
            assert!(!l["link"].is_null());
        }
        // A collective that a link bound is bound by one link.
        let collectives: f64 = x["operations"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|k| k["kind"] == "dispatch" || k["kind"] == "combine")
            .map(|k| number(k, "count"))
            .sum();
        assert_eq!(sum(&x["links"], "binds"), collectives);
        let listed = x["layer_operations"].as_array().unwrap();
        assert!(listed.iter().all(|o| o["layer"] == 2) && listed.iter().any(|o| o["kind"] == "dispatch"));
    }
}

/// The bytes of the iterations that a run has are those that the run reports.
#[test]
fn one_iteration_has_the_bytes_of_a_run_of_one_iteration() {
    let p = Place::new();
    let one = [
        "workload.arrivals.requests=8",
        "workload.arrivals.concurrency=8",
        "workload.arrivals.output_tokens={ mean = 1 }",
    ];
    let mut args = vec!["explain", "quickstart", "--quiet", "--format", "json"];
    one.iter().for_each(|s| args.extend(["--set", s]));
    let x: Value = serde_json::from_str(&p.ok(&args)).unwrap();
    assert_eq!((&x["iteration"], &x["last"]), (&1.into(), &true.into()));
    let run = p.run("quickstart", "run", &one);
    assert_eq!(number(&run.summary(), "iterations"), 1.0);
    let links = run.table("links.csv");
    assert_eq!(sum(&x["links"], "bytes"), links.column::<f64>("bytes").iter().sum::<f64>());
    let both: f64 = ["dispatch", "combine"].map(|k| number(&run.summary(), &format!("breakdown.{k}"))).iter().sum();
    let kinds = x["operations"].as_array().unwrap();
    let path: f64 =
        kinds.iter().filter(|k| k["kind"] == "dispatch" || k["kind"] == "combine").map(|k| number(k, "path_s")).sum();
    assert!((path / both - 1.0).abs() < 1e-9);
}

#[test]
fn the_table_is_for_people_and_what_is_not_there_is_refused() {
    let p = Place::new();
    let text = p.ok(&["explain", "quickstart", "--quiet", "--iteration", "3", "--layer", "23"]);
    for wanted in ["iteration 3:", "critical path bound by", "gpu0>switch", "longest / mean us", "binds: "] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    for (args, wanted) in [
        (&["--layer", "24"][..], "gpt-oss-20b has no layer 24: choose 0 to 23"),
        (&["--iteration", "0"], "counted from 1"),
    ] {
        let mut all = vec!["explain", "quickstart", "--quiet"];
        all.extend(args);
        let out = p.command(&all).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(2) && err.contains(wanted.split(": ").next().unwrap()), "{err}");
    }
}
