//! Does every reader refuse every bad file with one message that names the file, the place and the cure?

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, UInt8Array, UInt16Array, UInt32Array};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{Field, Schema};
use moesim_core::{Diag, Result};
use moesim_traces::import::{Options, importers, load};
use moesim_traces::trace::Writer;
use moesim_traces::{ArrivalSpec, Arrivals, Meta, Model, OwnedSequence, Trace};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod configurations;
mod kinds;
mod lengths;
mod rows;

/// A folder of bad files and what to expect of each.
struct Bad {
    dir: tempfile::TempDir,
    cases: usize,
}

impl Bad {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), cases: 0 }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// Writes a file and requires that `read` refuses it in words that contain `word`.
    fn case(&mut self, name: &str, bytes: impl AsRef<[u8]>, word: &str, read: impl Fn(&Path) -> Result<()>) {
        fs::write(self.path(name), bytes).unwrap();
        self.refused(name, word, read);
    }
    fn refused(&mut self, name: &str, word: &str, read: impl Fn(&Path) -> Result<()>) {
        let Err(e) = read(&self.path(name)) else { panic!("{name} is accepted") };
        let text = e.to_string();
        assert!(text.contains(name), "no file name: {text}");
        assert!(text.contains(word), "{name}: no \"{word}\": {text}");
        assert!(
            e.place.is_some() || ["folder", "file", "format", "empty", "read"].iter().any(|w| text.contains(w)),
            "no place: {text}"
        );
        assert!(!e.cure.is_empty(), "no cure: {text}");
        assert!(text.len() < 800 && !text.contains(char::is_control), "too long, or not a line: {text}");
        assert_eq!(e.exit_code(), 2, "{text}");
        // To be read: cargo test --test hostile -- --nocapture
        println!("{}", text.replace(&*self.dir.path().to_string_lossy(), "."));
        self.cases += 1;
    }
    /// The same for what is a folder where a file should be, does not exist, or is empty.
    fn common(&mut self, suffix: &str, read: impl Fn(&Path) -> Result<()> + Copy) {
        let name = format!("folder{suffix}");
        fs::create_dir(self.path(&name)).unwrap();
        self.refused(&name, &name, read);
        self.refused(&format!("absent{suffix}"), "no such file", read);
        self.case(&format!("empty{suffix}"), "", "", read);
    }
}

fn meta() -> Meta {
    let text = |t: &str| t.to_string();
    Meta {
        model: text("m"),
        layer_numbers: vec![1001, 1002],
        experts: 7777,
        k: 1,
        source: text("s"),
        licence: text("l"),
    }
}

/// Opens a trace and touches all of it.
fn open(path: &Path) -> Result<()> {
    let trace = Trace::open(path)?;
    (0..trace.sequences()).try_for_each(|i| trace.check_sequence(i))?;
    trace.verify()
}

/// An Arrow file with these columns under a good trace's metadata.
fn arrow(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let fields: Vec<Field> = columns.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
    let metadata = [
        ("moesim.format", "1"),
        ("moesim.model", "m"),
        ("moesim.layers", "0"),
        ("moesim.experts", "9"),
        ("moesim.k", "2"),
        ("moesim.source", "s"),
        ("moesim.licence", "l"),
    ];
    let metadata: BTreeMap<String, String> = metadata.map(|(k, v)| (k.into(), v.into())).into();
    let schema = Arc::new(Schema::new(fields).with_metadata(metadata));
    let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|c| c.1).collect()).unwrap();
    let mut file = FileWriter::try_new(Vec::new(), &schema).unwrap();
    file.write(&batch).unwrap();
    file.finish().unwrap();
    file.into_inner().unwrap()
}

/// A column of lists of two.
fn pairs(values: ArrayRef) -> ArrayRef {
    let item = Arc::new(Field::new("item", values.data_type().clone(), true));
    Arc::new(FixedSizeListArray::try_new(item, 2, values, None).unwrap())
}

/// The columns of three rows of a trace.
fn columns(
    sequence: Vec<Option<u32>>,
    phase: [u8; 3],
    position: [u32; 3],
    ids: [u16; 6],
) -> Vec<(&'static str, ArrayRef)> {
    vec![
        ("sequence", Arc::new(UInt32Array::from(sequence))),
        ("phase", Arc::new(UInt8Array::from(phase.to_vec()))),
        ("position", Arc::new(UInt32Array::from(position.to_vec()))),
        ("experts", pairs(Arc::new(UInt16Array::from(ids.to_vec())))),
    ]
}

fn rows(sequence: Vec<Option<u32>>, phase: [u8; 3], position: [u32; 3], ids: [u16; 6]) -> Vec<u8> {
    arrow(columns(sequence, phase, position, ids))
}

/// Good rows with these gate weights.
fn weighted(weights: Vec<f32>) -> Vec<u8> {
    let mut columns = columns(vec![Some(1); 3], [1; 3], [0, 1, 2], [0, 1, 2, 3, 4, 5]);
    columns.push(("weights", pairs(Arc::new(Float32Array::from(weights)))));
    arrow(columns)
}

/// Ids of three good rows.
const ONES: [u16; 6] = [0, 1, 0, 1, 0, 1];

#[test]
fn trace_files() {
    let mut bad = Bad::new();
    bad.common(".arrow", open);
    let good_path = bad.path("good.arrow");
    let mut writer = Writer::create(&good_path, meta()).unwrap();
    for id in 0..3 {
        writer.push_sequence(&OwnedSequence { id, decode: vec![5000; 20], ..Default::default() }).unwrap();
    }
    writer.finish().unwrap();
    open(&good_path).unwrap();
    let good = fs::read(&good_path).unwrap();
    let replaced = |from: &str, to: &str| {
        let mut bytes = good.clone();
        let hits: Vec<usize> =
            (0..bytes.len() - from.len()).filter(|i| bytes[*i..].starts_with(from.as_bytes())).collect();
        assert!(!hits.is_empty(), "{from}");
        hits.into_iter().for_each(|i| bytes[i..i + to.len()].copy_from_slice(to.as_bytes()));
        bytes
    };
    bad.case("text.arrow", "sequence,phase,position\n1,2,3\n4,5,6\n", "not an Arrow IPC file", open);
    bad.case("truncated.arrow", &good[..good.len() - 100], "truncated", open);
    let footer = [&good[..good.len() - 10], &i32::MAX.to_le_bytes(), b"ARROW1"].concat();
    bad.case("footer.arrow", footer, "footer of 2147483647 bytes", open);
    let cut = [&good[..200], &good[good.len() - 1200..]].concat();
    bad.case("cut.arrow", cut, "record batch 0", open);
    bad.case("experts.arrow", replaced("7777", "0004"), "sequence 0, position 0, layer 1001: expert 5000 of 4", open);
    bad.case("count.arrow", replaced("7777", "0000"), "0 experts", open);
    bad.case("number.arrow", replaced("7777", "7e99"), "not a number", open);
    bad.case("layers.arrow", replaced("1001,1002", "1002,1001"), "layer 1001 comes after layer 1002", open);
    bad.case("width.arrow", replaced("1001,1002", "000001002"), "FixedSizeList<u16>[1]", open);
    bad.case("format.arrow", replaced("moesim.format", "moesim.forget"), "moesim.format", open);
    let mut rot = good.clone();
    let at = rot.windows(2).position(|w| w == 5000u16.to_le_bytes()).unwrap();
    rot[at..at + 2].copy_from_slice(&5001u16.to_le_bytes());
    bad.case("rot.arrow", rot, "hash", open);

    let some = |ids: [u32; 3]| ids.map(Some).to_vec();
    fs::write(bad.path("fine.arrow"), rows(some([1, 1, 2]), [0, 1, 1], [0, 1, 0], [8, 0xFFFF, 1, 2, 3, 4])).unwrap();
    open(&bad.path("fine.arrow")).unwrap();
    bad.case("nulls.arrow", rows(vec![Some(1), None, Some(2)], [1; 3], [0, 1, 2], ONES), "nulls", open);
    bad.case("order.arrow", rows(some([2, 1, 1]), [1; 3], [0, 0, 1], ONES), "follows sequence 2", open);
    bad.case("again.arrow", rows(some([1, 2, 1]), [1; 3], [0; 3], ONES), "row 2", open);
    bad.case("phase.arrow", rows(some([1, 1, 1]), [1, 0, 1], [0, 1, 2], ONES), "phase 0 follows", open);
    bad.case("gap.arrow", rows(some([1, 1, 1]), [1; 3], [0, 1, 3], ONES), "position 3 follows 1", open);
    bad.case("prompt.arrow", rows(some([1, 1, 1]), [0, 0, 1], [0, 1, 1], ONES), "inside the prompt", open);
    bad.case(
        "id.arrow",
        rows(some([1, 1, 1]), [1; 3], [0, 1, 2], [0, 1, 0, 9, 0, 1]),
        "position 1, layer 0: expert 9",
        open,
    );
    bad.case(
        "twice.arrow",
        rows(some([1; 3]), [1; 3], [0, 1, 2], [0, 1, 2, 2, 3, 4]),
        "expert 2 is selected twice",
        open,
    );
    for (name, weight) in [("nan.arrow", f32::NAN), ("infinite.arrow", f32::NEG_INFINITY)] {
        let weighted = weighted(vec![0.5, 0.5, weight, 0.0, 1.0, 0.0]);
        bad.case(name, weighted, "position 1, layer 0: the gate weight", open);
    }
    let flat = arrow(vec![("sequence", Arc::new(UInt32Array::from(vec![1])))]);
    bad.case("columns.arrow", flat, "columns", open);
    assert!(bad.cases >= 20, "{}", bad.cases);
}

/// A version 1.0 array file.
fn npy(descr: &str, order: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), body].concat()
}

fn npz(name: &str, member: &[u8]) -> Vec<u8> {
    let mut z = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    z.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    z.write_all(member).unwrap();
    z.finish().unwrap().into_inner()
}

fn with(experts: u32) -> Options {
    Options { experts: Some(experts), ..Default::default() }
}

/// Reads one importer's file, of 4 experts unless it says otherwise.
fn import(format: &'static str) -> impl Fn(&Path) -> Result<()> + Copy {
    move |path| load(path, Some(format), &with(4)).map(|_| ())
}

#[test]
fn numpy_files() {
    let mut bad = Bad::new();
    let read = import("npz");
    bad.common(".npz", read);
    bad.common(".npy", read);
    let array = |shape: &str, body: &[u8]| npy("|u1", "False", shape, body);
    let good = array("(3, 2, 2)", &[1, 0].repeat(6));
    fs::write(bad.path("good.npz"), npz("expert_ids.npy", &good)).unwrap();
    read(&bad.path("good.npz")).unwrap();
    bad.case("text.npz", "PK, or so it says", "archive", read);
    let archive = npz("expert_ids.npy", &good);
    bad.case("truncated.npz", &archive[..archive.len() / 2], "archive", read);
    bad.case("truncated.npy", &good[..good.len() - 1], "shape", read);
    bad.case("longer.npy", [&good[..], &[0; 9]].concat(), "shape", read);
    bad.case("lies.npy", array("(3000000000, 2, 2)", &[1; 12]), "3000000000", read);
    bad.case("overflow.npy", array("(4294967296, 4294967296, 4)", &[1; 12]), "shape", read);
    bad.case("lies.npz", npz("a.npy", &array("(3000000000, 2, 2)", &[1; 12])), "3000000000", read);
    bad.case("flat.npy", array("(12,)", &[1; 12]), "[tokens, layers, k]", read);
    bad.case("shape.npy", array("(a, b)", &[1; 12]), "shape", read);
    bad.case("float.npy", npy("<f4", "False", "(1, 1, 1)", &[0; 4]), "<f4", read);
    bad.case("fortran.npy", npy("|u1", "True", "(1, 1, 1)", &[0; 1]), "Fortran", read);
    bad.case("big.npy", npy(">i4", "False", "(1, 1, 1)", &[0; 4]), ">i4", read);
    bad.case("header.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "4294967295", read);
    bad.case("ids.npy", npy("|i1", "False", "(1, 1, 2)", &[1, 0xFE]), "-2 is not an expert id", read);
    bad.case("beyond.npy", array("(1, 1, 2)", &[1, 4]), "position 0, layer 0: expert 4 of 4", read);
    let wide = npy("<i2", "False", "(0, 2, 900000000000000000, 4)", &[]);
    bad.case("wide.npy", wide, "900000000000000000 MoE layers", read);
    bad.case("control.npz", npz("a\u{1b}[2J\n.npy", b"x"), "three or four dimensions", read);
    bad.case("control.npy", npy("<\u{1}\n", "False", "(1, 1, 1)", &[0]), "<\\u{1}\\n", read);
    bad.case("twice.npy", array("(2, 1, 2)", &[0, 1, 3, 3]), "position 1, layer 0: expert 3 is selected twice", read);
    bad.case("names.npz", npz("other.txt", b"x"), "three or four dimensions", read);
    // Ten million zeros deflate to ten thousand bytes.
    let zeros = array("(2500000, 2, 2)", &vec![0; 10_000_000]);
    let empty = array("(18446744073709551615, 0, 2, 2)", &[]);
    bad.case("empty4.npy", empty, "no rows", read);
    bad.case("layers.npy", array("(0, 2, 4000000000, 4)", &[]), "4000000000 MoE layers are out of range", read);
    bad.case("cut4.npy", array("(2, 2, 2, 2)", &[1; 15]), "shape", read);
    bad.case("five.npy", array("(1, 1, 1, 1, 1)", &[1]), "[sequences, tokens, layers, k]", read);
    bad.case("bomb.npz", npz("expert_ids.npy", &zeros), "promises", read);
    // The directory promises fewer bytes than there are.
    let mut archive = npz("expert_ids.npy", &good);
    let directory = archive.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    archive[directory + 24..directory + 28].copy_from_slice(&5000u32.to_le_bytes());
    bad.case("size.npz", archive, "shape", read);
    let ids = array("(1, 1, 2)", &[1, 4]);
    fs::create_dir(bad.path("range")).unwrap();
    bad.case("range/x.npy", ids, "x.npy", read_range);
    fs::create_dir(bad.path("four")).unwrap();
    fs::write(bad.path("four/index.json"), "[]").unwrap();
    bad.case("four/x.npy", array("(1, 1, 1, 1)", &[1]), "index.json beside it", read);
    fs::create_dir(bad.path("index")).unwrap();
    fs::write(bad.path("index/x.npy"), &good).unwrap();
    for (text, word) in [
        (r#"[{"offset": 2, "n_tokens": 2}]"#, "entry 0"),
        (r#"[{"offset": 1, "n_tokens": 1}, {"offset": 0, "n_tokens": 1}]"#, "entry 1"),
        (r#"[{"offset": 18446744073709551615, "n_tokens": 18446744073709551615}]"#, "entry 0"),
        (r#"[{"offset": -1, "n_tokens": 2}]"#, "1:"),
        ("", "1:"),
        (&"[".repeat(10_000), "1:"),
    ] {
        bad.case("index/index.json", text, word, |p| read(p.parent().unwrap()));
    }
    assert!(bad.cases >= 25, "{}", bad.cases);
}

/// Ids at or above the number of experts come to light in the rows, not in the array.
fn read_range(path: &Path) -> Result<()> {
    let out = path.with_extension("arrow");
    let e = moesim_traces::import::import(path, None, &with(4), &out).map(|_| ());
    assert!(!out.exists(), "no partial output");
    assert!(e.as_ref().is_err_and(|d: &Diag| d.problem == "expert 4 of 4 does not exist"), "{e:?}");
    e
}

#[test]
fn request_files() {
    let mut bad = Bad::new();
    let read = import("wafer-json");
    bad.common(".json", read);
    let nested = format!("[{{\"0\": {}", "[".repeat(10_000));
    bad.case("nested.json", nested, "1:", read);
    bad.case("deep.json", "[".repeat(10_000), "1:", read);
    bad.case("key.json", format!("[{{\"0\": [[1]], \"x\": {}", "{\"a\":".repeat(10_000)), "layer number", read);
    for (name, text, word) in [
        ("text.json", "hello", "1:1"),
        ("none.json", "[]", "no steps"),
        ("object.json", "{\"0\": [[1]]}", "1:"),
        ("id.json", r#"[{"0": [[1], [4]]}]"#, "step 0, layer 0, token 1: expert 4 of 4"),
        ("negative.json", r#"[{"0": [[1]]}, {"0": [[-2]]}]"#, "step 1, layer 0, token 0: expert -2"),
        ("same.json", r#"[{"0": [[1, 2], [3, 3]]}]"#, "expert 3 is selected twice"),
        ("control.json", "[{\"0[\u{7f}\": [[1]]}]", "is not a layer number"),
        ("nan.json", r#"[{"0": [[NaN]]}]"#, "1:"),
        ("float.json", r#"[{"0": [[1.5]]}]"#, "1:"),
        ("huge.json", r#"[{"0": [[99999999999999999999]]}]"#, "1:"),
        ("layers.json", r#"[{"0": [[1]]}, {"1": [[1]]}]"#, "step 1: has MoE layers [1]"),
        ("dense.json", r#"[{"0": null}]"#, "0 MoE layers"),
        ("tokens.json", r#"[{"0": [[1]], "1": [[1], [2]]}]"#, "step 0, layer 1: has 2 tokens, not 1"),
        ("decode.json", r#"[{"0": [[1]]}, {"0": [[1], [2]]}]"#, "step 1, layer 0: has 2 tokens, not 1"),
        ("twice.json", r#"[{"0": [[1]], "0": [[1]]}]"#, "layer 0 is there twice"),
        ("k.json", r#"[{"0": [[0, 1, 2, 3, 0]]}]"#, "k = 5 of 4"),
    ] {
        bad.case(name, text, word, read);
    }
    fs::create_dir(bad.path("several")).unwrap();
    fs::write(bad.path("several/a.json"), r#"[{"0": null, "1": [[1]]}]"#).unwrap();
    bad.case("several/b.json", r#"[{"0": [[1]], "1": [[1]]}]"#, "b.json: step 0: has MoE layers [0, 1]", |p| {
        read(p.parent().unwrap())
    });
    bad.case("unknown.bin", "?", "--format", |p| load(p, None, &with(4)).map(|_| ()));
    bad.case("experts.json", r#"[{"0": [[1]]}]"#, "--experts", |p| load(p, None, &Options::default()).map(|_| ()));
    assert!(bad.cases >= 20 && importers().len() == 8, "{}", bad.cases);
}

#[test]
fn arrival_files() {
    let mut bad = Bad::new();
    fn drain(spec: &ArrivalSpec) -> Result<()> {
        match spec.open(1, Path::new(""))? {
            Arrivals::Open(mut r) | Arrivals::Closed { requests: mut r, .. } => r.try_for_each(|r| r.map(|_| ())),
            Arrivals::Sessions(mut s) => s.try_for_each(|s| s.map(|_| ())),
        }
    }
    let plain = |p: &Path| drain(&ArrivalSpec::Csv { path: p.into(), rate_scale: 1.0, limit: None });
    let azure = |p: &Path| drain(&ArrivalSpec::Azure { path: p.into(), rate_scale: 1.0, limit: None });
    bad.common(".csv", plain);
    for (name, rows, word) in [
        ("negative.csv", "-1,2,3", "line 2, arrived_at_s: \"-1\""),
        ("nan.csv", "0,1,1\nNaN,2,3", "line 3, arrived_at_s: \"NaN\""),
        ("infinite.csv", "inf,2,3", "\"inf\""),
        ("far.csv", "1e30,2,3", "\"1e30\" is not a time"),
        ("long.csv", "0,2,3\n2e8,2,3", "213 days"),
        ("quote.csv", &format!("0,\"2,3\n{}", "0,2,3\n".repeat(20_000)), "a quote is not closed"),
        ("order.csv", "5,1,1\n4,1,1", "line 3, arrived_at_s"),
        ("prompt.csv", "0,0,3", "line 2, prompt_tokens: \"0\""),
        ("output.csv", "0,3,0", "line 2, output_tokens: \"0\""),
        ("huge.csv", "0,99999999999,3", "16777216"),
        ("fields.csv", "0,3", "line 2: has 2 fields, not 3"),
        ("none.csv", "", "no requests"),
    ] {
        bad.case(name, format!("arrived_at_s,prompt_tokens,output_tokens\n{rows}"), word, plain);
    }
    bad.case("column.csv", "arrived_at_s,prompt_token,output_tokens\n", "`prompt_token`", plain);
    bad.case("bytes.csv", b"arrived_at_s,prompt_tokens,output_tokens\n0,\xff\xfe,1\n", "line 2", plain);
    bad.case("line.csv", vec![b'x'; 10 << 20], "longer than 64 KiB", plain);
    let chats = |p: &Path| {
        let (path, of_type) = (p.into(), None);
        drain(&ArrivalSpec::Bailian { path, rate_scale: 1.0, limit: None, spread: true, block_tokens: 16, of_type })
    };
    bad.common(".jsonl", chats);
    let chat = |rest: &str| format!("{{\"chat_id\": 1, \"timestamp\": 0.5, \"input_length\": 9{rest}\n");
    bad.case("hashes.jsonl", chat(", \"output_length\": 1, \"hash_ids\": [1, 2]}"), "2 hash_ids", chats);
    bad.case("lengths.jsonl", chat("}"), "missing field `output_length`", chats);
    bad.case("parquet.csv", "PAR1\0\0\0\0PAR1", "is a Parquet file", plain);
    bad.case("wide.csv", b"\xff\xfea\0", "is UTF-16 text", plain);
    bad.case("cut.csv", b"\x1f\x8b\x08", "ends early or is damaged", plain);
    bad.case("date.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-02-30 00:00:00,1,1\n", "2023-02-30", azure);
    let century = "TIMESTAMP,ContextTokens,GeneratedTokens\n1900-01-01 00:00:00,1,1\n2000-01-01 00:00:00,1,1\n";
    bad.case("century.csv", century, "line 3, time", azure);
    assert!(bad.cases >= 18, "{}", bad.cases);
}

#[test]
fn model_files() {
    let mut bad = Bad::new();
    let read = |p: &Path| Model::load(p.to_str().unwrap()).map(|_| ());
    bad.common(".toml", read);
    let base = "base = \"mixtral-8x7b\"\n";
    for (name, text, word) in [
        ("syntax.toml", "name = ".to_string(), "1:"),
        ("unknown.toml", "nmae = \"x\"".to_string(), "did you mean `name`?"),
        ("nested.toml", format!("{base}decoder.moe.experts_count = 3"), "unknown key `experts_count`"),
        ("base.toml", "base = \"mixtral\"".to_string(), "model preset"),
        ("loop.toml", "base = \"loop.toml\"".to_string(), "model preset"),
        ("k.toml", format!("{base}decoder.moe.top_k = 9"), "decoder.moe.top_k: 9"),
        ("layers.toml", format!("{base}decoder.layers = 4294967295"), "decoder.layers"),
        ("nan.toml", format!("{base}precision.kv = nan"), "precision.kv"),
        ("deep.toml", format!("a = {}", "[".repeat(10_000)), "1:"),
        ("huge.toml", "#".repeat(5 << 20), "4 MiB"),
    ] {
        bad.case(name, text, word, read);
    }
    bad.case("bytes.toml", b"name = \"\xff\xfe\"", "UTF-8", read);
    assert!(bad.cases >= 12, "{}", bad.cases);
}
