//! The binary, a folder of its own, and its files.

use assert_cmd::Command;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Real data, which is not part of the repository; prints that the caller is skipped where it is absent.
pub fn data(name: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")).join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// The user's own cache of routing is none of the tests' business.
pub const NO_CACHE: (&str, &str) = ("MOESIM_CACHE", "");

/// A folder in which the binary runs.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
    /// Names of what is in the folder, hidden ones included.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::cargo_bin("moesim").unwrap();
        c.current_dir(self.dir.path()).args(args).timeout(Duration::from_secs(120)).env(NO_CACHE.0, NO_CACHE.1);
        c
    }
    /// Runs and requires success; standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.command(args).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?}: {err}");
        String::from_utf8(out.stdout).unwrap()
    }
    /// `moesim run EXPERIMENT --out OUT --force` with overrides, without plots; the folder.
    pub fn run(&self, experiment: &str, out: &str, set: &[&str]) -> Run {
        let mut args = vec!["run", experiment, "--quiet", "--force", "--out", out, "--set", "output.plots=false"];
        set.iter().for_each(|s| args.extend(["--set", s]));
        self.ok(&args);
        Run { dir: self.path(out) }
    }
}

/// A run directory.
pub struct Run {
    pub dir: PathBuf,
}

impl Run {
    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }
    pub fn summary(&self) -> Value {
        serde_json::from_str(&self.text("summary.json")).unwrap()
    }
    pub fn table(&self, name: &str) -> Csv {
        Csv::new(&self.text(name))
    }
    /// Every file by its name in the folder, but what differs from host to host.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.dir)
    }
}

/// Every file below a folder, but `timing.json`.
pub fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.file_name().unwrap() != "timing.json" {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    found
}

/// A CSV table.
pub struct Csv {
    header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Csv {
    pub fn new(text: &str) -> Self {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().unwrap().iter().map(str::to_string).collect();
        let rows = reader.records().map(|r| r.unwrap().iter().map(str::to_string).collect()).collect();
        Self { header, rows }
    }
    /// A column as numbers.
    pub fn column<T: std::str::FromStr>(&self, name: &str) -> Vec<T> {
        let at = self.header.iter().position(|h| h == name).unwrap_or_else(|| panic!("no column {name}"));
        let read = |r: &Vec<String>| r[at].parse().unwrap_or_else(|_| panic!("{name}: {}", r[at]));
        self.rows.iter().map(read).collect()
    }
}

/// A dotted key of a summary.
pub fn at<'a>(v: &'a Value, key: &str) -> &'a Value {
    key.split('.').fold(v, |v, part| v.get(part).unwrap_or_else(|| panic!("no {key}")))
}

/// A dotted key as a number.
pub fn number(v: &Value, key: &str) -> f64 {
    at(v, key).as_f64().unwrap_or_else(|| panic!("{key} is not a number: {}", at(v, key)))
}

/// A small workload on the quickstart.
pub const SMALL: [&str; 4] = [
    "workload.arrivals.requests=24",
    "workload.arrivals.concurrency=8",
    "workload.arrivals.prompt_tokens={ mean = 64, spread = 0.5 }",
    "workload.arrivals.output_tokens={ mean = 16, spread = 0.5 }",
];
