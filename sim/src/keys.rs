//! Does every key of every schema count? Each is changed in small runs: it changes a result, is refused, or is one of a few that the
//! summary names in a sentence.

use crate::experiment::{self, Experiment, Resolved};
use crate::metrics::Summary;
use crate::metrics::tables::Tables;
use crate::registry::Registry;
use crate::simulation::{Simulation, open_trace};
use moesim_core::{Result, config};
use moesim_traces::{Meta, OwnedSequence};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Keys that change no result, and what the summary says of each; at most ten.
const IDLE: [(&str, &str); 3] = [
    ("hardware.host.memory.bandwidth.value", "hardware.host.memory.bandwidth is not used"),
    ("model.mtp_layers", "model.mtp_layers is not used"),
    (
        "workload.arrivals.block_tokens",
        "hash_ids (of block_tokens each) are kept with the requests, but no prefix cache uses them",
    ),
];

/// Keys that bound others: a larger value changes nothing, a smaller one is refused.
const LIMITS: [&str; 1] = ["hardware.host.memory.capacity.value"];

/// Keys that are refused wherever they stand, and those of a reader of many files, which its own tests try.
const ELSEWHERE: [&str; 4] = [
    "hardware.topology.uplink.per_message",
    "hardware.topology.uplink.per_message.value",
    "workload.arrivals.from",
    "workload.arrivals.to",
];

/// Words that say what a file is or where its values are from, and what is written beside the summary.
fn is_word(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or(path);
    let words = ["model.published", "hardware.device.name", "output."];
    matches!(last, "origin" | "description" | "source") || words.iter().any(|w| path.starts_with(w))
}

/// A small run that has keys which others lack.
struct Base {
    name: &'static str,
    hardware: &'static str,
    model: &'static str,
    /// What it changes, an assignment a line.
    set: &'static str,
}

/// A model with experts in every second layer.
const PLAIN: &str = r#"
name = "plain"
source = "a test"
hidden = 512
vocabulary = 4096
tied_embedding = false
context = 100
mtp_layers = 1
[decoder]
layers = 4
dense_layers = [0]
moe_every = 1
moe_offset = 0
attention = { heads = { gqa = { heads = 16, kv_heads = 8, head_dim = 64 } }, pattern = ["full", "window:64"], bias = true, qk_norm = "head", experts = 0, top_k = 0 }
dense = { intermediate = 1024, matrices = 3 }
[decoder.moe]
experts = 16
top_k = 4
expert_intermediate = 256
matrices = 3
shared_experts = 1
shared_intermediate = 256
bias = true
[precision]
attention = 16
router = 16
experts = 16
shared = 16
dense = 16
embedding = 16
head = 16
kv = 16
activation = 16
[published]
"#;

/// A link of a topology.
const LINK: &str = r#"{ bandwidth = { value = "20 GB/s", origin = "t" }, latency = { value = "1 us", origin = "t" }, per_message = { value = "2 us", origin = "t" }, achievable = { value = 0.8, origin = "t" } }"#;

/// The same for an uplink, over which no message enters.
const UPLINK: &str = r#"{ bandwidth = { value = "10 GB/s", origin = "t" }, latency = { value = "1 us", origin = "t" }, achievable = { value = 0.8, origin = "t" } }"#;

/// Every kind of machine, and what of the other tables needs a run of its own. `LINK` stands for a link.
const BASES: &[Base] = &[
    Base { name: "calibrated", hardware: "h100-8", model: PLAIN, set: "deployment.attention_tp = 2\ndeployment.expert_tp = 2\nhardware.device.llc.value = \"100 kB\"\nengine.graphs = true" },
    Base {
        name: "an engine",
        hardware: "h100-8",
        model: PLAIN,
        set: "engine = { framework = \"vllm\", host_time = \"50 us\", front_end = \"1 ms\", eager_kernel = \"20 us\", receive_interval = 4, memory_share = 0.8, fused = [\"rotary-cache\"] }
engine.kernels = { experts = \"vllm_unquantizedfusedmoe*\", gemm = \"torch_flow\", decode_attention = \"decode fa3\", prefill_attention = \"fa3\", all_reduce = \"TRTLLM\" }
deployment.attention_tp = 2",
    },
    Base {
        name: "another profile's kernel",
        hardware: "h100-8",
        model: PLAIN,
        set: "hardware.device.profile = \"h800-sxm\"\nengine.kernels.experts = \"gemm_grouped\"\npolicy.dispatch = \"per-selection\"
model.precision.experts = 8\nmodel.precision.attention = 8\nmodel.precision.activation = 8",
    },
    Base {
        name: "rooflines",
        hardware: "mi300x-8",
        model: PLAIN,
        set: "engine = {}\nhardware.device.achievable.attention.value = 0.001\ndeployment.max_batched_tokens = 64\ndeployment.max_sequences = 2\ndeployment.attention_tp = 2\ndeployment.layout = \"sequence-parallel\"\ndeployment.dispatch_bits = 8.0
deployment.combine_bits = 12.0\nhardware.price_per_device_hour = { value = 2.0, origin = \"t\" }\nslo = { ttft = \"1600 us\", tpot = \"400 us\" }
window = { start = \"2 ms\", end = \"6 ms\" }\nhardware.topology.link.per_message = { value = \"3 us\", origin = \"t\" }",
    },
    Base {
        name: "one subject",
        hardware: "mi300x-8",
        model: PLAIN,
        set: "workload.routing = { kind = \"synthetic\", sequences = 4, prompt_rows = 8, decode_rows = 8, subjects = \"one\" }",
    },
    Base {
        name: "narrow operands",
        hardware: "b200-8",
        model: PLAIN,
        set: "model.precision.experts = 4\nmodel.precision.activation = 4\nmodel.precision.attention = 8\nmodel.precision.router = 32",
    },
    Base {
        name: "rounded inputs",
        hardware: "b200-8",
        model: PLAIN,
        set: "model.precision.experts = 8\nmodel.precision.attention = 8\nmodel.precision.gemm_input = 8.0\npolicy.dispatch = \"all-gather\"\nengine.rounds_before_gather = true",
    },
    Base {
        name: "integers",
        hardware: "a100-8",
        model: PLAIN,
        set: "model.precision.experts = 8\nmodel.precision.activation = 8\nmodel.precision.attention = 8\nmodel.precision.kv = 8",
    },
    Base {
        name: "host memory",
        hardware: "rtx4090-offload",
        model: PLAIN,
        set: "policy.execution = { kind = \"on-demand\", cache_fraction = 0.2 }\nhardware.host.memory.capacity = { value = \"60 MB\", origin = \"t\" }",
    },
    Base {
        name: "host memory, as older files say it",
        hardware: "rtx4090-offload",
        model: PLAIN,
        set: "policy.execution = \"on-demand\"\npolicy.cache_fraction = 0.2",
    },
    Base {
        name: "long prompts",
        hardware: "rtx-pro-6000-2",
        model: PLAIN,
        set: "model.context = 100000\nhardware.device.llc.value = \"500 kB\"\nhardware.device.units.value = 8\nworkload.arrivals.prompt_tokens.mean = 2000",
    },
    Base { name: "in memory", hardware: "duplex-4", model: PLAIN, set: "policy.execution = \"pim-split\"" },
    Base { name: "nodes", hardware: "h100-2x8", model: PLAIN, set: "policy.dispatch = \"hierarchical\"\nhardware.device.profile = \"a100-sxm\"
hardware.topology.nic = LINK\nhardware.topology.link = LINK\nhardware.topology.cross_rail = \"spine\"\nhardware.topology.spine_oversubscription = 4.0" },
    Base { name: "planes", hardware: "cloudmatrix384", model: PLAIN, set: "hardware.device.profile = \"a100-sxm\"\nhardware.topology = { kind = \"planes\", nodes = 2, devices_per_node = 4, planes = 2, l2_switches = 2, striping = \"pair\", link = LINK, uplink = UPLINK }" },
    Base { name: "mesh", hardware: "tsmc-sow-3x8", model: PLAIN, set: "fidelity.network = \"reserve\"\nhardware.topology = { kind = \"mesh2d\", x = 2, y = 2, link = LINK }" },
    Base { name: "graph", hardware: "mi300x-8", model: PLAIN, set: "hardware.topology = { kind = \"graph\", devices = 4, edges = [{ between = [\"gpu0\", \"gpu1\"], link = LINK }, { between = [\"gpu1\", \"gpu2\"], link = LINK }, { between = [\"gpu2\", \"gpu3\"], link = LINK }, { between = [\"gpu3\", \"gpu0\"], link = LINK }] }\nhardware.failed_links = [\"gpu0>gpu1\"]\nfidelity.network = \"flow\"" },
    Base { name: "full meshes", hardware: "mi300x-8", model: PLAIN, set: "hardware.topology = { kind = \"full-mesh-nd\", dims = [4, 2], links = [LINK, LINK] }" },
    Base { name: "switches of one host", hardware: "mi300x-8", model: PLAIN, set: "hardware.topology = { kind = \"pcie\", switches = 2, devices_per_switch = 2, link = LINK, uplink = UPLINK }" },
    Base { name: "latent attention", hardware: "h800-8", model: PLAIN, set: "model.decoder.attention.qk_norm = \"none\"\nmodel.decoder.attention.heads = { mla = { heads = 16, q_rank = 128, kv_rank = 128, nope_dim = 64, rope_dim = 32, v_dim = 64 } }
deployment.tokens = \"token-follows\"\ndeployment.attention_tp = 8\ndeployment.communication_units = 20" },
    Base { name: "capacities", hardware: "mi300x-8", model: PLAIN, set: "model.decoder.moe.capacity_factor = 0.8\nmodel.decoder.moe.capacity_padding = true\nmodel.decoder.moe.zero_experts = 2
model.decoder.moe.copy_experts = 1\nmodel.decoder.moe.constant_experts = 1" },
    Base { name: "parts in common", hardware: "mi300x-8", model: PLAIN, set: "hardware.topology.devices = 2\nmodel.decoder.moe.groups = 4\nmodel.decoder.moe.group_intermediate = 128\nmodel.decoder.moe.expert_rank = 32
model.decoder.moe.expert_base = true" },
    Base { name: "sizes", hardware: "mi300x-8", model: PLAIN, set: "model.decoder.moe.expert_sizes = [128, 256, 128, 256, 128, 256, 128, 256, 128, 256, 128, 256, 128, 256, 128, 256]\nmodel.decoder.attention.experts = 4
model.decoder.attention.top_k = 2\npolicy.load_balancer = \"round-robin\"" },
    Base { name: "moving experts", hardware: "mi300x-8", model: PLAIN, set: "policy.replacement = { every = \"2 ms\", max_moves = 4, smoothing = 0.5, bandwidth_share = 0.2, method = \"longest-first\" }" },
    Base { name: "moving experts by iterations", hardware: "mi300x-8", model: PLAIN, set: "policy.replacement = { iterations = 8, redundant = 8, method = \"eplb\" }" },
    Base { name: "users", hardware: "mi300x-8", model: PLAIN, set: "workload.arrivals = { kind = \"closed-loop\", concurrency = 4, requests = 8, think_time = \"1 ms\", prompt_tokens = { mean = 80, spread = 0.5 }, output_tokens = { mean = 12, spread = 0.5 } }" },
    Base { name: "sessions", hardware: "mi300x-8", model: PLAIN, set: "workload.arrivals = { kind = \"sessions\", sessions_per_s = 500.0, cv = 2.0, sessions = 6, turns = { distribution = \"fixed\", mean = 3 }, think_time = \"1 ms\", prompt_tokens = { mean = 80, spread = 0.5 }, output_tokens = { mean = 12, spread = 0.5 } }
model.base = \"gpt-oss-20b\"" },
    Base {
        name: "a table of requests",
        hardware: "mi300x-8",
        model: PLAIN,
        set: "workload.arrivals = { kind = \"csv\", path = \"DIR/r.csv\", rate_scale = 1.0, limit = 4 }\nworkload.routing = { kind = \"trace\", path = \"DIR/t.arrow\" }",
    },
    Base {
        name: "requests with blocks",
        hardware: "mi300x-8",
        model: PLAIN,
        set: "workload.arrivals = { kind = \"mooncake\", path = \"DIR/m.jsonl\", spread = true, block_tokens = 512 }",
    },
    Base {
        name: "requests of chats",
        hardware: "mi300x-8",
        model: PLAIN,
        set: "workload.arrivals = { kind = \"bailian\", path = \"DIR/c.jsonl\", limit = 6, type = \"text\" }",
    },
    Base {
        name: "drawn lengths",
        hardware: "mi300x-8",
        model: PLAIN,
        set: "workload.arrivals.prompt_tokens = { distribution = \"gamma\", mean = 80, cv = 0.5, min = 40, max = 120 }
workload.arrivals.output_tokens = { distribution = \"zipf\", exponent = 0.5, min = 4, max = 30 }",
    },
    Base {
        name: "drawn lengths, the other way round",
        hardware: "mi300x-8",
        model: PLAIN,
        set: "workload.arrivals.prompt_tokens = { distribution = \"zipf\", exponent = 0.5, min = 40, max = 120 }
workload.arrivals.output_tokens = { distribution = \"log-normal\", mean = 12, cv = 0.5, min = 8, max = 16 }",
    },
    Base {
        name: "tables of lengths",
        hardware: "mi300x-8",
        model: PLAIN,
        set: "workload.arrivals.prompt_tokens = { distribution = \"table\", tokens = [40, 90], weights = [1.0, 3.0] }
workload.arrivals.output_tokens = { distribution = \"table\", tokens = [5, 12], weights = [1.0, 3.0] }",
    },
    Base {
        name: "requests by model",
        hardware: "mi300x-8",
        model: PLAIN,
        set: "workload.arrivals = { kind = \"burstgpt\", path = \"DIR/b.csv\", model = \"GPT-4\", log_type = \"API log\" }",
    },
];

/// What became of a key.
#[derive(Default)]
struct Count {
    /// It changed a result, or was refused.
    seen: bool,
    /// Notes of the runs that have it.
    notes: BTreeSet<String>,
}

#[test]
fn every_key_counts() {
    let mut counted: BTreeMap<String, Count> = BTreeMap::new();
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    for base in BASES {
        let tree = tree(base, dir.path());
        let whole = resolve(base, tree.clone()).and_then(|r| run(&r)).unwrap_or_else(|d| panic!("{}: {d}", base.name));
        let mut leaves = Vec::new();
        walk(&Value::Table(tree.clone()), &mut Vec::new(), &mut leaves);
        for at in leaves {
            let key = at.iter().filter(|s| s.parse::<usize>().is_err()).cloned().collect::<Vec<_>>().join(".");
            let count = counted.entry(key.clone()).or_default();
            count.notes.extend(whole.1.iter().cloned());
            if count.seen || is_word(&key) {
                continue;
            }
            let outcomes = changes(get(&tree, &at)).into_iter().map(|value| {
                let mut changed = tree.clone();
                *get_mut(&mut changed, &at) = value;
                resolve(base, changed).and_then(|r| run(&r))
            });
            let outcomes: Vec<_> = outcomes.collect();
            let refused = |o: &Result<_>| o.is_err();
            count.seen = outcomes.iter().all(refused)
                || outcomes.iter().flatten().any(|s| s.0 != whole.0)
                || (LIMITS.contains(&key.as_str()) && outcomes.iter().any(refused));
        }
    }
    let idle: BTreeSet<&str> =
        counted.iter().filter(|(k, n)| !n.seen && !is_word(k)).map(|(k, _)| k.as_str()).collect();
    assert_eq!(idle, IDLE.iter().map(|i| i.0).collect(), "keys that change nothing, beside those that are said to");
    for (key, sentence) in IDLE {
        assert!(counted[key].notes.iter().any(|n| n.contains(sentence)), "{key}: {:?}", counted[key].notes);
    }
    let schema = Registry::builtin().schema(schemars::schema_for!(Experiment)).unwrap().to_value();
    let mut paths = BTreeSet::new();
    properties(&schema, &schema, String::new(), &mut paths, 0);
    let has = |p: &String| counted.keys().any(|k| k == p || k.starts_with(&format!("{p}.")));
    let missing: Vec<&String> =
        paths.iter().filter(|p| !has(p) && !is_word(p) && !ELSEWHERE.contains(&p.as_str())).collect();
    assert!(missing.is_empty(), "keys that no run here has: {missing:#?}");
}

/// What bases read.
fn files(dir: &Path) {
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    let rows: String = (0..8).map(|i| format!("{}.5,{},{}\n", i, 40 + i, 5 + i)).collect();
    write("r.csv", &format!("arrived_at_s,prompt_tokens,output_tokens\n{rows}"));
    let line = |i: u64| {
        let (at, input) = (3000 * (i / 4), 700 + i);
        format!(
            "{{\"timestamp\": {at}, \"input_length\": {input}, \"output_length\": 5, \"hash_ids\": [{i}, {}]}}\n",
            i + 100
        )
    };
    write("m.jsonl", &(0..8).map(line).collect::<String>());
    let row = |i: u64| {
        let (model, log) = (["ChatGPT", "GPT-4"][i as usize % 2], ["API log", "Conversation log"][i as usize / 2 % 2]);
        format!("{},{model},{},{},{},{log}\n", i / 8, 40 + i, 5, 45 + i)
    };
    let head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n";
    write("b.csv", &format!("{head}{}", (0..16).map(row).collect::<String>()));
    let line = |i: u64| {
        let (at, of_type) = (i / 2, ["text", "file"][i as usize / 6]);
        format!(
            "{{\"chat_id\": {i}, \"timestamp\": {at}.5, \"input_length\": 20, \"output_length\": 5, \"type\": \"{of_type}\", \"hash_ids\": [{i}, {}]}}\n",
            i + 100
        )
    };
    write("c.jsonl", &(0..12).map(line).collect::<String>());
    let meta = Meta {
        model: "plain".into(),
        layer_numbers: vec![1, 2, 3],
        experts: 16,
        k: 4,
        source: "a test".into(),
        licence: "none".into(),
    };
    let mut trace = moesim_traces::trace::Writer::create(&dir.join("t.arrow"), meta).unwrap();
    let decode = (0..48u16).map(|i| i * 5 % 16).collect();
    trace.push_sequence(&OwnedSequence { decode, ..OwnedSequence::default() }).unwrap();
    trace.finish().unwrap();
}

fn tree(base: &Base, dir: &Path) -> Table {
    let text = format!(
        "name = \"{}\"\nseed = 1\nhardware = \"{}\"\n[workload.arrivals]\nkind = \"poisson\"\nrate_per_s = 2000.0\nrequests = 12\n\
         prompt_tokens = {{ mean = 80, spread = 0.5 }}\noutput_tokens = {{ mean = 12, spread = 0.5 }}\n\
         [workload.routing]\nkind = \"uniform\"\nsequences = 4\nprompt_rows = 8\ndecode_rows = 8\n",
        base.name, base.hardware
    );
    let mut table = config::table(&text, base.name).unwrap();
    table.insert("model".into(), Value::Table(config::table(base.model, "model").unwrap()));
    let set = base.set.lines().map(|line| {
        config::split_assignment(
            &line.replace("UPLINK", UPLINK).replace("LINK", LINK).replace("DIR", &dir.display().to_string()),
        )
        .unwrap()
    });
    let set: Vec<experiment::Assignment> = set.collect();
    // As a run writes it: with every default, model and hardware in full.
    let resolved =
        experiment::resolve(base.name, table, PathBuf::new(), &set).unwrap_or_else(|d| panic!("{}: {d}", base.name));
    config::table(&config::to_toml(&resolved.experiment).unwrap(), base.name).unwrap()
}

fn resolve(base: &Base, table: Table) -> Result<Resolved> {
    experiment::resolve(base.name, table, PathBuf::new(), &[])
}

/// The results of a run, and its notes.
fn run(resolved: &Resolved) -> Result<(Json, Vec<String>)> {
    let mut s = Simulation::new(resolved, &Registry::builtin(), || open_trace(resolved), Tables::default())?;
    s.run(&mut |_| true)?;
    let summary = Summary::new(&s.ended());
    let notes = summary.notes.clone();
    let mut json = serde_json::to_value(summary).unwrap();
    // What repeats the experiment's own keys shows no effect of theirs.
    for key in ["notes", "engine"] {
        json.as_object_mut().unwrap().remove(key);
    }
    Ok((json, notes))
}

/// Paths of all values that are no tables; elements of lists of tables by their number.
fn walk(value: &Value, at: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    match value {
        Value::Table(t) => {
            for (key, v) in t {
                at.push(key.clone());
                walk(v, at, out);
                at.pop();
            }
        }
        Value::Array(list) if list.iter().any(Value::is_table) => {
            for (i, v) in list.iter().enumerate() {
                at.push(i.to_string());
                walk(v, at, out);
                at.pop();
            }
        }
        _ => out.push(at.clone()),
    }
}

fn get<'a>(table: &'a Table, at: &[String]) -> &'a Value {
    let step =
        |v: &'a Value, key: &String| key.parse::<usize>().ok().and_then(|i| v.get(i)).or_else(|| v.get(key)).unwrap();
    at[1..].iter().fold(&table[&at[0]], step)
}

fn get_mut<'a>(table: &'a mut Table, at: &[String]) -> &'a mut Value {
    let mut v = &mut table[&at[0]];
    for key in &at[1..] {
        v = if v.is_array() {
            &mut v.as_array_mut().unwrap()[key.parse::<usize>().unwrap()]
        } else {
            &mut v[key.as_str()]
        };
    }
    v
}

/// Other values of a key.
fn changes(value: &Value) -> Vec<Value> {
    match value {
        Value::Integer(n) => [n + 1, n * 2, n / 2].into_iter().filter(|m| m != n).map(Value::Integer).collect(),
        Value::Float(f) => [f * 0.5, f * 1.5 + 0.01].into_iter().map(Value::Float).collect(),
        Value::Boolean(b) => vec![Value::Boolean(!b)],
        Value::String(text) => {
            let (number, unit) =
                text.split_at(text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len()));
            match number.parse::<f64>() {
                Ok(n) if n > 0.0 => [0.5, 2.0].map(|f| Value::String(format!("{}{unit}", n * f))).to_vec(),
                Ok(_) => vec![Value::String(format!("10{unit}"))],
                Err(_) => vec![Value::String(format!("{text}x"))],
            }
        }
        Value::Array(list) if list.is_empty() => vec![Value::Array(vec![Value::Integer(1)])],
        Value::Array(list) => {
            let shorter = Value::Array(list[..list.len() - 1].to_vec());
            let turned = list[0].is_integer().then(|| Value::Array(list.iter().rev().cloned().collect()));
            std::iter::once(shorter).chain(turned).collect()
        }
        _ => Vec::new(),
    }
}

/// Dotted keys of a schema, lists and variants gone through.
fn properties(root: &Json, schema: &Json, at: String, out: &mut BTreeSet<String>, depth: usize) {
    if depth > 24 {
        return;
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
        return properties(root, &root["$defs"][name], at, out, depth + 1);
    }
    let mut table = false;
    if let Some(own) = schema["properties"].as_object() {
        table = true;
        for (key, of) in own {
            let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            properties(root, of, path, out, depth + 1);
        }
    }
    for list in ["anyOf", "oneOf", "allOf"] {
        for of in schema[list].as_array().into_iter().flatten() {
            table = true;
            properties(root, of, at.clone(), out, depth + 1);
        }
    }
    if schema["items"].is_object() && (schema["items"]["$ref"].is_string() || schema["items"]["properties"].is_object())
    {
        table = true;
        properties(root, &schema["items"], at.clone(), out, depth + 1);
    }
    // Encoders and what attends to them are refused whole; further stacks are of the same type as the decoder.
    let elsewhere = at.starts_with("model.encoder") || at.contains(".cross") || at.starts_with("model.decoder_stack.");
    if !table && !at.is_empty() && !elsewhere {
        out.insert(at);
    }
}

/// What a run of one machine ignores though others do not is said too.
#[test]
fn what_one_run_ignores_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let notes = |set: &'static str| {
        let base = Base { name: "one", hardware: "h100-8", model: PLAIN, set };
        run(&resolve(&base, tree(&base, dir.path())).unwrap()).unwrap().1.join("; ")
    };
    let calibrated = notes("hardware.device.units.value = 66\npolicy.cache_fraction = 0.5");
    for what in [
        "hardware.device.achievable: not used are compute, grouped, attention (",
        "hardware.device.units is 66, of H100 SXM5 80GB it is 132: peaks are of all processors together",
        "2.00 times as fast",
        "policy.cache_fraction is not used by expert-parallel",
    ] {
        assert!(calibrated.contains(what), "{what}: {calibrated}");
    }
    let everywhere =
        notes("deployment.attention_tp = 8\ndeployment.dispatch_bits = 8.0\npolicy.dispatch = \"per-selection\"");
    assert!(
        everywhere.contains("not used are policy.dispatch, deployment.dispatch_bits: tokens are on"),
        "{everywhere}"
    );
    let dense = notes("model.decoder.dense_layers = [0, 1, 2, 3]");
    assert!(dense.contains("workload.routing is not used: plain has no MoE layer"), "{dense}");
    for (key, value, cure) in [
        ("model.precision.experts", "1e-300", "from 0.1 to 64"),
        (
            "hardware.topology.uplink.per_message",
            "{ value = \"1 us\", origin = \"t\" }",
            "topology.link, over which messages enter",
        ),
    ] {
        let pcie = "hardware.topology = { kind = \"pcie\", switches = 2, devices_per_switch = 2, link = LINK, uplink = UPLINK }";
        let base = Base { name: "one", hardware: "mi300x-8", model: PLAIN, set: pcie };
        let set = [config::split_assignment(&format!("{key} = {value}")).unwrap()];
        let problem = experiment::resolve("one", tree(&base, dir.path()), PathBuf::new(), &set).unwrap_err();
        assert!(problem.to_string().contains(cure), "{problem}");
    }
    for fraction in ["nan", "-1", "0", "1.5"] {
        let base = Base { name: "one", hardware: "h100-8", model: PLAIN, set: "" };
        let mut table = tree(&base, dir.path());
        table["policy"].as_table_mut().unwrap().insert("cache_fraction".into(), fraction.parse().unwrap());
        let problem = resolve(&base, table).unwrap_err();
        assert!(problem.to_string().contains("policy.cache_fraction"), "{problem}");
    }
}
