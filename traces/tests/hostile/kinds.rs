//! Folders, pipes, links without an end and links to nothing, where files should be. None may keep its reader waiting.
#![cfg(unix)]

use super::lengths::count;
use super::{Bad, import, open, with};
use moesim_core::Result;
use moesim_traces::import::load;
use moesim_traces::{Model, counts, model};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// A pipe into which nobody writes.
fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

type Read = Box<dyn Fn(&Path) -> Result<()>>;

/// Every reader, and a name that it takes for its own.
fn readers() -> Vec<(&'static str, Read)> {
    fn read(f: impl Fn(&Path) -> Result<()> + 'static) -> Read {
        Box::new(f)
    }
    vec![
        ("a.arrow", read(open)),
        ("a.npz", read(import("npz"))),
        ("a.npy", read(import("npz"))),
        ("a.json", read(import("wafer-json"))),
        ("a.jsonl", read(import("json-lines"))),
        ("a.csv", read(import("csv"))),
        ("a.pt", read(import("sglang"))),
        ("b.json", read(import("vllm"))),
        ("b.bin", read(|p| load(p, None, &with(4)).map(|_| ()))),
        ("b.arrow", read(count("trace"))),
        ("b.gguf", read(count("imatrix"))),
        ("b.pt", read(count("sglang"))),
        ("c.pt", read(count("eplb"))),
        ("c.npy", read(count("eplb"))),
        ("c.npz", read(count("eplb"))),
        ("d.json", read(count("eplb"))),
        ("d.csv", read(count("eplb"))),
        ("d.json.gz", read(count("coactivation"))),
        ("d.bin", read(|p| counts::read(p, None).map(|_| ()))),
        ("d.toml", read(|p| Model::load(p.to_str().unwrap_or_default()).map(|_| ()))),
        ("config.json", read(|p| model::import_config(p, None).map(|_| ()))),
    ]
}

#[test]
fn what_is_no_file() {
    let mut bad = Bad::new();
    for kind in ["pipe", "loop", "nothing", "folder", "device"] {
        for (name, read) in readers() {
            let name = format!("{kind}.{name}");
            let path = bad.path(&name);
            let word = match kind {
                "pipe" => {
                    pipe(&path);
                    "is a pipe or a device"
                }
                "loop" => {
                    symlink(&path, &path).unwrap();
                    "cannot be read"
                }
                "nothing" => {
                    symlink("absent", &path).unwrap();
                    "no such file"
                }
                "device" => {
                    symlink("/dev/zero", &path).unwrap();
                    "is a pipe or a device"
                }
                _ => {
                    fs::create_dir(&path).unwrap();
                    ""
                }
            };
            bad.refused(&name, word, |p| read(p));
        }
    }
    assert!(bad.cases >= 100, "{}", bad.cases);
}

#[test]
fn what_is_no_file_in_a_folder() {
    let mut bad = Bad::new();
    let make = |bad: &Bad, folder: &str, name: &str| {
        fs::create_dir_all(bad.path(folder)).unwrap();
        pipe(&bad.path(folder).join(name));
    };
    // What only looks like the one file is not it.
    for (folder, name, format) in [("npz", "a.npz", "npz"), ("pt", "a.pt", "sglang"), ("json", "a.json", "wafer-json")]
    {
        make(&bad, folder, name);
        bad.refused(folder, "", import(format));
    }
    make(&bad, "index", "index.json");
    fs::write(bad.path("index/a.npy"), super::npy("|u1", "False", "(1, 1, 1)", &[0])).unwrap();
    bad.refused("index", "index.json: is a pipe", import("npz"));
    make(&bad, "meta", "meta_info.json");
    bad.refused("meta", "meta_info.json: is a pipe", import("tensorrt-llm"));
    make(&bad, "rank", "rank0_raw.safetensors");
    fs::write(bad.path("rank/meta_info.json"), r#"{"num_experts": 4, "num_experts_per_token": 1}"#).unwrap();
    bad.refused("rank", "rank0_raw.safetensors: is a pipe", import("tensorrt-llm"));
    make(&bad, "counts", "rank0.safetensors");
    fs::write(bad.path("counts/meta_info.json"), r#"{"num_experts": 4, "num_experts_per_token": 1}"#).unwrap();
    bad.refused("counts", "rank0.safetensors: is a pipe", count("tensorrt-llm"));
    // A folder that links to itself is not walked for ever.
    fs::create_dir(bad.path("round")).unwrap();
    symlink(bad.path("round"), bad.path("round/again")).unwrap();
    bad.refused("round", "has no .json file", import("wafer-json"));
    let mut deep = bad.path("deep");
    for _ in 0..40 {
        deep = deep.join("d");
    }
    fs::create_dir_all(&deep).unwrap();
    bad.refused("deep", "nested too deep", import("wafer-json"));
}
