//! Do the mechanisms of a model file reach the summary, and is nothing lost on the way?

use crate::common::{Place, Run, SMALL, at, number};

/// Four layers with most mechanisms at once.
const MODEL: &str = "base = \"mixtral-8x7b\"\nname = \"mechanisms\"\n[decoder]\nlayers = 4\n\
    [decoder.attention]\nexperts = 4\ntop_k = 2\nheads = { gqa = { heads = 8, kv_heads = 8, head_dim = 64 } }\n\
    [decoder.moe]\nexperts = 16\ntop_k = 4\nexpert_intermediate = 0\nzero_experts = 4\ncopy_experts = 2\n\
    constant_experts = 2\ngroups = 8\ngroup_intermediate = 128\nshared_experts = 1\nshared_intermediate = 512\n\
    capacity_factor = 0.8\nexpert_rank = 64\n";

fn model(more: &str) -> String {
    let sizes: Vec<u32> = (0..16).map(|e| 512 + 64 * e).collect();
    format!("{MODEL}expert_sizes = {sizes:?}\n{more}")
}

/// (computed, taken by zero-compute experts, dropped) of a run, checked against its tables.
fn selections(run: &Run) -> [f64; 3] {
    let s = run.summary();
    let parts = ["computed", "zero_compute", "dropped"].map(|k| number(&s, &format!("selections.{k}")));
    let requests = run.table("requests.csv");
    let (prompt, output) = (requests.column::<u64>("prompt_tokens"), requests.column::<u64>("output_tokens"));
    let positions: u64 = prompt.iter().zip(output).map(|(p, o)| p + o - 1).sum();
    // Every position selects four ids in each of four layers.
    assert_eq!(parts.iter().sum::<f64>(), (positions * 4 * 4) as f64);
    assert_eq!(number(&s, "assignments.traced"), (positions * 4 * 4) as f64);
    assert_eq!(number(&s, "selections.absent"), 0.0);
    let table = run.table("experts.csv");
    let (ids, counts) = (table.column::<u32>("expert"), table.column::<u64>("assignments"));
    assert_eq!(ids.len(), 4 * 24);
    let of = |zero: bool| ids.iter().zip(&counts).filter(|(id, _)| (**id >= 16) == zero).map(|(_, n)| n).sum::<u64>();
    assert_eq!([of(false) as f64, of(true) as f64], [parts[0], parts[1]]);
    // Zero-compute experts are on no device.
    let nowhere = table.rows.iter().zip(&ids).all(|(row, id)| row[3].is_empty() == (*id >= 16));
    assert!(nowhere);
    parts
}

#[test]
fn every_selection_is_accounted_for() {
    let p = Place::new();
    p.write("m.toml", model(""));
    p.write("padded.toml", model("capacity_padding = true\n"));
    p.write("whole.toml", model("").replace("capacity_factor = 0.8\n", ""));
    let with = |name: &str, more: &[&str]| {
        let m = format!("model={name}.toml");
        let out = format!("{name}{}", more.len());
        p.run("quickstart", &out, &[&SMALL[..], &[&m, "policy.dispatch=flat"], more].concat())
    };
    let run = with("m", &[]);
    let [computed, zero, dropped] = selections(&run);
    assert!(computed > 0.0 && zero > 0.0 && dropped > 0.0);
    let s = run.summary();
    let notes = at(&s, "approximations").to_string();
    for word in ["beyond an expert's capacity", "copy and constant experts", "attention experts"] {
        assert!(notes.contains(word), "{word}: {notes}");
    }
    // Both executors, and one thread, agree.
    let op = with("m", &["fidelity.execution=op"]);
    assert_eq!(op.text("devices.csv"), run.text("devices.csv"));
    assert_eq!(at(&op.summary(), "selections"), at(&s, "selections"));
    assert_eq!(number(&op.summary(), "simulated_s"), number(&s, "simulated_s"));
    // Without a capacity the same ids are computed or taken, none dropped.
    let whole = with("whole", &[]);
    let [all, same_zero, none] = selections(&whole);
    assert_eq!((all, none), (computed + dropped, 0.0));
    assert_eq!(same_zero, zero);
    // Buffers move more than what came; what is counted stays as the requests are alike, whatever the time.
    let padded = with("padded", &[]);
    selections(&padded);
    let moved = |r: &Run| number(&r.summary(), "traffic_bytes.dispatch");
    assert!(moved(&padded) > moved(&run), "{} {}", moved(&padded), moved(&run));
    // Every expert in host memory, those that are not in the cache loaded.
    let loaded = with("m", &["hardware=rtx4090-offload", "policy.execution=on-demand"]);
    selections(&loaded);
    let s = loaded.summary();
    let mean = number(&s, "counters.on-demand.loaded_bytes") / number(&s, "counters.on-demand.loads");
    // Factors of rank 64: 3 x 64 (4096 + width) weights of 2 bytes, widths from 512 to 1,472.
    let bytes = |width: f64| 2.0 * 3.0 * 64.0 * (4096.0 + width);
    assert!(bytes(512.0) < mean && mean < bytes(1472.0), "{mean}");
}

/// Two layers that differ in everything.
const STACKS: &str = "name = \"stacks\"\nsource = \"none\"\nhidden = 64\nvocabulary = 100\n[decoder]\nlayers = 1\n\
    attention = { heads = { gqa = { heads = 4, kv_heads = 4, head_dim = 16 } } }\n\
    moe = { experts = 4, top_k = 2, expert_intermediate = 32 }\n[[decoder_stack]]\nlayers = 1\n\
    attention = { heads = { gqa = { heads = 2, kv_heads = 1, head_dim = 32 } } }\n\
    moe = { experts = 2, top_k = 1, expert_intermediate = 96 }\n[precision]\nattention = 16\nrouter = 16\nexperts = 16\n\
    shared = 16\ndense = 16\nembedding = 16\nhead = 16\nkv = 16\nactivation = 16\n[published]\n";

#[test]
fn layers_of_several_stacks() {
    let p = Place::new();
    p.write("stacks.toml", STACKS);
    let import = |rows: &str| {
        let line =
            format!("{{\"n_layers\": 2, \"top_k\": 2, \"n_experts\": 4, \"prefill\": {rows}, \"decode\": {rows}}}");
        p.write("t.jsonl", line);
        p.ok(&["trace", "import", "t.jsonl", "--force", "--out", "t.arrow"]);
    };
    let set = [
        "model=stacks.toml",
        "hardware.topology.devices=1",
        "workload.routing={ kind = \"trace\", path = \"t.arrow\" }",
        "workload.arrivals={ kind = \"closed-loop\", concurrency = 1, requests = 1, prompt_tokens = { mean = 3 }, \
         output_tokens = { mean = 1 } }",
    ];
    import("[[0, 1, 0, -1], [3, 2, 1, -1], [2, -1, -1, -1]]");
    let run = p.run("quickstart", "run", &set);
    let s = run.summary();
    let parts = ["computed", "zero_compute", "dropped", "absent"].map(|k| number(&s, &format!("selections.{k}")));
    assert_eq!(parts, [7.0, 0.0, 0.0, 5.0]);
    let table = run.table("experts.csv");
    assert_eq!(table.column::<u32>("layer"), [0, 0, 0, 0, 1, 1]);
    assert_eq!(table.column::<u64>("assignments"), [1, 1, 2, 1, 1, 1]);
    // Three tokens in one iteration: projections, heads over six pairs of positions, gates of four and of two experts, five
    // and two tokens in experts, the head for the last.
    let projections = |q: u64, kv: u64| 2 * 3 * 64 * (2 * q + 2 * kv);
    let attention = projections(64, 64) + projections(64, 32) + 4 * 6 * (64 + 64);
    let experts = 2 * 3 * 64 * (5 * 32 + 2 * 96);
    let expected = attention + 2 * 3 * 64 * (4 + 2) + experts + 2 * 100 * 64;
    assert_eq!(run.table("devices.csv").column::<u64>("flop"), [expected]);

    let refused = |rows: &str, words: &[&str]| {
        import(rows);
        let mut args = vec!["run", "quickstart", "--quiet", "--out", "bad"];
        set.iter().for_each(|s| args.extend(["--set", s]));
        let out = p.command(&args).output().unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{text}");
        assert!(words.iter().all(|w| text.contains(w)) && !p.path("bad").exists(), "{text}");
    };
    refused("[[0, 1, 2, -1]]", &["expert 2 of layer 1 does not exist", "has 2 there", "row 0"]);
    refused("[[0, 1, 0, -1], [0, 1, 0, 1]]", &["layer 1 selects 2 experts", "top_k is 1", "row 1"]);
    // What cannot be drawn for such a model is refused, and says what to do.
    let out = p.command(&["run", "quickstart", "--set", "model=stacks.toml"]).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(
        out.status.code() == Some(2) && text.contains("differ in experts or top_k") && text.contains("trace"),
        "{text}"
    );
}
