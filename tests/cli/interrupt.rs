//! Is a folder with the final name complete, whatever ends the process: Ctrl-C, a kill, a full disk?

use crate::common::{Csv, NO_CACHE, Place};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LONG: [&str; 8] = [
    "run",
    "quickstart",
    "--quiet",
    "--out",
    "run",
    "--set",
    "workload.arrivals.requests=10000000",
    "--set=output.plots=false",
];

fn start(p: &Place, args: &[&str]) -> Child {
    let mut c = Command::new(assert_cmd::cargo::cargo_bin("moesim"));
    c.current_dir(p.path(""))
        .args(args)
        .env(NO_CACHE.0, NO_CACHE.1)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// Waits until something is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Status and standard error of a process that ends soon.
fn end(mut child: Child) -> (Option<i32>, String) {
    let begin = Instant::now();
    until("the process ends", || child.try_wait().unwrap().is_some());
    assert!(begin.elapsed() < Duration::from_secs(10), "took {:?} to end", begin.elapsed());
    let out = child.wait_with_output().unwrap();
    (out.status.code(), String::from_utf8(out.stderr).unwrap())
}

/// Rows have been written to the folder in the making.
fn busy(p: &Place) -> bool {
    let size = |name: &String| std::fs::metadata(p.path(name).join("iterations.csv")).map_or(0, |m| m.len());
    p.names().iter().any(|n| n.ends_with(".partial") && size(n) > 0)
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let p = Place::new();
    for name in ["-INT", "-INT"] {
        let child = start(&p, &LONG);
        until("the run is busy", || busy(&p));
        signal(&child, name);
        let (code, text) = end(child);
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.starts_with("error: ") && text.contains("interrupted") && text.matches('\n').count() == 1,
            "{text}"
        );
        assert_eq!(p.names(), [""; 0], "something is left");
    }
}

/// Fitting takes seconds, and stops at once.
#[test]
fn a_fit_that_is_interrupted_stops_at_once() {
    let p = Place::new();
    let counts: Vec<String> = (0..58 * 256).map(|i| (1000 + i * 7919 % 997).to_string()).collect();
    let rows: Vec<String> = counts.chunks(256).map(|c| c.join(",")).collect();
    p.write("c.csv", rows.join("\n"));
    let args = ["trace", "synth", "--counts", "c.csv", "--top-k", "8", "--out", "t.arrow"];
    let child = start(&p, &args);
    until("the fit has begun", || p.names().len() > 1);
    std::thread::sleep(Duration::from_millis(300));
    let begun = std::time::Instant::now();
    signal(&child, "-INT");
    let (code, text) = end(child);
    assert!(code == Some(1) && text.contains("interrupted"), "{text}");
    assert!(begun.elapsed() < Duration::from_millis(1000), "{:?}", begun.elapsed());
    assert_eq!(p.names(), ["c.csv"]);
}

/// A run stops after the iteration that it is in, also where each takes long.
#[test]
fn a_slow_run_stops_soon() {
    let p = Place::new();
    let slow = [
        "--set=workload.arrivals.concurrency=2000",
        "--set=workload.arrivals.prompt_tokens.mean=8192",
        "--set=hardware=wafer-5x5",
        "--set=fidelity.execution=op",
    ];
    let child = start(&p, &[&LONG[..], &slow].concat());
    until("the run has begun", || p.names().iter().any(|n| n.ends_with(".partial")));
    std::thread::sleep(Duration::from_millis(1500));
    signal(&child, "-INT");
    let (code, text) = end(child);
    assert_eq!((code, p.names().len()), (Some(1), 0), "{text}");
}

#[test]
fn a_killed_run_leaves_no_folder_with_the_final_name() {
    let p = Place::new();
    let child = start(&p, &LONG);
    until("the run is busy", || busy(&p));
    signal(&child, "-KILL");
    assert_eq!(end(child).0, None);
    let names = p.names();
    assert!(names.len() == 2 && names[0].starts_with(".run.") && names[0].ends_with(".partial"), "{names:?}");
    assert_eq!(names[1], ".run.lock");
    // At any moment of a short run.
    let short = ["run", "quickstart", "--quiet", "--out", "short", "--set=workload.arrivals.requests=40"];
    for wait in 0..12 {
        let _ = std::fs::remove_dir_all(p.path("short"));
        let child = start(&p, &short);
        std::thread::sleep(Duration::from_millis(60 * wait));
        signal(&child, "-KILL");
        end(child);
        if p.path("short").exists() {
            let read = |name: &str| std::fs::read_to_string(p.path("short").join(name)).unwrap();
            let summary: serde_json::Value = serde_json::from_str(&read("summary.json")).unwrap();
            assert_eq!(summary["requests"]["finished"], 40);
            assert_eq!(Csv::new(&read("requests.csv")).rows.len(), 40);
            assert!(p.path("short/timing.json").exists() && p.path("short/plots").is_dir());
        }
    }
}

#[test]
fn an_interrupted_sweep_goes_on() {
    let p = Place::new();
    let sweep = "name = \"s\"\nbase = \"quickstart\"\n[set]\n\"workload.arrivals.output_tokens.mean\" = 64\n\
        [[axis]]\nkey = \"hardware\"\nvalues = [\"h100-8\", \"rtx4090-offload\", \"a100-8\"]\n\
        [[axis]]\nkey = \"workload.arrivals.requests\"\nvalues = [30, 60]\n";
    p.write("s.toml", sweep);
    let points = |out: &str| {
        std::fs::read_dir(p.path(out).join("points"))
            .map_or(0, |d| d.filter(|e| !e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).count())
    };
    let child = start(&p, &["sweep", "s.toml", "--quiet", "--jobs", "1", "--out", "cut"]);
    until("a point is done", || points("cut") >= 1);
    signal(&child, "-INT");
    let (code, text) = end(child);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("interrupted after") && text.contains("--resume --out cut"), "{text}");
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    let kept = points("cut");
    assert!((1..6).contains(&kept) && !p.path("cut/sweep.csv").exists(), "{kept} points");
    let timing = |n: usize| std::fs::read(p.path(&format!("cut/points/{n:04}/timing.json"))).unwrap();
    let before = timing(0);
    let again = p.command(&["sweep", "s.toml", "--quiet", "--out", "cut"]).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "without --resume");
    p.ok(&["sweep", "s.toml", "--quiet", "--resume", "--out", "cut"]);
    assert_eq!(timing(0), before, "a finished point was run again");
    p.ok(&["sweep", "s.toml", "--quiet", "--out", "whole"]);
    let (cut, whole) = (crate::common::files(&p.path("cut")), crate::common::files(&p.path("whole")));
    assert!(cut.keys().eq(whole.keys()), "{:?} {:?}", cut.keys(), whole.keys());
    cut.iter().for_each(|(name, bytes)| assert!(bytes == &whole[name], "{name} differs"));
    // A point that does not fit is a row.
    assert!(String::from_utf8_lossy(&whole["sweep.csv"]).contains("rtx4090-offload,30,ok"));
}

/// Two shards into one folder and a collecting call give the table of a sweep in one piece.
#[test]
fn shards_add_up() {
    let p = Place::new();
    p.write(
        "s.toml",
        "name = \"s\"\nbase = \"quickstart\"\nmetrics = [\"tpot_ms.p50\"]\nset = { \"workload.arrivals.requests\" = 8, \
         \"output.plots\" = false }\n[[axis]]\nkey = \"workload.arrivals.concurrency\"\nvalues = [1, 2, 4]\n",
    );
    p.ok(&["sweep", "s.toml", "--out", "whole"]);
    p.ok(&["sweep", "s.toml", "--out", "parts", "--shard", "2/2"]);
    assert!(!p.path("parts/sweep.csv").exists());
    p.ok(&["sweep", "s.toml", "--out", "parts", "--shard", "1/2"]);
    p.ok(&["sweep", "s.toml", "--out", "parts", "--resume"]);
    let table = |dir: &str| std::fs::read(p.path(dir).join("sweep.csv")).unwrap();
    assert_eq!(table("whole"), table("parts"));
    p.command(&["sweep", "s.toml", "--out", "x", "--shard", "3/2"]).assert().code(2);
}

/// A limit on the size of files stands in for a full disk: writing fails in the middle.
#[test]
fn a_full_disk_is_a_failure() {
    let p = Place::new();
    let moesim = assert_cmd::cargo::cargo_bin("moesim");
    for (blocks, args) in [(8, "run quickstart"), (0, "run quickstart"), (8, "sweep machines")] {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {} {args} --quiet --out run", moesim.display());
        let mut limited = Command::new("sh");
        limited.args(["-c", &script]).current_dir(p.path("")).env(NO_CACHE.0, NO_CACHE.1);
        let out = limited.output().unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{text}");
        // Machines stand on unlike bases of costs, which is said before.
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with("note: costs of points")).collect();
        assert!(lines[0].starts_with("error: ") && lines[0].contains("cannot be written"), "{text}");
        assert!(lines[0].contains("free space") && lines.len() == 1, "{text}");
        // What was found is printed all the same.
        let said = String::from_utf8(out.stdout).unwrap();
        if args.starts_with("run") {
            assert_eq!(p.names(), [""; 0], "something is left");
            assert!(said.contains("output tokens/s") && !said.contains("written to"), "{said}");
        } else {
            assert!(said.contains("tpot p50 (ms)") && said.lines().count() == 13, "{said}");
        }
    }
}
