//! Does a sweep show all that it found, whatever became of some of its points?

use crate::common::{Csv, Place};

const SMALL: &str = "base = \"quickstart\"\nset = { \"workload.arrivals.requests\" = 4 }\n";

fn sweep(p: &Place, name: &str, text: &str) {
    p.write(&format!("{name}.toml"), format!("name = \"{name}\"\n{SMALL}{text}"));
}

fn output(p: &Place, args: &[&str]) -> (Option<i32>, String, String) {
    let out = p.command(args).output().unwrap();
    (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn a_refused_point_is_a_row() {
    let p = Place::new();
    sweep(&p, "tp", "metrics = [\"tpot_ms.p50\"]\n[[axis]]\nkey = \"deployment.attention_tp\"\nvalues = [1, 2, 3]\n");
    let (code, said, error) = output(&p, &["sweep", "tp.toml", "--out", "out", "--quiet"]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    let heads: Vec<&str> = lines[0].split("  ").map(str::trim).filter(|h| !h.is_empty()).collect();
    assert_eq!(heads, ["attention_tp", "status", "bottleneck", "basis", "tpot p50 (ms)"], "{said}");
    assert!(lines[3].starts_with("3             refused"), "{said}");
    assert!(lines[5].starts_with("refused: [3]: deployment.attention_tp: "), "{said}");
    let table = Csv::new(&p.text("out/sweep.csv"));
    let rows: Vec<&str> = table.rows.iter().map(|r| r[1].as_str()).collect();
    assert_eq!(rows, ["ok", "ok", "refused"]);
    assert!(table.rows[2][5].contains("attention_tp"), "{:?}", table.rows[2]);
    assert_eq!(std::fs::read_dir(p.path("out/points")).unwrap().count(), 2);
    let json: serde_json::Value =
        serde_json::from_str(&p.ok(&["sweep", "tp.toml", "--format", "json", "--quiet"])).unwrap();
    assert!(json[0]["reason"].is_null() && json[2]["reason"].as_str().unwrap().contains("attention_tp"));
    // Every point refused: nothing runs, and the reason is the error.
    sweep(&p, "none", "[[axis]]\nkey = \"deployment.attention_tp\"\nvalues = [3, 5]\n");
    p.refused(&["sweep", "none.toml", "--out", "none"], &["[3]: deployment.attention_tp"]);
}

#[test]
fn what_cannot_be_plotted_is_a_note() {
    let p = Place::new();
    let axes = "[[axis]]\nkey = \"hardware\"\nvalues = [\"h100-8\", \"a100-8\"]\n\
        [[axis]]\nkey = \"workload.arrivals.concurrency\"\nvalues = [1, 2]\n[[axis]]\nkey = \"seed\"\nvalues = [1, 2]\n";
    sweep(&p, "three", axes);
    let (code, said, error) = output(&p, &["sweep", "three.toml", "--out", "out", "--quiet"]);
    assert_eq!((code, said.lines().count()), (Some(0), 9), "{error}");
    assert!(error.contains("note: no plot: the sweep has 3 axes") && error.contains("--plot KEY[,KEY]"), "{error}");
    assert!(!p.path("out/sweep.svg").exists());
    let heads: Vec<&str> = said.lines().next().unwrap().split("  ").map(str::trim).filter(|h| !h.is_empty()).collect();
    assert!(
        ["tpot p50 (ms)", "ttft p50 (ms)", "imbalance mean", "output (tokens/s)"].iter().all(|h| heads.contains(h))
    );
    for (choice, texts) in [("seed", ["h100-8, 1", "a100-8, 2"]), ("hardware,seed", ["h100-8, 1", "a100-8, 2"])] {
        p.ok(&["sweep", "three.toml", "--out", "out", "--quiet", "--resume", "--plot", choice]);
        let svg = p.text("out/sweep.svg");
        assert!(texts.iter().all(|t| svg.contains(t)), "{choice}");
    }
    p.refused(&["sweep", "three.toml", "--out", "x", "--plot", "sed"], &["--plot", "did you mean \"seed\"?"]);
    // Two points of one label, and names longer than a heat map once had room for.
    let long = "wafer of five by five dies";
    sweep(
        &p,
        "alike",
        "[[axis]]\nname = \"x\"\npoints = [{ label = \"a\", set = {} }, { label = \"a\", set = { seed = 2 } }]\n",
    );
    let (code, said, error) = output(&p, &["sweep", "alike.toml", "--out", "alike", "--quiet"]);
    assert_eq!((code, said.lines().count()), (Some(0), 3), "{error}");
    assert!(error.starts_with("note: no plot: several points have x = a"), "{error}");
    let map = format!(
        "[[axis]]\nname = \"machine\"\npoints = [{{ label = \"{long}\", set = {{ hardware = \"wafer-5x5\" }} }}]\n\
         [[axis]]\nkey = \"policy.placement\"\nvalues = [\"contiguous\", \"round-robin\"]\n"
    );
    sweep(&p, "map", &map);
    p.ok(&["sweep", "map.toml", "--out", "map", "--quiet"]);
    assert!(p.text("map/sweep.svg").contains(&format!("\n{long}\n")), "{}", p.text("map/sweep.svg"));
}

#[test]
fn a_folder_is_of_one_sweep() {
    let p = Place::new();
    let axis = |values: &str| format!("metrics = [\"tpot_ms.p50\"]\n[[axis]]\nkey = \"seed\"\nvalues = {values}\n");
    sweep(&p, "a", &axis("[1, 2, 3]"));
    sweep(&p, "b", &axis("[1, 2]"));
    p.ok(&["sweep", "a.toml", "--out", "out", "--quiet"]);
    let names = |dir: &str| {
        let entries = std::fs::read_dir(p.path(dir)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    };
    assert!(!names("out/points/0000").contains(&"plots".to_string()), "plots that nobody asked for");
    p.refused(&["sweep", "a.toml", "--out", "out"], &["out: holds results already", "--resume", "--force"]);
    p.refused(&["sweep", "b.toml", "--out", "out", "--resume"], &["out: is not of this sweep", "sweep.toml"]);
    p.refused(&["sweep", "b.toml", "--out", "out", "--shard", "1/2"], &["out: is not of this sweep"]);
    // A point without its summary is done again; what a killed process left goes.
    let before = p.text("out/points/0001/timing.json");
    std::fs::remove_file(p.path("out/points/0002/summary.json")).unwrap();
    std::fs::create_dir(p.path("out/points/.0000.123.partial")).unwrap();
    p.ok(&["sweep", "a.toml", "--out", "out", "--quiet", "--resume"]);
    assert_eq!(names("out/points"), ["0000", "0001", "0002"]);
    assert!(p.path("out/points/0002/summary.json").is_file() && p.text("out/points/0001/timing.json") == before);
    // Another sweep in its place: the user's files stay.
    p.write("out/notes.md", "mine");
    p.write("out/points/0002/notes.md", "mine");
    let edited = p.text("out/sweep.csv") + "edited";
    p.write("out/sweep.csv", &edited);
    let (code, _, error) = output(&p, &["sweep", "b.toml", "--out", "out", "--quiet", "--force"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(error.contains("sweep.csv is yours or was changed, and stays; the new one is sweep.new.csv"), "{error}");
    assert_eq!((p.text("out/sweep.csv"), p.text("out/notes.md")), (edited, "mine".into()));
    assert_eq!(names("out/points/0002"), ["manifest.json", "notes.md"]);
    assert_eq!(p.text("out/sweep.new.csv").lines().count(), 3);
}

/// Changes of a bandwidth that move times by less than a bucket of the histogram show in a median.
#[test]
fn small_changes_show() {
    let p = Place::new();
    let axis = "metrics = [\"tpot_ms.p50\"]\n[[axis]]\nkey = \"hardware.device.memory.bandwidth\"\n\
        values = [\"3.350 TB/s\", \"3.355 TB/s\"]\n";
    sweep(&p, "near", axis);
    let json: serde_json::Value =
        serde_json::from_str(&p.ok(&["sweep", "near.toml", "--format", "json", "--quiet"])).unwrap();
    let p50 = |i: usize| json[i]["tpot_ms.p50"].as_str().unwrap().parse::<f64>().unwrap();
    // Which requests share an iteration may change with the times, so that either may be the larger.
    assert!(p50(0) != p50(1) && (p50(0) / p50(1) - 1.0).abs() < 0.004, "{json}");
}

/// A device with measured kernels beside one with rooflines: said in the table, the picture and on the screen, and put right by one option.
#[test]
fn unlike_bases_are_said() {
    let p = Place::new();
    sweep(
        &p,
        "two",
        "metrics = [\"tpot_ms.p50\"]\n[[axis]]\nkey = \"hardware\"\nvalues = [\"h100-8\", \"mi300x-8\"]\n",
    );
    let (code, _, error) = output(&p, &["sweep", "two.toml", "--out", "out", "--quiet"]);
    assert!(code == Some(0) && error.contains("unlike bases (column basis): --costs roofline"), "{error}");
    let basis = |table: &str| Csv::new(&p.text(table)).rows.iter().map(|r| r[3].clone()).collect::<Vec<_>>();
    let found = basis("out/sweep.csv");
    assert!(found[0].contains("measured") && !found[1].contains("measured"), "{found:?}");
    assert!(p.text("out/sweep.svg").contains("unlike bases"));
    let (code, _, error) = output(&p, &["sweep", "two.toml", "--out", "one", "--quiet", "--costs", "roofline"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(basis("one/sweep.csv").iter().all(|b| b.contains("roofline") && !b.contains("measured")));
    // A point that was run on another basis is not taken over.
    let (code, ..) = output(&p, &["sweep", "two.toml", "--out", "one", "--quiet", "--resume"]);
    assert_eq!(code, Some(2));
}
