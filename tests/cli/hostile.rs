//! Does every bad input give one line that names file, place and cure, status 2, quickly, and nothing left behind?

use crate::common::{Place, data};
use std::path::Path;
use std::time::{Duration, Instant};

const QUICKSTART: &str = include_str!("../../sim/presets/quickstart.toml");
const CSV: &str = "arrived_at_s,prompt_tokens,output_tokens\n";

impl Place {
    /// Requires that the binary refuses `args` in a line with all `words` and a cure.
    pub(crate) fn refused(&self, args: &[&str], words: &[&str]) {
        let before = self.names();
        let begin = Instant::now();
        let out = self.command(args).output().unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {text}");
        assert!(begin.elapsed() < Duration::from_secs(60), "{args:?} took {:?}", begin.elapsed());
        assert!(text.starts_with("error: ") && text.matches('\n').count() == 1, "{args:?}: not one line: {text}");
        assert!(text.len() < 1200, "{args:?}: too long: {text}");
        for word in words {
            assert!(text.contains(word), "{args:?}: no \"{word}\" in {text}");
        }
        assert!(text.contains("; "), "{args:?}: no cure in {text}");
        // To be read: cargo test -p moesim --test cli hostile -- --nocapture
        print!("{text}");
        assert!(out.stdout.is_empty(), "{args:?}: something on standard output");
        assert_eq!(self.names(), before, "{args:?}: left something behind");
    }
    /// An experiment file with these bytes.
    fn experiment(&self, name: &str, text: impl AsRef<[u8]>, words: &[&str]) {
        self.write(name, text);
        self.refused(&["run", name, "--out", "run"], &[&[name], words].concat());
    }
    /// The quickstart with these overrides.
    fn set(&self, assignments: &[&str], words: &[&str]) {
        let mut args = vec!["run", "quickstart", "--out", "run"];
        assignments.iter().for_each(|a| args.extend(["--set", a]));
        self.refused(&args, words);
    }
    fn sweep(&self, name: &str, text: &str, words: &[&str]) {
        self.write(name, format!("name = \"x\"\nbase = \"quickstart\"\n{text}"));
        self.refused(&["sweep", name, "--out", "sweep"], &[&[name], words].concat());
    }
}

#[test]
fn experiment_files() {
    let p = Place::new();
    let changed = |from: &str, to: &str| {
        assert!(QUICKSTART.contains(from));
        QUICKSTART.replace(from, to)
    };
    p.experiment(
        "key.toml",
        changed("[workload.routing]", "[workload.rooting]"),
        &["16:11", "did you mean `routing`?"],
    );
    p.experiment("kind.toml", changed("closed-loop", "closedloop"), &["10:8", "did you mean `closed-loop`?"]);
    p.experiment("type.toml", changed("concurrency = 32", "concurrency = \"many\""), &["\"many\"", "a whole number"]);
    let unit = format!("{QUICKSTART}\n[window]\nstart = \"3 GB\"\n");
    p.experiment("unit.toml", unit, &["23:9", "not a unit of a time", "200 ns"]);
    let window = format!("{QUICKSTART}\n[window]\nstart = \"3 s\"\nend = \"1 s\"\n");
    p.experiment("window.toml", window, &["window.end", "ends before it starts", "3 s"]);
    let short = "name = \"x\"\nmodel = \"gpt-oss-20b\"\nhardware = \"h100-8\"\n";
    p.experiment("section.toml", short, &["missing field `workload`", "add it"]);
    p.experiment("seed.toml", format!("seed = -1\n{QUICKSTART}"), &["1:8", "`-1`", "not negative"]);
    p.experiment("huge.toml", format!("seed = 99999999999999999999\n{QUICKSTART}"), &["1:8", "a whole number"]);
    let nan = QUICKSTART.replacen("spread = 0.5", "spread = nan", 1);
    p.experiment("nan.toml", nan, &["workload.arrivals.prompt_tokens.spread", "NaN", "from 0"]);
    p.experiment("lists.toml", format!("a = {}{}\n", "[".repeat(10_000), "]".repeat(10_000)), &["nested too deep"]);
    p.experiment("tables.toml", format!("a = {}1{}\n", "{b=".repeat(10_000), "}".repeat(10_000)), &["nested too deep"]);
    p.experiment("dots.toml", format!("{} = 1\n", vec!["a"; 10_000].join(".")), &["nested too deep"]);
    p.experiment("empty.toml", "", &["missing field"]);
    p.experiment("junk.toml", vec![b'x'; 20_000_000], &["16 MiB"]);
    p.experiment("binary.toml", (0..=255).cycle().take(9999).collect::<Vec<u8>>(), &["is not text"]);
    p.experiment("control.toml", "name = \"\u{1}\u{0}\"\n", &["1:9"]);
    p.experiment("model.toml", changed("gpt-oss-20b", "gpt-oss-20"), &["model", "did you mean \"gpt-oss-20b\"?"]);
    p.experiment("number.toml", changed("\"h100-8\"", "7"), &["hardware", "moesim list hardware"]);
    std::fs::create_dir(p.path("folder.toml")).unwrap();
    p.refused(&["run", "folder.toml"], &["folder.toml", "is a folder, not a file"]);
    p.write("inside.toml", changed("\"h100-8\"", "\"folder.toml\""));
    p.refused(&["run", "inside.toml"], &["folder.toml", "is a folder, not a file"]);
    p.refused(&["run", "absent.toml"], &["absent.toml", "no such file"]);
    p.refused(&["run", "quickstrat"], &["did you mean \"quickstart\"?"]);
}

#[test]
fn files_of_hardware_and_model() {
    let p = Place::new();
    let hardware = include_str!("../../hwmodels/presets/h100-8.toml");
    p.write("hw.toml", hardware.replace("3.35 TB/s", "3.35 TB"));
    p.set(&["hardware=hw.toml"], &["hw.toml", "device.memory.bandwidth", "TB/s"]);
    p.write("hw.toml", hardware.replace("latency", "latensy"));
    p.set(&["hardware=hw.toml"], &["hw.toml", "did you mean `latency`?"]);
    p.write("hw.toml", "");
    p.set(&["hardware=hw.toml"], &["hw.toml", "missing field"]);
    p.write("hw.toml", "[[[[");
    p.set(&["hardware=hw.toml"], &["hw.toml", "1:"]);
    p.write("m.toml", "base = \"mixtral-8x7b\"\n[decoder.moe]\ntop_k = 99\n");
    p.set(&["model=m.toml"], &["m.toml", "decoder.moe.top_k", "from 1 to 8"]);
    p.write("m.toml", "base = \"m.toml\"\n");
    p.set(&["model=m.toml"], &["m.toml"]);
}

#[test]
fn overrides() {
    let p = Place::new();
    p.set(&["seed"], &["\"seed\" is not an assignment", "--set key=value"]);
    p.set(&["=3"], &["is not a key"]);
    p.set(&["a..b=3"], &["\"a..b\" is not a key"]);
    p.set(&["seed="], &["seed", "a whole number"]);
    p.set(&["seed.x=1"], &["seed", "a whole number"]);
    p.set(&["name.x=1"], &["name", "set the key above it"]);
    p.set(&["workload.arrivals.concurency=3"], &["workload.arrivals", "did you mean `concurrency`?"]);
    p.set(&[&format!("a={}", "[".repeat(10_000))], &["unknown key `a`"]);
    p.set(&[&format!("{}=1", vec!["a"; 10_000].join("."))], &["nested too deep"]);
    p.set(&["hardware.device.memory.bandwidth=0 TB/s"], &["device.memory.bandwidth", "above zero"]);
    p.set(&["hardware.device.memory.bandwidth=-1 TB/s"], &["device.memory.bandwidth", "not negative"]);
    p.set(&["hardware.device.memory.bandwidth=1 B/s"], &["device.memory.bandwidth", "from 1e6"]);
    p.set(&["hardware.device.achievable.memory=1e-6"], &["device.achievable.memory", "0.001"]);
    p.set(&["workload.arrivals.think_time=5000 h"], &["workload", "106 days", "shorten"]);
    p.set(&["hardware.device.memory.bandwidth=3 TB"], &["device.memory.bandwidth", "not a unit"]);
    p.set(&["hardware.device.memory.capacity=9 XB"], &["device.memory.capacity", "GiB"]);
    p.set(&["hardware.topology.devices=0"], &["topology", "at least 1 device"]);
    p.set(&["hardware.topology.devices=4000000000"], &["topology", "65536"]);
    p.set(&["hardware.topology.kind=torus9"], &["topology.kind", "known: single, switch"]);
    p.set(&["hardware.topology=3"], &["topology", "a table"]);
    p.set(&["model.hidden=0"], &["hidden", "from 1"]);
    p.set(&["workload.arrivals.requests=0"], &["workload.arrivals.requests", "at least 1"]);
    p.set(&["workload.arrivals.concurrency=0"], &["workload.arrivals.concurrency", "from 1"]);
    p.set(&["workload.arrivals.prompt_tokens.mean=0"], &["workload.arrivals.prompt_tokens.mean", "from 1"]);
    p.set(&["workload.routing.sequences=0"], &["workload.routing", "at least one row"]);
    p.set(&["workload.routing.sequences=4000000000"], &["workload.routing", "2^30"]);
    p.set(&["workload.routing.missing=refuse"], &["workload.routing.missing", "prompt rows", "\"wrap\""]);
    p.set(&["fidelity.execution=fast"], &["fidelity.execution", "known: op, phase"]);
    p.set(&["window.end=0 s"], &["window.end", "window.start"]);
    p.set(&["slo={}"], &["slo", "slo.ttft"]);
    p.refused(&["run", "quickstart", "--seed", "-1"], &["--seed", "-1"]);
    p.refused(&["run", "quickstart", "--sett", "a=1"], &["--sett", "--set"]);
    p.refused(&["run", "quickstart", "--timeline"], &["--out"]);
    p.refused(&["--threads", "0", "run", "quickstart"], &["--threads 0", "1 to 1024"]);
    p.refused(&["runn", "quickstart"], &["runn", "'run'"]);
    p.refused(&["schema", "experimnt"], &["experimnt", "experiment"]);
    p.refused(&["show", "h100"], &["h100", "did you mean \"h100-8\"?"]);
}

#[test]
fn deployments_and_policies() {
    let p = Place::new();
    p.set(
        &["model=deepseek-v3"],
        &["deployment", "deepseek-v3 does not fit", "bytes (22.", "are missing", "more devices"],
    );
    // Before its routing is drawn, which no sequences would refuse.
    p.set(&["workload.routing.sequences=0"], &["workload.routing", "out of range", "at least one row"]);
    p.set(&["model=deepseek-v3", "workload.routing.sequences=0"], &["deepseek-v3 does not fit"]);
    p.set(&["deployment.attention_tp=3"], &["deployment.attention_tp", "divisor of 8"]);
    p.set(&["deployment.attention_tp=16"], &["deployment.attention_tp", "divisor of 8"]);
    p.set(&["deployment.attention_dp=3"], &["deployment.attention_dp", "do not cover 8 devices"]);
    let tp = ["hardware.topology.devices=3", "deployment.attention_tp=3"];
    p.set(&tp, &["deployment.attention_tp", "cannot share the 64 heads"]);
    for key in ["kv_block_tokens", "max_batched_tokens", "max_sequences", "attention_tp", "expert_tp"] {
        p.set(&[&format!("deployment.{key}=0")], &[&format!("deployment.{key}"), "at least 1"]);
    }
    p.set(&["deployment.kv_block_tokens=4294967295"], &["deployment"]);
    p.set(&["deployment.pipeline=2"], &["deployment.pipeline", "set it to 1"]);
    p.set(&["policy.execution=nope"], &["policy.execution", "known: expert-parallel"]);
    p.set(&["policy.scheduler=nope"], &["policy.scheduler", "known: chunked-prefill"]);
    p.set(&["policy.load_balancer=leastloaded"], &["policy.load_balancer", "did you mean \"least-loaded\"?"]);
    p.set(&["policy.placement=nope"], &["policy.placement", "known: contiguous"]);
    p.set(&["policy.execution=pim-split"], &["policy.execution", "needs PIM units", "duplex-1"]);
    p.set(&["hardware=wafer-5x5", "policy.execution=on-demand"], &["policy.execution", "host link", "rtx4090-offload"]);
    let offload = ["hardware=rtx4090-offload", "policy.execution=on-demand"];
    for fraction in ["0", "2", "nan", "-1", "inf"] {
        let set = [offload[0], offload[1], &format!("policy.cache_fraction={fraction}")];
        p.set(&set, &["policy.cache_fraction", "above 0 and at most 1"]);
    }
    let host = [offload[0], offload[1], "hardware.host.memory.capacity=1 GB"];
    p.set(&host, &["hardware.host.memory.capacity", "more memory"]);
}

#[test]
fn arrival_files() {
    let p = Place::new();
    let arrivals = |name: &str, kind: &str, text: &[u8], words: &[&str]| {
        p.write(name, text);
        let set = format!("workload.arrivals={{ kind = \"{kind}\", path = \"{name}\" }}");
        p.set(&[&set], &[&[name], words].concat());
    };
    let csv = |name: &str, rows: &str, words: &[&str]| arrivals(name, "csv", format!("{CSV}{rows}").as_bytes(), words);
    csv("negative.csv", "-1,2,3\n", &["line 2, arrived_at_s", "\"-1\"", "0 to 213 days"]);
    csv("nan.csv", "nan,2,3\n", &["line 2, arrived_at_s", "\"nan\""]);
    csv("infinite.csv", "1e99,2,3\n", &["line 2, arrived_at_s", "\"1e99\""]);
    csv("unsorted.csv", "2,2,3\n1,2,3\n", &["line 3, arrived_at_s", "sort the rows"]);
    csv("zero.csv", "1,0,3\n", &["line 2, prompt_tokens", "\"0\"", "from 1"]);
    csv("none.csv", "1,1,0\n", &["line 2, output_tokens", "\"0\"", "from 1"]);
    csv("late.csv", "1,10,3\n2,10,3\n3,x,3\n", &["line 4, prompt_tokens", "\"x\""]);
    csv("ragged.csv", "1,10,3\n2,10\n", &["line 3", "2 fields, not 3"]);
    csv("rows.csv", "", &["line 2", "no requests"]);
    arrivals("header.csv", "csv", b"time,prompt_token,output\n1,2,3\n", &["line 1", "arrived_at_s"]);
    arrivals("empty.csv", "csv", b"", &["line 1", "arrived_at_s"]);
    arrivals("azure.csv", "azure", CSV.as_bytes(), &["line 1", "TIMESTAMP"]);
    arrivals("binary.csv", "csv", &(0..=255).cycle().take(99_999).collect::<Vec<u8>>(), &["line"]);
    std::fs::create_dir(p.path("folder.csv")).unwrap();
    p.set(&["workload.arrivals={ kind = \"csv\", path = \"folder.csv\" }"], &["folder.csv", "is a folder"]);
    p.set(&["workload.arrivals={ kind = \"csv\", path = \"absent.csv\" }"], &["absent.csv", "no such file"]);
    let zero = "workload.arrivals={ kind = \"csv\", path = \"late.csv\", limit = 0 }";
    p.set(&[zero], &["workload.arrivals.limit", "at least 1"]);
    if cfg!(unix) {
        let endless = "workload.arrivals={ kind = \"csv\", path = \"/dev/zero\" }";
        p.set(&[endless], &["/dev/zero", "is a pipe or a device"]);
    }
}

#[test]
fn logs_of_other_forms() {
    let p = Place::new();
    let arrivals = |name: &str, keys: &str, text: &[u8], words: &[&str]| {
        p.write(name, text);
        p.set(&[&format!("workload.arrivals={{ path = \"{name}\", {keys} }}")], words);
    };
    let line = b"{\"timestamp\": 1, \"input_length\": 4, \"output_length\": 2, \"hash_ids\": [1.5]}\n";
    arrivals("m.jsonl", "kind = \"mooncake\"", line, &["m.jsonl: line 1: ", "hash_ids"]);
    arrivals("m.jsonl", "kind = \"mooncake\", block_tokens = 0", line, &["workload.arrivals.block_tokens"]);
    arrivals("m.jsonl", "kind = \"mooncake\", limit = 0", b"{}", &["m.jsonl: line 1", "missing field"]);
    arrivals("m.gz", "kind = \"mooncake\"", b"\x1f\x8b\x08\x00", &["m.gz: line 1", "damaged"]);
    p.set(&["workload.arrivals={ kind = \"mooncake\", path = \".\" }"], &["is a folder"]);
    let header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n";
    let burst = |rows: &str, words: &[&str]| {
        arrivals("b.csv", "kind = \"burstgpt\", model = \"GPT-4\"", format!("{header}{rows}").as_bytes(), words);
    };
    burst("1,GPT-4,3,4,7,API log\n0,GPT-4,3,4,7,API log\n", &["b.csv: line 3, Timestamp", "sort the rows"]);
    burst("1,ChatGPT,3,4,7,API log\n", &["b.csv: line 2", "Model \"GPT-4\""]);
    arrivals(
        "b.csv",
        "kind = \"burstgpt\"",
        b"Timestamp,Model\n",
        &["b.csv: line 1: lacks the column `Request tokens`"],
    );
    arrivals("c.tar", "kind = \"servegen\"", &[b'x'; 3000], &["c.tar: archive: is no whole tar archive"]);
    arrivals("c.tar", "kind = \"servegen\", to = \"0 s\"", b"", &["workload.arrivals.to", "after `from`"]);
    let gamma = "workload.arrivals={ kind = \"gamma\", rate_per_s = 1.0, cv = 0.0, requests = 1, \
                 prompt_tokens = { mean = 1 }, output_tokens = { mean = 1 } }";
    p.set(&[gamma], &["workload.arrivals.cv", "from 0.01"]);
}

/// A small numpy array of expert ids [tokens, 24, 4].
fn npy(shape: &str, body: usize, id: u8) -> Vec<u8> {
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    while !(header.len() + 11).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    // A row selects an expert once.
    out.extend((0..body).map(|i| id ^ (i % 4) as u8));
    out
}

fn import<'a>(source: &'a str, out: &'a str, model: &'a str) -> [&'a str; 7] {
    ["trace", "import", source, "--out", out, "--model", model]
}

#[test]
fn traces() {
    let p = Place::new();
    let routing = |name: &str, words: &[&str]| {
        let set = format!("workload.routing={{ kind = \"trace\", path = \"{name}\" }}");
        p.set(&[&set], &[&[name], words].concat());
        p.refused(&["trace", "info", name], &[&[name], words].concat());
    };
    p.write("good.npy", npy("(300, 24, 4)", 300 * 96, 31));
    p.ok(&import("good.npy", "good.arrow", "gpt-oss-20b"));
    let good = std::fs::read(p.path("good.arrow")).unwrap();
    p.write("cut.arrow", &good[..good.len() / 2]);
    routing("cut.arrow", &[]);
    p.write("tail.arrow", &good[good.len() / 2..]);
    routing("tail.arrow", &[]);
    let mut lying = good.clone();
    let at = lying.len() - 10;
    lying[at..at + 4].copy_from_slice(&i32::MAX.to_le_bytes());
    p.write("lying.arrow", &lying);
    routing("lying.arrow", &["2147483647"]);
    p.write("text.arrow", "1,2,3\n");
    routing("text.arrow", &["not an Arrow IPC file"]);
    p.write("empty.arrow", "");
    routing("empty.arrow", &[]);
    std::fs::create_dir(p.path("folder.arrow")).unwrap();
    routing("folder.arrow", &["is a folder, not a file"]);
    routing("absent.arrow", &["no such file"]);
    // Expert 31 of 32 becomes 0x2f1f in one place: found when its row is first used.
    let mut ids = good.clone();
    let row = ids.windows(8).position(|w| w == [31, 0, 30, 0, 29, 0, 28, 0]).unwrap();
    ids[row + 1] = 0x2f;
    p.write("ids.arrow", &ids);
    let set = "workload.routing={ kind = \"trace\", path = \"ids.arrow\" }";
    p.set(&[set], &["ids.arrow", "sequence 0", "of 32", "; "]);
    // Another model's trace, named in the experiment.
    let other = ["workload.routing={ kind = \"trace\", path = \"good.arrow\" }", "model=mixtral-8x7b"];
    p.set(&other, &["workload.routing", "gpt-oss-20b", "mixtral-8x7b has 32 of 8, top-2"]);
    // Too short for `refuse`.
    let short = ["workload.routing={ kind = \"trace\", path = \"good.arrow\", missing = \"refuse\" }"];
    p.set(&short, &["workload.routing.missing", "0 and 300"]);
}

#[test]
fn imports() {
    let p = Place::new();
    let import = |name: &str, model: &str, words: &[&str]| {
        p.refused(&import(name, "out.arrow", model), &[&[name], words].concat());
    };
    p.write("short.npy", npy("(300, 24, 4)", 299, 1));
    import("short.npy", "gpt-oss-20b", &[]);
    p.write("lies.npy", npy("(18446744073709551615, 24, 4)", 96, 1));
    import("lies.npy", "gpt-oss-20b", &[]);
    p.write("beyond.npy", npy("(2, 24, 4)", 192, 32));
    import("beyond.npy", "gpt-oss-20b", &["32"]);
    p.write("good.npy", npy("(2, 24, 4)", 192, 3));
    import("good.npy", "mixtral-8x7b", &["24", "32", "MoE layers"]);
    import("good.npy", "mixtrel", &[]);
    p.write("text.npz", "hello");
    import("text.npz", "gpt-oss-20b", &[]);
    p.write("deep.json", format!("[{{\"0\": {}", "[".repeat(100_000)));
    import("deep.json", "gpt-oss-20b", &["1:", "write ["]);
    p.write("wrong.json", "[{\"0\": [[1,2,3,4]], \"1\": [[99,2,3,4]]}]");
    p.refused(&["trace", "import", "wrong.json", "--out", "o", "--experts", "32"], &["wrong.json", "layer 1", "99"]);
    p.write("unknown.dat", "hello");
    import("unknown.dat", "gpt-oss-20b", &["--format"]);
    import("absent.npz", "gpt-oss-20b", &["no such file"]);
    p.refused(
        &["trace", "import", "good.npy", "--out", "o", "--format", "npy", "--experts", "32"],
        &["\"npy\"", "did you mean \"npz\"?"],
    );
    p.refused(&["trace", "import", "good.npy", "--out", "short.npy/o", "--experts", "32"], &["short.npy"]);
    if let Some(npz) = data("routing/gpt-oss-20b/routes_ids.npz") {
        let bytes = std::fs::read(npz).unwrap();
        p.write("half.npz", &bytes[..bytes.len() / 2]);
        import("half.npz", "gpt-oss-20b", &[]);
    }
}

#[test]
fn sweeps() {
    let p = Place::new();
    p.sweep("none.toml", "axis = []\n", &["axis", "[[axis]]"]);
    p.sweep("empty.toml", "[[axis]]\nkey = \"seed\"\nvalues = []\n", &["axis 1", "add some"]);
    p.sweep("word.toml", "[[axis]]\nkee = \"seed\"\nvalues = [1]\n", &["did you mean `key`?"]);
    let below = "set = { \"name.x\" = 1 }\n[[axis]]\nkey = \"seed\"\nvalues = [1]\n";
    p.sweep("below.toml", below, &["name.x", "`name` is a value, not a table"]);
    p.set(&["name.x=1"], &["quickstart (with --set): name.x: `name` is a value", "set the key above it"]);
    p.sweep("both.toml", "[[axis]]\nkey = \"seed\"\nname = \"x\"\nvalues = [1]\n", &["axis 1", "write key"]);
    let unknown = "[[axis]]\nkey = \"deployment.max_seqences\"\nvalues = [1]\n";
    p.sweep("key.toml", unknown, &["deployment.max_seqences", "did you mean `max_sequences`?"]);
    let axis = |key: &str| format!("[[axis]]\nkey = \"{key}\"\nvalues = {:?}\n", (1..=1000).collect::<Vec<u32>>());
    let billion = axis("seed") + &axis("workload.arrivals.requests") + &axis("deployment.max_sequences");
    p.sweep("billion.toml", &billion, &["axis", "100000 points", "split"]);
    let one = "[[axis]]\nkey = \"workload.arrivals.requests\"\nvalues = [1]\n";
    p.write("base.toml", format!("name = \"x\"\nbase = \"quickstrat\"\n{one}"));
    p.refused(&["sweep", "base.toml"], &["base.toml: base", "did you mean \"quickstart\"?"]);
    p.write("metric.toml", format!("name = \"x\"\nbase = \"quickstart\"\nmetrics = [\"throughput.tokens\"]\n{one}"));
    p.refused(&["sweep", "metric.toml"], &["metric.toml: metrics", "\"tokens\"", "output_tokens_per_s"]);
    // A point that only its run can refuse: named, and the sweep stops.
    let point = format!(
        "[set]\n\"policy.execution\" = \"on-demand\"\n{one}[[axis]]\nkey = \"hardware\"\nvalues = [\"wafer-5x5\"]\n"
    );
    p.write("point.toml", format!("name = \"x\"\nbase = \"quickstart\"\n{point}"));
    p.refused(&["sweep", "point.toml"], &["point.toml on quickstart [1, wafer-5x5]", "policy.execution", "host link"]);
    p.refused(&["sweep", "quickstart"], &["known: machines"]);
    std::fs::create_dir(p.path("foreign")).unwrap();
    p.write("foreign/mine", "x");
    p.refused(&["sweep", "machines", "--out", "foreign"], &["foreign", "choose another --out"]);
    p.refused(&["sweep", "machines", "--out", "foreign/mine/x"], &["foreign/mine", "choose another --out"]);
    p.refused(&["sweep", "machines", "--resume"], &["--out"]);
}

#[test]
fn output_folders_and_plots() {
    let p = Place::new();
    std::fs::create_dir(p.path("foreign")).unwrap();
    p.write("foreign/mine", "x");
    p.write("file", "x");
    for (out, words) in [("foreign", "foreign"), ("file", "file"), ("file/run", "file"), ("..", ".."), ("/", "/")] {
        p.refused(&["run", "quickstart", "--out", out], &[words, "choose another --out"]);
    }
    p.refused(&["run", "quickstart", "--out", ""], &["--out"]);
    assert_eq!(std::fs::read_to_string(p.path("foreign/mine")).unwrap(), "x");
    for name in ["foreign", "absent", "file"] {
        p.refused(&["plot", name], &[name, "is not a run directory", "moesim run"]);
    }
    p.run("quickstart", "run", &["workload.arrivals.requests=2"]);
    p.refused(&["plot", "run", "latncy"], &["latncy", "did you mean \"latency\"?"]);
    for (file, text) in [("summary.json", "{"), ("summary.json", &"[".repeat(1 << 20)), ("requests.csv", "id\n1,2\n")] {
        let kept = std::fs::read(p.path("run").join(file)).unwrap();
        p.write(&format!("run/{file}"), text);
        let before = std::fs::read_dir(p.path("run")).unwrap().count();
        p.refused(&["plot", "run"], &[file]);
        assert_eq!(std::fs::read_dir(p.path("run")).unwrap().count(), before);
        p.write(&format!("run/{file}"), kept);
    }
    p.ok(&["plot", "run", "latency", "--format", "svg"]);
    assert!(Path::new(&p.path("run/plots/latency.svg")).is_file());
}
