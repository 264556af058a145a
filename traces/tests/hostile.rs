//! Does every reader refuse every bad file with one message that names the file, the place and the cure?

use arrow_array::{ArrayRef, FixedSizeListArray, RecordBatch, UInt8Array, UInt16Array, UInt32Array};
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
        assert!(text.len() < 800, "too long: {text}");
        assert_eq!(e.exit_code(), 2, "{text}");
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

/// Three rows of a trace, given the small columns.
fn rows(sequence: Vec<Option<u32>>, phase: [u8; 3], position: [u32; 3], ids: [u16; 6]) -> Vec<u8> {
    let item = Arc::new(Field::new("item", arrow_schema::DataType::UInt16, true));
    let experts = FixedSizeListArray::try_new(item, 2, Arc::new(UInt16Array::from(ids.to_vec())), None).unwrap();
    arrow(vec![
        ("sequence", Arc::new(UInt32Array::from(sequence))),
        ("phase", Arc::new(UInt8Array::from(phase.to_vec()))),
        ("position", Arc::new(UInt32Array::from(position.to_vec()))),
        ("experts", Arc::new(experts)),
    ])
}

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
    bad.case("nulls.arrow", rows(vec![Some(1), None, Some(2)], [1; 3], [0, 1, 2], [0; 6]), "nulls", open);
    bad.case("order.arrow", rows(some([2, 1, 1]), [1; 3], [0, 0, 1], [0; 6]), "follows sequence 2", open);
    bad.case("again.arrow", rows(some([1, 2, 1]), [1; 3], [0; 3], [0; 6]), "row 2", open);
    bad.case("phase.arrow", rows(some([1, 1, 1]), [1, 0, 1], [0, 1, 2], [0; 6]), "phase 0 follows", open);
    bad.case("gap.arrow", rows(some([1, 1, 1]), [1; 3], [0, 1, 3], [0; 6]), "position 3 follows 1", open);
    bad.case("prompt.arrow", rows(some([1, 1, 1]), [0, 0, 1], [0, 1, 1], [0; 6]), "inside the prompt", open);
    bad.case(
        "id.arrow",
        rows(some([1, 1, 1]), [1; 3], [0, 1, 2], [0, 0, 0, 9, 0, 0]),
        "position 1, layer 0: expert 9",
        open,
    );
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
    let good = array("(3, 2, 2)", &[1; 12]);
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
    bad.case("names.npz", npz("other.txt", b"x"), "three or four dimensions", read);
    // Ten million zeros deflate to ten thousand bytes.
    let zeros = array("(2500000, 2, 2)", &vec![0; 10_000_000]);
    let empty = array("(18446744073709551615, 0, 2, 2)", &[]);
    bad.case("empty4.npy", empty, "no rows", read);
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
fn json_line_files() {
    let mut bad = Bad::new();
    let read = import("json-lines");
    bad.common(".jsonl", read);
    let good = r#"{"experts": [[1, 2], [3, -1]], "n_layers": 2, "top_k": 1, "n_experts": 4}"#;
    fs::write(bad.path("good.jsonl"), good).unwrap();
    read(&bad.path("good.jsonl")).unwrap();
    bad.case("deep.jsonl", format!("{{\"experts\": {}", "[".repeat(100_000)), "line 1, column", read);
    bad.case("nested.jsonl", format!("{{\"other\": {}", "{\"a\":".repeat(100_000)), "line 1, column", read);
    bad.case("truncated.jsonl", format!("{good}\n{}", &good[..good.len() - 9]), "line 2, column", read);
    let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    bad.case("noise.jsonl", &noise, "line 1: is not a JSON object", read);
    bad.case("noise2.jsonl", [b"{\"experts\": [[", &noise[..]].concat(), "line 1, column", read);
    // A line without end: sparse, so that it costs nothing here.
    let endless = fs::File::create(bad.path("endless.jsonl")).unwrap();
    (&endless).write_all(b"{").unwrap();
    endless.set_len(300 << 20).unwrap();
    bad.refused("endless.jsonl", "line 1: is longer than 256 MiB", read);
    fs::File::create(bad.path("zeros.jsonl")).unwrap().set_len(1 << 40).unwrap();
    bad.refused("zeros.jsonl", "line 1: is not a JSON object", read);
    for (name, line, word) in [
        ("list.jsonl", "[[1, 2]]", "line 2: is not a JSON object"),
        ("none.jsonl", r#"{"seq": 3}"#, "no `experts`"),
        ("both.jsonl", r#"{"experts": [[1, 2]], "decode": [[1, 2]]}"#, "beside"),
        ("twice.jsonl", r#"{"experts": [[1, 2]], "experts": [[1, 2]]}"#, "duplicate field"),
        ("nan.jsonl", r#"{"experts": [[1, 2], [1, NaN]]}"#, "token 1"),
        ("float.jsonl", r#"{"experts": [[1, 2], [1, 2.5]]}"#, "token 1"),
        ("text.jsonl", r#"{"experts": [["1", 2]]}"#, "token 0"),
        ("negative.jsonl", r#"{"experts": [[1, -2]]}"#, "token 0: -2 is not an expert id"),
        ("marker.jsonl", r#"{"experts": [[1, 65535]]}"#, "token 0: 65535 is not an expert id"),
        ("huge.jsonl", r#"{"experts": [[1, 99999999999999999999]]}"#, "token 0"),
        ("range.jsonl", r#"{"experts": [[1, 2], [1, 4]]}"#, "line 2, sequence 1, position 1, layer 1: expert 4 of 4"),
        ("width.jsonl", r#"{"experts": [[1, 2], [1]]}"#, "token 1: has 1 experts, token 0 has 2"),
        ("k.jsonl", r#"{"experts": [[[1], [2]], [[1, 2], [3]]]}"#, "token 1: list 1 has 1 experts, the first has 2"),
        ("mixed.jsonl", r#"{"experts": [[1, [2]]]}"#, "token 0: has experts beside lists"),
        ("lists.jsonl", r#"{"experts": [[[[1]], [2]]]}"#, "token 0: has lists in a list"),
        ("other.jsonl", r#"{"experts": [[1, 2, 3]]}"#, "has experts a token = 3; the trace has 2"),
        ("layers.jsonl", r#"{"experts": [[1, 2]], "n_layers": 1}"#, "has n_layers = 1; the trace has 2"),
        ("n_experts.jsonl", r#"{"experts": [[1, 2]], "n_experts": 8}"#, "has n_experts = 8; the trace has 4"),
        ("tokens.jsonl", r#"{"experts": [[1, 2]], "n_tokens": 2}"#, "says n_tokens = 2 and has 1"),
        ("phase.jsonl", r#"{"experts": [[1, 2]], "phase": "train"}"#, "unknown variant `train`"),
        ("order.jsonl", r#"{"seq": 0, "experts": [[1, 2]]}"#, "sequence 0 follows sequence 0"),
        ("seq.jsonl", r#"{"seq": 4294967296, "experts": [[1, 2]]}"#, "line 2, column"),
        ("first.jsonl", r#"{"first_pos": 4294967295, "experts": [[1, 2]]}"#, "positions exceed"),
        ("inside.jsonl", r#"{"prefill": [[1, 2]], "decode_first_pos": 0, "decode": [[1, 2]]}"#, "inside the prompt"),
    ] {
        bad.case(name, format!("{good}\n{line}"), word, |p| {
            let out = p.with_extension("arrow");
            let e = moesim_traces::import::import(p, Some("json-lines"), &with(4), &out).map(|_| ());
            assert!(!out.exists(), "no partial output");
            e
        });
    }
    let alone = |text: &str| text.to_string();
    bad.case("shape.jsonl", alone(r#"{"experts": [[1, 2, 3]], "n_layers": 2}"#), "whole rows of 2 layers", read);
    bad.case("zero.jsonl", alone(r#"{"experts": [[1, 2, 3]], "n_layers": 0}"#), "whole rows of 0 layers", read);
    bad.case("top_k.jsonl", alone(r#"{"experts": [[1, 2, 3]], "top_k": 0}"#), "does not say how", read);
    bad.case("silent.jsonl", alone(r#"{"experts": [[1, 2, 3]]}"#), "does not say how", read);
    bad.case("void.jsonl", alone(r#"{"experts": [[], []], "n_layers": 2}"#), "k = 0", read);
    bad.case("says.jsonl", alone(r#"{"experts": [[1]], "top_k": 1, "n_experts": 8}"#), "has 8 experts", read);
    bad.case("empty2.jsonl", alone("{\"experts\": []}\n"), "no rows", read);
    assert!(bad.cases >= 40, "{}", bad.cases);
}

#[test]
fn csv_row_files() {
    let mut bad = Bad::new();
    let read = import("csv");
    bad.common(".csv", read);
    const HEADER: &str = "sequence,phase,position,layer,expert0,expert1\n";
    let good = "0,decode,5,1,0,1\n0,decode,5,2,3,-1\n";
    for (name, rows, word) in [
        ("id.csv", "0,decode,6,1,0,4\n0,decode,6,2,0,1\n", "sequence 0, position 6, layer 1: expert 4 of 4"),
        ("negative.csv", "0,decode,6,1,0,-2", "line 4, expert1: \"-2\" is not an expert id"),
        ("nan.csv", "0,decode,6,1,NaN,1", "line 4, expert0: \"NaN\""),
        ("float.csv", "0,decode,6,1,1.0,1", "line 4, expert0: \"1.0\""),
        ("marker.csv", "0,decode,6,1,65535,1", "line 4, expert0: \"65535\""),
        ("huge.csv", "0,decode,6,1,99999999999999999999,1", "line 4, expert0"),
        ("position.csv", "0,decode,-6,1,0,1", "line 4, position: \"-6\""),
        ("sequence.csv", "4294967296,decode,6,1,0,1", "line 4, sequence: \"4294967296\""),
        ("layer.csv", "0,decode,6,,0,1", "line 4, layer: \"\""),
        ("phase.csv", "0,train,6,1,0,1", "line 4, phase: \"train\""),
        ("fields.csv", "0,decode,6,1,0", "line 4: has 5 fields, not 6"),
        ("missing.csv", "0,decode,6,1,0,1\n0,decode,7,1,0,1\n", "line 5: position 6 of sequence 0 lacks layer 2"),
        ("skipped.csv", "0,decode,6,2,0,1", "line 4: position 6 of sequence 0 lacks layer 1"),
        ("end.csv", "0,decode,6,1,0,1\n", "end: position 6 of sequence 0 lacks layer 2"),
        ("unknown.csv", "0,decode,6,1,0,1\n0,decode,6,3,0,1\n", "line 5: layer 3 is not one of the first token's"),
        ("twice.csv", "0,decode,6,1,0,1\n0,decode,6,1,0,1\n", "line 5: layer 1 follows layer 1"),
        ("more.csv", "0,decode,5,2,0,1\n", "line 4: layer 2 follows layer 2"),
        ("back.csv", "0,decode,4,1,0,1", "line 4: position 4 follows position 5"),
        ("gap.csv", "0,decode,7,1,0,1", "line 4: position 7 follows position 5"),
        ("prompt.csv", "0,prefill,6,1,0,1", "line 4: position 6 follows position 5"),
        ("order.csv", "1,decode,0,1,0,1\n1,decode,0,2,0,1\n0,decode,6,1,0,1", "line 6: sequence 0 follows sequence 1"),
        ("last.csv", "1,decode,4294967295,1,0,1\n1,decode,4294967295,2,0,1\n", "positions exceed"),
    ] {
        bad.case(name, format!("{HEADER}{good}{rows}"), word, |p| {
            let out = p.with_extension("arrow");
            let e = moesim_traces::import::import(p, Some("csv"), &with(4), &out).map(|_| ());
            assert!(!out.exists(), "no partial output");
            e
        });
    }
    for (name, header, word) in [
        ("column.csv", "sequence,position,layer", "line 1: lacks the column `expert0`"),
        ("columns.csv", "sequence,layer,expert0", "line 1: lacks the column `position`"),
        ("hole.csv", "sequence,position,layer,expert0,expert2", "line 1: has more columns of experts"),
        ("same.csv", "sequence,position,layer,expert0,expert0", "line 1: has the column `expert0` twice"),
        ("forms.csv", "sequence,position,layer,expert0,expert_0", "line 1: has more columns of experts"),
        ("only.csv", HEADER, "no rows"),
    ] {
        bad.case(name, header, word, read);
    }
    bad.case("line.csv", [HEADER.as_bytes(), &vec![b'1'; 10 << 20]].concat(), "longer than 64 KiB", read);
    bad.case("noise.csv", [HEADER.as_bytes(), b"\xff\xfe,\x00,\x01,,,\n"].concat(), "line 2", read);
    bad.case("binary.csv", [0x80u8; 300], "UTF-8", read);
    let layers: String = (0..4200).map(|l| format!("0,decode,0,{l},0,1\n")).collect();
    bad.case("layers.csv", format!("{HEADER}{layers}"), "line 4098: the first token has more than 4096", read);
    let k = |p: &Path| load(p, Some("csv"), &Options { k: Some(3), ..with(4) }).map(|_| ());
    bad.case("k.csv", format!("{HEADER}{good}"), "has 2 columns of experts, not 3", k);
    let silent = |p: &Path| load(p, Some("csv"), &Options::default()).map(|_| ());
    bad.case("silent.csv", format!("{HEADER}{good}"), "--experts", silent);
    assert!(bad.cases >= 35, "{}", bad.cases);
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
        ("far.csv", "1e30,2,3", "213 days"),
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
    bad.case("date.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-02-30 00:00:00,1,1\n", "2023-02-30", azure);
    let century = "TIMESTAMP,ContextTokens,GeneratedTokens\n1900-01-01 00:00:00,1,1\n2000-01-01 00:00:00,1,1\n";
    bad.case("century.csv", century, "line 3, TIMESTAMP", azure);
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
