//! Is nothing replaced that the user wants to keep, whatever writes, and however it ends?

use crate::common::{NO_CACHE, Place, SMALL};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A run of some moments, without pictures.
fn run<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["run", "quickstart", "--quiet", "--out", out, "--set", "output.plots=false"];
    SMALL.iter().for_each(|s| args.extend(["--set", s]));
    args.extend(more);
    args
}

#[test]
fn a_run_replaces_its_own_files_alone() {
    let p = Place::new();
    p.ok(&run("run", &[]));
    p.refused(&run("run", &[]), &["run: holds results already", "--force"]);
    p.write("run/notes.md", "mine");
    std::fs::create_dir_all(p.path("run/plots/mine")).unwrap();
    p.write("run/plots/mine/a.svg", "mine");
    let edited = p.text("run/links.csv") + "edited\n";
    p.write("run/links.csv", &edited);
    let before = p.text("run/requests.csv");
    let out = p.command(&run("run", &["--force", "--seed", "2"])).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert_eq!(said, "note: links.csv is yours or was changed, and stays; the new one is links.new.csv\n");
    assert_eq!((p.text("run/notes.md"), p.text("run/plots/mine/a.svg")), ("mine".into(), "mine".into()));
    assert_eq!(p.text("run/links.csv"), edited);
    assert_ne!(p.text("run/requests.csv"), before);
    assert!(p.text("run/links.new.csv").starts_with("link,from,to,"));
    assert_eq!(p.names(), ["run"]);
    // Pictures that come later are the run's own; one that was changed is the user's.
    p.ok(&["plot", "run", "latency", "--format", "svg"]);
    p.ok(&["plot", "run", "latency", "--format", "svg"]);
    p.write("run/plots/latency.svg", "mine");
    p.refused(&["plot", "run", "latency", "--format", "svg"], &["plots/latency.svg: was changed", "--force"]);
    p.ok(&run("run", &["--force"]));
    assert_eq!(p.text("run/plots/latency.svg"), "mine");
    p.ok(&["plot", "run", "latency", "--format", "svg", "--force"]);
    assert!(p.text("run/plots/latency.svg").starts_with("<svg"));
    // A run of a version without manifests: nothing tells its files from the user's.
    std::fs::remove_file(p.path("run/manifest.json")).unwrap();
    p.refused(&run("run", &["--force"]), &["run: holds summary.json but no manifest.json", "move it away"]);
}

#[test]
fn of_four_runs_into_one_folder_one_wins() {
    let p = Place::new();
    let moesim = assert_cmd::cargo::cargo_bin("moesim");
    for force in [&[][..], &["--force"]] {
        let long = [&["--set", "workload.arrivals.requests=4000"], force].concat();
        let start = |_| {
            let mut c = Command::new(&moesim);
            c.current_dir(p.path(""))
                .env(NO_CACHE.0, NO_CACHE.1)
                .args(run("run", &long))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let children: Vec<_> = (0..4).map(start).collect();
        let ends: Vec<_> = children.into_iter().map(|c| c.wait_with_output().unwrap()).collect();
        let mut codes: Vec<_> = ends.iter().map(|o| o.status.code().unwrap()).collect();
        codes.sort_unstable();
        assert_eq!(codes, [0, 1, 1, 1]);
        for o in ends.iter().filter(|o| !o.status.success()) {
            let text = String::from_utf8_lossy(&o.stderr);
            assert!(text.starts_with("error: run: is being written by another moesim; "), "{text}");
        }
        assert_eq!(p.names(), ["run"]);
    }
}

/// At any moment of a run that replaces another one, the folder is the old one or the new one, whole, with the user's file; and what a
/// killed process leaves bars nobody.
#[test]
fn a_kill_leaves_the_old_run_or_the_new_one() {
    let p = Place::new();
    p.ok(&run("run", &["--seed", "1"]));
    p.write("run/notes.md", "mine");
    let seeds: Vec<String> = (2..14).map(|s| s.to_string()).collect();
    for (i, seed) in seeds.iter().enumerate() {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("moesim"))
            .env(NO_CACHE.0, NO_CACHE.1)
            .current_dir(p.path(""))
            .args(run("run", &["--force", "--seed", seed]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(120 * i as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        let summary: serde_json::Value = serde_json::from_str(&p.text("run/summary.json")).unwrap();
        let experiment = p.text("run/experiment.toml");
        assert!(experiment.contains(&format!("\nseed = {}\n", summary["seed"])), "a mix");
        assert_eq!(p.text("run/notes.md"), "mine");
    }
    p.ok(&run("run", &["--force", "--seed", "99"]));
    assert!(p.text("run/experiment.toml").contains("\nseed = 99\n") && p.text("run/notes.md") == "mine");
    assert_eq!(p.names(), ["run"]);
}

/// Every command that writes a file: refused at once where one is, and replaced when that is asked for.
#[test]
fn files_are_replaced_only_when_asked() {
    let p = Place::new();
    p.ok(&["trace", "synth", "--model", "olmoe-1b-7b", "--sequences", "8", "--out", "t.arrow"]);
    p.write("config.json", r#"{"model_type": "mixtral", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 128, "num_local_experts": 4, "num_experts_per_tok": 2, "vocab_size": 100}"#);
    let commands: [(&str, &[&str]); 7] = [
        ("synth", &["trace", "synth", "--model", "olmoe-1b-7b", "--sequences", "8"]),
        ("export", &["trace", "export", "t.arrow", "--format", "csv"]),
        ("slice", &["trace", "slice", "t.arrow", "--first", "2"]),
        ("merge", &["trace", "merge", "t.arrow", "t.arrow"]),
        ("import", &["trace", "import", "export", "--format", "csv", "--experts", "64", "--top-k", "8"]),
        ("model", &["model", "import", "config.json"]),
        (
            "place",
            &[
                "place",
                "--trace",
                "t.arrow",
                "--model",
                "olmoe-1b-7b",
                "--hardware",
                "h100-8",
                "--solver",
                "longest-first",
                "--quiet",
            ],
        ),
    ];
    for (file, args) in commands {
        let with = |more: &[&'static str]| [args, &["--out", file], more].concat();
        p.ok(&with(&[]));
        let made = std::fs::read(p.path(file)).unwrap();
        p.write(file, "mine");
        let begin = Instant::now();
        p.refused(&with(&[]), &[&format!("{file}: exists; give --force")]);
        assert!(begin.elapsed() < Duration::from_secs(5), "{file}: refused only after the work");
        assert_eq!(p.text(file), "mine");
        p.ok(&with(&["--force"]));
        assert_eq!(std::fs::read(p.path(file)).unwrap(), made, "{file}");
    }
    p.ok(&["show", "h100-8", "--svg", "s.svg"]);
    p.refused(&["show", "h100-8", "--svg", "s.svg"], &["s.svg: exists"]);
    p.ok(&["show", "h100-8", "--svg", "s.svg", "--force"]);
    for folder in [&["trace", "stats", "t.arrow"][..], &["trace", "export", "t.arrow", "--format", "wafer-json"]] {
        let with = |more: &[&'static str]| [folder, &["--out", "folder"], more].concat();
        p.ok(&with(&[]));
        p.write("folder/notes.md", "mine");
        p.refused(&with(&[]), &["folder: holds results already", "--force"]);
        p.ok(&with(&["--force"]));
        assert_eq!(p.text("folder/notes.md"), "mine");
        std::fs::remove_dir_all(p.path("folder")).unwrap();
    }
    // Devices are no files to replace.
    p.refused(&["trace", "slice", "t.arrow", "--first", "1", "--out", "/dev/null", "--force"], &["is no plain file"]);
}

#[test]
fn paths_of_set_are_the_shells_and_those_of_files_the_files() {
    let p = Place::new();
    for dir in ["exp", "hw", "shell"] {
        std::fs::create_dir(p.path(dir)).unwrap();
    }
    let log = |n: usize| "arrived_at_s,prompt_tokens,output_tokens\n".to_string() + &"0,10,2\n".repeat(n);
    p.write("exp/log.csv", log(2));
    p.write("shell/log.csv", log(3));
    p.write("hw/h.toml", p.ok(&["show", "h100-8"]).replace("profile = \"h100-sxm\"", "profile = \"mine.toml\""));
    p.write("hw/mine.toml", p.ok(&["show", "h100-sxm"]));
    let text = include_str!("../../sim/presets/quickstart.toml");
    let from = text.find("[workload.arrivals]").unwrap();
    let to = text.find("[workload.routing]").unwrap();
    let arrivals = "[workload.arrivals]\nkind = \"csv\"\npath = \"log.csv\"\n\n";
    let text = [&text[..from], arrivals, &text[to..]].concat().replace("\"h100-8\"", "\"../hw/h.toml\"");
    p.write("exp/e.toml", text);
    let finished = |set: &[&str]| {
        let mut c = p.command(&["run", "../exp/e.toml", "--quiet", "--format", "json"]);
        c.current_dir(p.path("shell"));
        for s in set {
            c.args(["--set", s]);
        }
        let out = c.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let summary: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        summary["requests"]["finished"].as_u64().unwrap()
    };
    assert_eq!(finished(&[]), 2);
    assert_eq!(finished(&["workload.arrivals.path=log.csv"]), 3);
    assert_eq!(finished(&["workload.arrivals={ kind = \"csv\", path = \"log.csv\" }", "hardware=../hw/h.toml"]), 3);
    // What was written runs again from anywhere.
    p.run("exp/e.toml", "out", &[]);
    p.run("out/experiment.toml", "again", &[]);
    assert_eq!(p.text("out/requests.csv"), p.text("again/requests.csv"));
}

#[test]
fn nothing_served_is_a_failure_with_its_reason() {
    let p = Place::new();
    let long = ["--set", "workload.arrivals.prompt_tokens={ mean = 16000000 }", "--set", "model.context=20000000"];
    let args = run("run", &long);
    let out = p.command(&args).output().unwrap();
    let (said, error) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert_eq!(out.status.code(), Some(1), "{error}");
    assert!(
        error.contains("no request could be served: 24 rejected, the first (number 0) of 16000000 prompt"),
        "{error}"
    );
    assert!(error.contains(" bytes are missing; use ") && error.matches('\n').count() == 1, "{error}");
    assert!(said.contains("24 rejected") && said.contains("written to    run"), "{said}");
    let summary: serde_json::Value = serde_json::from_str(&p.text("run/summary.json")).unwrap();
    let r = &summary["requests"]["rejections"][0];
    let figure = |key: &str| r[key].as_u64().unwrap();
    assert_eq!((r["reason"].as_str(), figure("count"), r["unit"].as_str()), (Some("kv-cache"), 24, Some("bytes")));
    assert!(figure("missing") > 0 && figure("missing") == figure("needed") - figure("limit"));
}
