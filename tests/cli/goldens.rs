//! Is every byte that a run writes as it was? Ten small runs, over all kinds of machine and policy, are compared with the hashes
//! that stand in `tests/goldens/hashes.toml`.
//!
//! * `cargo test -p moesim --test cli -- goldens` compares.
//! * `MOESIM_BLESS=1 cargo test -p moesim --test cli -- goldens` writes the hashes anew; CONTRIBUTING.md says when.
//! * `MOESIM_GOLDENS=DIR` with either also writes what was hashed to `DIR/NAME`, so that `diff -r` shows how two commits differ.
//!
//! A run is hashed without what differs from host to host (`timing.json`, and `manifest.json`, which has hashes of its own), and
//! with versions and folders taken out of its files.

use crate::common::{Place, files};
use moesim_core::output::content_hash;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The runs: experiments in `tests/goldens`, each with a line that says what it has.
const RUNS: [&str; 10] =
    ["dense", "following", "memory", "moving", "nodes", "nvlink", "offload", "oracle", "planes", "wafer"];

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens");

/// A run directory: the bytes of its files by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Hashes by run and by file.
type Hashes = BTreeMap<String, BTreeMap<String, String>>;

/// A folder with the experiments and all that they name.
fn place() -> Place {
    let p = Place::new();
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, p.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    p.ok(&["trace", "import", "trace.jsonl", "--out", "trace.arrow"]);
    p
}

/// What a run writes at this fidelity of execution, as it is hashed.
fn run(p: &Place, name: &str, execution: &str) -> Files {
    let (experiment, out) = (format!("{name}.toml"), format!("{name}-{execution}"));
    let set = format!("fidelity.execution={execution}");
    let mut args = vec!["run", &experiment, "--quiet", "--out", &out, "--set", &set];
    args.extend((name == "nvlink").then_some("--timeline"));
    // Routing is drawn once for both fidelities.
    let done = p.command(&args).env("MOESIM_CACHE", p.path("cache")).output().unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    let mut found = files(&p.path(&out));
    found.remove("manifest.json");
    for (file, bytes) in &mut found {
        if let Ok(text) = std::str::from_utf8(bytes) {
            *bytes = plain(file, text, &p.path("").display().to_string()).into_bytes();
        }
    }
    found
}

/// A file without versions, the folder in which it ran, and the fidelity of execution, on which nothing else may depend.
fn plain(file: &str, text: &str, folder: &str) -> String {
    let text = text.replace(folder, "");
    match file {
        "experiment.toml" => text
            .replacen(concat!("# moesim ", env!("CARGO_PKG_VERSION"), "."), "# moesim.", 1)
            .replace("execution = \"op\"", "execution = \"phase\""),
        "summary.json" => {
            let begin = text.find("\"versions\": {").unwrap();
            let end = begin + text[begin..].find('}').unwrap();
            let text = [&text[..begin], "\"versions\": {", &text[end..]].concat();
            text.replace("\"execution\": \"op\"", "\"execution\": \"phase\"")
        }
        _ => text,
    }
}

fn hashed(files: &Files) -> BTreeMap<String, String> {
    files.iter().map(|(name, bytes)| (name.clone(), content_hash(bytes))).collect()
}

/// Runs and files that differ, a line a run; empty where none does.
fn differences(before: &Hashes, after: &Hashes) -> String {
    let mut text = String::new();
    let none = BTreeMap::new();
    let runs: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for run in runs {
        let (a, b) = (before.get(run).unwrap_or(&none), after.get(run).unwrap_or(&none));
        let changed = a.iter().filter_map(|(file, hash)| match b.get(file) {
            Some(other) if other == hash => None,
            Some(_) => Some(file.clone()),
            None => Some(format!("{file} (gone)")),
        });
        let new = b.keys().filter(|file| !a.contains_key(*file)).map(|file| format!("{file} (new)"));
        let list: Vec<String> = changed.chain(new).collect();
        if !list.is_empty() {
            let _ = writeln!(text, "  {run}: {}", list.join(", "));
        }
    }
    text
}

/// `hashes.toml`: a table a run, a line a file.
fn written(hashes: &Hashes) -> String {
    let mut text = "# Hashes of all files that the goldens write. See tests/cli/goldens.rs for how to compare, and \
                    CONTRIBUTING.md for when to bless.\n"
        .to_string();
    for (run, files) in hashes {
        let _ = writeln!(text, "\n[{run}]");
        for (file, hash) in files {
            let _ = writeln!(text, "\"{file}\" = \"{hash}\"");
        }
    }
    text
}

/// Writes what was hashed, for `diff -r`. Relative folders start at the repository.
fn keep(dir: &str, run: &str, files: &Files) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(dir).join(run);
    assert!(!dir.exists(), "MOESIM_GOLDENS: {} is there already: name another folder", dir.display());
    for (file, bytes) in files {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn every_byte_is_as_it_was_blessed() {
    let p = place();
    let one = |name: &str| {
        let (phase, op) = (run(&p, name, "phase"), run(&p, name, "op"));
        if let Ok(dir) = std::env::var("MOESIM_GOLDENS") {
            keep(&dir, name, &phase);
        }
        (hashed(&phase), hashed(&op))
    };
    let (mut phases, mut ops) = (Hashes::new(), Hashes::new());
    std::thread::scope(|s| {
        let runs = RUNS.map(|name| (name, s.spawn(move || one(name))));
        for (name, run) in runs {
            let (phase, op) = run.join().unwrap_or_else(|e| std::panic::resume_unwind(e));
            phases.insert(name.into(), phase);
            ops.insert(name.into(), op);
        }
    });
    let differ = differences(&phases, &ops);
    assert!(differ.is_empty(), "these files depend on fidelity.execution:\n{differ}");
    let path = Path::new(FOLDER).join("hashes.toml");
    if std::env::var_os("MOESIM_BLESS").is_some() {
        std::fs::write(path, written(&phases)).unwrap();
        return;
    }
    let blessed: Hashes = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let differ = differences(&blessed, &phases);
    assert!(
        differ.is_empty(),
        "these files of the goldens are not as tests/goldens/hashes.toml has them:\n{differ}\
         To see how they differ, write the runs of this and of the earlier commit to two folders (MOESIM_GOLDENS=DIR cargo test -p \
         moesim --test cli -- goldens) and compare these with diff -r. If the difference is meant, bless it (MOESIM_BLESS=1 cargo \
         test -p moesim --test cli -- goldens) in a commit of its own that explains it."
    );
}

/// The comparison finds what it is for.
#[test]
fn a_changed_file_is_named() {
    let files = |list: &[(&str, &str)]| list.iter().map(|(f, h)| (f.to_string(), h.to_string())).collect();
    let before =
        Hashes::from([("a".into(), files(&[("x", "1"), ("y", "2"), ("z", "3")])), ("b".into(), files(&[("x", "1")]))]);
    let after =
        Hashes::from([("a".into(), files(&[("w", "0"), ("x", "1"), ("y", "9")])), ("b".into(), files(&[("x", "1")]))]);
    assert_eq!(differences(&before, &before), "");
    assert_eq!(differences(&before, &after), "  a: y, z (gone), w (new)\n");
    assert_eq!(toml::from_str::<Hashes>(&written(&before)).unwrap(), before);
    let summary =
        "{\n  \"name\": \"/folder/x\",\n  \"versions\": {\n    \"moesim\": \"9.9.9\"\n  },\n  \"execution\": \"op\"\n}";
    let plain = plain("summary.json", summary, "/folder/");
    assert_eq!(plain, "{\n  \"name\": \"x\",\n  \"versions\": {},\n  \"execution\": \"phase\"\n}");
}
