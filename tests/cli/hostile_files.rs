//! Is every file that should not be one refused, without waiting for it, and every lie about lengths in little memory?
#![cfg(unix)]

use crate::common::Place;
use std::os::unix::fs::symlink;
use std::process::Command;

/// What reads a file, by a name that it takes for its own; `FILE` stands for it.
const COMMANDS: &[(&str, &[&str])] = &[
    ("a.arrow", &["trace", "info", "FILE"]),
    ("a.arrow", &["trace", "stats", "FILE"]),
    ("a.arrow", &["trace", "export", "FILE", "--format", "csv", "--out", "o"]),
    ("a.npz", &["trace", "import", "FILE", "--experts", "8", "--out", "o"]),
    ("a.pt", &["trace", "import", "FILE", "--experts", "8", "--out", "o"]),
    ("a.json", &["trace", "import", "FILE", "--experts", "8", "--out", "o"]),
    ("a.bin", &["trace", "import", "FILE", "--experts", "8", "--out", "o"]),
    ("a.bin", &["trace", "import", "FILE", "--format", "tensorrt-llm", "--out", "o"]),
    ("a.gguf", &["trace", "counts", "FILE"]),
    ("a.json", &["trace", "counts", "FILE", "--source-format", "eplb"]),
    ("config.json", &["model", "import", "FILE", "--out", "o"]),
    ("a.toml", &["run", "FILE", "--out", "o"]),
    ("a.toml", &["run", "quickstart", "--set", "model=FILE", "--out", "o"]),
    ("a.toml", &["run", "quickstart", "--set", "hardware=FILE", "--out", "o"]),
    (
        "a.arrow",
        &["run", "quickstart", "--set", "workload.routing={ kind = \"trace\", path = \"FILE\" }", "--out", "o"],
    ),
    ("a.toml", &["sweep", "FILE", "--out", "o"]),
    ("a.csv", &["validate", "--points", "FILE"]),
    ("a", &["plot", "FILE"]),
];

#[test]
fn what_is_no_file() {
    let p = Place::new();
    for kind in ["pipe", "loop", "nothing", "folder"] {
        for (name, args) in COMMANDS {
            let name = format!("{kind}.{name}");
            let path = p.path(&name);
            if path.symlink_metadata().is_err() {
                match kind {
                    "pipe" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
                    "loop" => symlink(&path, &path).unwrap(),
                    "nothing" => symlink("absent", &path).unwrap(),
                    _ => std::fs::create_dir(&path).unwrap(),
                }
            }
            let args: Vec<String> = args.iter().map(|a| a.replace("FILE", &name)).collect();
            p.refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), &[&name]);
        }
    }
}

/// 1 GiB of address space, where files promise 10 GB and more.
#[test]
fn lengths_that_lie_take_no_memory() {
    let p = Place::new();
    let ten = 10_000_000_000u64.to_le_bytes();
    let npy = |shape: &str| {
        let header = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &[1; 64]].concat()
    };
    let response = |body: &str| format!("{{\"choices\": [{{\"routed_experts\": {body}}}]}}");
    p.write("ids.npy", npy("(10000000000, 1, 1)"));
    p.write("loads.npy", npy("(10000000000, 4, 4)"));
    p.write("key.gguf", [&b"GGUF\x03\0\0\0"[..], &[0; 8], &1u64.to_le_bytes(), &ten].concat());
    p.write("keys.gguf", [&b"GGUF\x03\0\0\0"[..], &ten, &ten].concat());
    p.write("meta_info.json", "{\"num_experts\": 4, \"num_experts_per_token\": 1}");
    p.write("rank0_raw.safetensors", [&ten[..], b"{}"].concat());
    p.write("rank0.safetensors", [&ten[..], b"{}"].concat());
    p.write("footer.arrow", [&b"ARROW1\0\0"[..], &[0; 64], &i32::MAX.to_le_bytes(), b"ARROW1"].concat());
    p.write("wide.json", response(&format!("[[[{}1]]]", "1,".repeat(1 << 20))));
    p.write("empty.json", response(&format!("[{}[]]", "[],".repeat(1 << 20))));
    p.write("deep.json", response(&"[".repeat(1 << 20)));
    let table = |body: &str| format!("{{\"n_expert_per_layer\": 4, \"layers\": {body}");
    p.write("table.json", table(&"[".repeat(1 << 20)));
    p.write("lists.json", format!("[{}[]]", "[],".repeat(1 << 20)));
    for args in [
        &["trace", "import", "ids.npy", "--experts", "8", "--out", "o"][..],
        &["trace", "import", ".", "--format", "tensorrt-llm", "--out", "o"],
        &["trace", "import", "wide.json", "--experts", "8", "--out", "o"],
        &["trace", "import", "empty.json", "--experts", "8", "--out", "o"],
        &["trace", "import", "deep.json", "--experts", "8", "--out", "o"],
        &["trace", "counts", ".", "--source-format", "tensorrt-llm"],
        &["trace", "counts", "loads.npy"],
        &["trace", "counts", "key.gguf"],
        &["trace", "counts", "keys.gguf"],
        &["trace", "counts", "table.json"],
        &["trace", "counts", "lists.json", "--source-format", "eplb"],
        &["trace", "info", "footer.arrow"],
    ] {
        let before = p.names();
        let binary = p.command(&[]).get_program().to_owned();
        let mut limited = Command::new("sh");
        limited.current_dir(p.path("")).args(["-c", "ulimit -v 1048576; exec \"$@\"", "sh"]).arg(binary).args(args);
        let out = limited.output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        print!("{text}");
        assert!(out.status.code() == Some(2) && text.starts_with("error: "), "{args:?}: {:?} {text}", out.status);
        assert!(text.matches('\n').count() == 1 && text.contains("; ") && out.stdout.is_empty(), "{args:?}: {text}");
        assert_eq!(p.names(), before);
    }
}
