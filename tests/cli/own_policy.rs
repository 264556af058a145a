//! Does a user's own crate get the whole command line with its policy in it?

use crate::common::{Csv, Place, SMALL};
use std::path::PathBuf;
use std::process::Command;

/// The example, beside this test's binary; `cargo test` has built it, unless it was told to build this test only.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let path = profile.join("examples").join(format!("own_policy{}", std::env::consts::EXE_SUFFIX));
    if !path.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--offline", "-p", "moesim", "--example", "own_policy"]);
        cargo.args(profile.ends_with("release").then_some("--release"));
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    }
    path
}

#[test]
fn a_placement_rule_of_ones_own() {
    let (p, example) = (Place::new(), example());
    let run = |args: &[&str]| Command::new(&example).current_dir(p.path("")).args(args).output().unwrap();
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
