//! Does a user's own crate get the whole command line with its policy in it?

use crate::common::{Csv, NO_CACHE, Place, SMALL, files};
use std::path::PathBuf;
use std::process::Command;

/// An example, beside this test's binary; `cargo test` has built it, unless it was told to build this test only.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let path = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if !path.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--offline", "-p", "moesim", "--example", name]);
        cargo.args(profile.ends_with("release").then_some("--release"));
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    }
    path
}

#[test]
fn a_placement_rule_of_ones_own() {
    let (p, example) = (Place::new(), example("own_policy"));
    let run = |args: &[&str]| {
        Command::new(&example).current_dir(p.path("")).args(args).env(NO_CACHE.0, NO_CACHE.1).output().unwrap()
    };
    let list = String::from_utf8(run(&["list", "policies"]).stdout).unwrap();
    assert!(list.contains("placement = \"staggered\"") && list.contains("placement = \"contiguous\""), "{list}");
    let mut args = vec!["run", "quickstart", "--out", "run", "--set", "policy.placement=staggered"];
    SMALL.iter().for_each(|s| args.extend(["--set", s]));
    let out = run(&args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // Expert e of layer l is on device (e + l) mod 8.
    let experts = Csv::new(&std::fs::read_to_string(p.path("run/experts.csv")).unwrap());
    let column = |name| experts.column::<usize>(name);
    let rows = column("layer").into_iter().zip(column("expert")).zip(column("devices"));
    assert_eq!(rows.clone().count(), 24 * 32);
    rows.for_each(|((l, e), d)| assert_eq!(d, (l + e) % 8));
    // The stock binary knows it not, and says what it knows.
    let stock = p.command(&["run", "quickstart", "--set", "policy.placement=staggered"]).output().unwrap();
    assert_eq!(stock.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&stock.stderr).contains("known: contiguous, round-robin, home-die"));
}

/// `on-demand`, written once more from public items alone: the same bytes but for its name, a setting and counters of its own.
#[test]
fn an_execution_policy_of_ones_own() {
    let (p, example) = (Place::new(), example("own_execution"));
    let run = |args: &[&str]| {
        Command::new(&example).current_dir(p.path("")).args(args).env(NO_CACHE.0, NO_CACHE.1).output().unwrap()
    };
    let shown = String::from_utf8(run(&["show", "my-on-demand"]).stdout).unwrap();
    assert!(
        shown.contains("[policy.execution]\nkind = \"my-on-demand\"") && shown.contains("cache_fraction = \"auto\""),
        "{shown}"
    );
    for fraction in ["auto", "0.1"] {
        let of =
            |kind: &str| format!("policy.execution={{ kind = \"{kind}\", cache_fraction = {} }}", quoted(fraction));
        let (stock, own) = (format!("stock-{fraction}"), format!("own-{fraction}"));
        let kinds = ["on-demand", "my-on-demand"].map(of);
        p.run("quickstart", &stock, &[&SMALL[..], &["hardware=rtx4090-offload", &kinds[0]]].concat());
        let mut args = vec!["run", "quickstart", "--out", &own, "--set", "output.plots=false", "--set", &kinds[1]];
        SMALL.iter().chain(&["hardware=rtx4090-offload"]).for_each(|s| args.extend(["--set", s]));
        let out = run(&args);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let (stock, own) = (files(&p.path(&stock)), files(&p.path(&own)));
        assert_eq!(stock.keys().collect::<Vec<_>>(), own.keys().collect::<Vec<_>>());
        for (file, bytes) in stock.iter().filter(|(f, _)| !["timing.json", "manifest.json"].contains(&f.as_str())) {
            let [a, b] = [bytes, &own[file]].map(|b| String::from_utf8_lossy(b).replace("my-on-demand", "on-demand"));
            assert!(a == b, "{fraction}: {file} differs");
        }
        let summary: serde_json::Value = serde_json::from_slice(&own["summary.json"]).unwrap();
        assert!(summary["counters"]["my-on-demand"]["loads"].as_u64() > Some(0), "{summary}");
    }
    let typo =
        run(&["run", "quickstart", "--set", "policy.execution={ kind = \"my-on-demand\", cache_fractoin = 0.1 }"]);
    assert_eq!(typo.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&typo.stderr).contains("did you mean \"cache_fraction\""));
}

fn quoted(fraction: &str) -> String {
    if fraction == "auto" { "\"auto\"".into() } else { fraction.into() }
}
