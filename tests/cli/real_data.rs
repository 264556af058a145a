//! Does a run on real selections and real arrivals compute exactly the experts that the trace selected?

use crate::common::{Place, Run, data};
use moesim_traces::export::exporter;
use moesim_traces::{OwnedSequence, Trace};

/// gpt-oss-20b's measured selections, imported.
fn imported(p: &Place) -> Option<Trace> {
    let npz = data("routing/gpt-oss-20b/routes_ids.npz")?;
    p.ok(&["trace", "import", npz.to_str().unwrap(), "--out", "gpt.arrow", "--model", "gpt-oss-20b"]);
    let trace = Trace::open(&p.path("gpt.arrow")).unwrap();
    assert_eq!((trace.sequences(), trace.rows(), trace.layers(), trace.k()), (703, 215_438, 24, 4));
    Some(trace)
}

/// Inputs that were answered wrongly once.
#[test]
fn inputs_of_other_tools_have_their_right_answers() {
    let cases = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/cases"));
    if !cases.exists() {
        println!("skipped: {} is not there", cases.display());
        return;
    }
    let p = Place::new();
    p.write("x.toml", p.ok(&["show", "quickstart"]));
    let arrivals = |kind: &str, file: &str| {
        let set = format!("workload.arrivals={{ kind = \"{kind}\", path = \"{}\" }}", cases.join(file).display());
        let run = p.run("x.toml", "r", &[&set]);
        let notes = run.summary()["notes"].to_string();
        (run.table("requests.csv").column::<f64>("arrival_s"), notes)
    };
    let (times, notes) = arrivals("mooncake", "mooncake-ms.jsonl");
    assert_eq!(times, [0.0, 1.5, 2.9, 2.95, 10.0, 12.5]);
    assert!(!notes.contains("time stamp"), "{notes}");
    assert_eq!(arrivals("csv", "quoted.csv").0, [0.0, 0.5]);
    let fit = |file: &str, hardware: &str| {
        p.ok(&["calibrate", "fit", cases.join(file).to_str().unwrap(), "--hardware", hardware])
    };
    let said = fit("fused-moe-with-tp.csv", "h100-8");
    assert!(said.contains("demo_fused_moe bfloat16 (39 rows, 3 shapes)"), "{said}");
    let said = fit("mha/decode/h800/16-2-256.csv", "h800-8");
    assert!(said.contains("mha_decode bf16"), "{said}");
    let axes = cases.join("three-axes.toml").display().to_string();
    let out = p.command(&["sweep", &axes, "--out", "sweep", "--quiet"]).output().unwrap();
    let (table, note) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert!(out.status.success() && note.contains("no plot: the sweep has 3 axes"), "{note}");
    assert!(table.lines().filter(|l| l.contains(" ok ")).count() == 8, "{table}");
}

#[test]
fn selections_survive_the_way_through_json() {
    let p = Place::new();
    let Some(trace) = imported(&p) else { return };
    let slice = |i: usize| {
        let s = trace.sequence(i);
        OwnedSequence { id: i as u32, decode: s.decode.to_vec(), ..Default::default() }
    };
    let slice = Trace::from_sequences(trace.meta().clone(), (100..112).map(slice).collect()).unwrap();
    exporter("wafer-json").unwrap().export(&slice, &p.path("json")).unwrap();
    p.ok(&["trace", "import", "json", "--out", "again.arrow", "--model", "gpt-oss-20b"]);
    let again = Trace::open(&p.path("again.arrow")).unwrap();
    assert_eq!((again.sequences(), again.rows()), (12, slice.rows()));
    for i in 0..12 {
        assert_eq!(again.sequence(i).decode, slice.sequence(i).decode);
        assert!(again.sequence(i).prefill.is_empty());
    }
    let info: serde_json::Value =
        serde_json::from_str(&p.ok(&["trace", "info", "again.arrow", "--format", "json"])).unwrap();
    assert_eq!(info["rows"].as_u64(), Some(slice.rows()), "{info}");
}

/// Counts by (layer, expert), position by position: the trace has no prompt rows, so position p of a prompt takes decode
/// row (offset + p) mod n, position j of the output (offset + j) mod n; the last output token is never computed.
fn recount(trace: &Trace, run: &Run) -> Vec<u64> {
    let t = run.table("requests.csv");
    let column = |name: &str| t.column::<usize>(name);
    assert!(column("preemptions").iter().all(|n| *n == 0), "recomputed positions would come on top");
    let (prompts, outputs) = (column("prompt_tokens"), column("output_tokens"));
    let (ids, offsets) = (column("sequence"), column("offset"));
    let (width, k, experts) = (trace.width(), trace.k(), trace.experts());
    let mut counts = vec![0; trace.layers() * experts];
    for r in 0..ids.len() {
        let i = (0..trace.sequences()).find(|i| trace.sequence(*i).id as usize == ids[r]).unwrap();
        let rows = trace.sequence(i).decode;
        let n = rows.len() / width;
        for position in 0..prompts[r] + outputs[r] - 1 {
            let within = if position < prompts[r] { position } else { position - prompts[r] };
            let row = (offsets[r] + within) % n;
            for (at, id) in rows[row * width..][..width].iter().enumerate() {
                counts[at / k * experts + usize::from(*id)] += 1;
            }
        }
    }
    counts
}

#[test]
fn experts_are_those_of_the_trace() {
    let p = Place::new();
    let (Some(trace), Some(log)) = (imported(&p), data("arrivals/AzureLLMInferenceTrace_conv.csv")) else { return };
    let arrivals = |limit: u32| {
        format!("workload.arrivals={{ kind = \"azure\", path = {:?}, limit = {limit} }}", log.to_str().unwrap())
    };
    let routing = "workload.routing={ kind = \"trace\", path = \"gpt.arrow\" }";
    for (name, limit, more) in [
        ("first", 300, &[][..]),
        // Twice round the sequences: bindings with offsets.
        ("staggered", 760, &["workload.arrivals.rate_scale=4.0", "output.iterations=false"][..]),
        ("split", 60, &["deployment.attention_tp=4", "policy.placement=round-robin", "seed=3"][..]),
    ] {
        let run = p.run("quickstart", name, &[&[arrivals(limit).as_str(), routing], more].concat());
        let experts = run.table("experts.csv").column::<u64>("assignments");
        let counted = recount(&trace, &run);
        assert!(counted == experts, "{name}: experts.csv is not what the trace selected");
        let offsets = run.table("requests.csv").column::<u32>("offset");
        assert_eq!(offsets.len(), limit as usize);
        assert_eq!(offsets.iter().any(|o| *o > 0), limit > 703);
    }
}

#[test]
fn a_trace_cut_and_merged_and_through_every_form_keeps_its_rows() {
    let p = Place::new();
    let Some(trace) = imported(&p) else { return };
    let hash = |name: &str| Trace::open(&p.path(name)).unwrap().hash().to_string();
    p.ok(&["trace", "slice", "gpt.arrow", "--first", "7", "--out", "a.arrow"]);
    p.ok(&["trace", "slice", "gpt.arrow", "--sequences", "7..20", "--out", "b.arrow"]);
    let said = p.ok(&["trace", "merge", "a.arrow", "b.arrow", "--out", "ab.arrow"]);
    assert!(said.starts_with("ab.arrow: 20 sequences renumbered 0 to 19, "), "{said}");
    let first: Vec<_> = (0..20).map(|i| trace.sequence(i).to_owned()).collect();
    let whole = Trace::from_sequences(trace.meta().clone(), first).unwrap();
    assert_eq!(hash("ab.arrow"), whole.hash());
    for format in ["json-lines", "csv"] {
        let said = p.ok(&["trace", "export", "ab.arrow", "--format", format, "--force", "--out", "text"]);
        assert!(said.contains("left out: ") && said.contains("gate weights"), "{said}");
        p.ok(&["trace", "import", "text", "--force", "--out", "back.arrow", "--experts", "32"]);
        assert_eq!(hash("back.arrow"), whole.hash(), "{format}");
    }
    for wrong in [
        &["trace", "export", "ab.arrow", "--format", "jsonl", "--out", "x"][..],
        &["trace", "slice", "ab.arrow", "--out", "x"],
        &["trace", "slice", "ab.arrow", "--first", "1", "--sequences", "0..1", "--out", "x"],
        &["trace", "slice", "ab.arrow", "--sequences", "3..1", "--out", "x"],
        &["trace", "slice", "ab.arrow", "--sequences", "20..30", "--out", "x"],
        &["trace", "merge", "ab.arrow", "absent.arrow", "--out", "x"],
    ] {
        let out = p.command(wrong).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            out.status.code() == Some(2) && said.lines().count() == 1 && !p.path("x").exists(),
            "{wrong:?}: {said}"
        );
    }
}

/// `workload.arrivals` for a log in the data, whole but for `more`.
fn log(kind: &str, path: &std::path::Path, more: &str) -> String {
    format!("workload.arrivals={{ kind = \"{kind}\", path = {:?}, {more} }}", path.to_str().unwrap())
}

#[test]
fn mooncakes_requests_come_inside_their_ticks() {
    let p = Place::new();
    let Some(path) = data("arrivals/mooncake_conversation_trace.jsonl.gz") else { return };
    let fast = ["workload.arrivals.limit=20", "output.iterations=false", "fidelity.execution=phase"];
    let spread =
        p.run("quickstart", "spread", &[&[log("mooncake", &path, "rate_scale = 0.5").as_str()], &fast[..]].concat());
    let s = spread.summary();
    assert_eq!(crate::common::number(&s, "requests.finished"), 20.0);
    let notes = s["notes"].to_string();
    assert!(
        notes.contains("no prefix cache uses them yet") && notes.contains("requests share their time stamp"),
        "{notes}"
    );
    assert!(s["cache"].is_null());
    let arrivals = |run: &Run| {
        let mut t = run.table("requests.csv").column::<f64>("arrival_s");
        t.sort_by(f64::total_cmp);
        t
    };
    let spread = arrivals(&spread);
    let together = log("mooncake", &path, "rate_scale = 0.5, spread = false");
    let together = arrivals(&p.run("quickstart", "together", &[&[together.as_str()], &fast[..]].concat()));
    // Ticks of 3 s are 6 s at half the rate.
    assert!(spread.iter().zip(&together).all(|(s, t)| (t - 1e-9..t + 6.0).contains(s)), "{spread:?} {together:?}");
    assert!(together.iter().all(|t| t % 6.0 < 0.01 || t % 6.0 > 5.99), "{together:?}");
    let notes = p.run("quickstart", "again", &[]).summary()["notes"].to_string();
    assert!(!notes.contains("time stamp") && !notes.contains("hash_ids"), "{notes}");
    // The run directory names the log and repeats the run.
    let text = std::fs::read_to_string(p.path("spread/experiment.toml")).unwrap();
    assert!(text.contains("# Arrivals: ") && text.contains("mooncake"), "{text}");
}
