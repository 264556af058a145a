use super::*;
use crate::stats::info;
use std::fs;

/// The real data, or `None` with a line that says what is skipped.
fn data(name: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")).join(name);
    let there = path.exists();
    if !there {
        println!("skipped: {} is absent", path.display());
    }
    there.then_some(path)
}

fn gpt_oss() -> Options {
    let licence = Some("Apache-2.0".to_string());
    Options { model: Some("gpt-oss-20b".into()), licence, ..Default::default() }
}

/// A version 1.0 array file.
fn npy(descr: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), body].concat()
}

#[test]
fn the_published_trace_has_its_measured_figures() {
    let Some(source) = data("routing/gpt-oss-20b") else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("t.arrow");
    let summary = import(&source, None, &gpt_oss(), &out).unwrap();
    assert_eq!((summary.rows, summary.sequences), (215_438, 703));
    let trace = Trace::open(&out).unwrap();
    let i = info(&trace).unwrap();
    assert_eq!(i.imbalance.map(|x| (x * 10.0).round() / 10.0), [2.0, 2.8, 3.8]);
    assert_eq!((i.next_token_overlap.unwrap() * 100.0).round(), 44.0);
    assert_eq!((i.prefill_rows, i.layers, i.k, i.experts), (0, 24, 4, 32));
    let s = trace.sequence(0);
    assert_eq!((s.decode_first_position, &s.decode[..4]), (101, &[31, 21, 22, 6][..]));
    assert_eq!(load(&source, Some("npz"), &gpt_oss()).unwrap().hash(), trace.hash());

    // A part of it through JSON and back.
    let part: Vec<_> = (0..5).map(|i| trace.sequence(i).to_owned()).collect();
    let part = Trace::from_sequences(trace.meta().clone(), part).unwrap();
    export_wafer_json(&part, &dir.path().join("json")).unwrap();
    let back = load(&dir.path().join("json"), None, &gpt_oss()).unwrap();
    assert!((0..5).all(|i| back.sequence(i).decode == part.sequence(i).decode));
}

#[test]
fn every_element_type_and_missing_experts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ids.npy");
    let options = Options { experts: Some(4), phase: Phase::Prefill, ..Default::default() };
    let values = [3i64, -1, 0, 1, 2, -1];
    for (descr, bytes) in [("|i1", 1), ("<i2", 2), ("<i4", 4), ("<i8", 8), ("<u2", 2)] {
        let body: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()[..bytes].to_vec()).collect();
        fs::write(&path, npy(descr, "(3, 1, 2)", &body)).unwrap();
        let t = load(&path, None, &options).unwrap();
        assert_eq!(t.sequence(0).prefill, [3, 0xFFFF, 0, 1, 2, 0xFFFF], "{descr}");
    }
    // An index cuts it, out of a larger array.
    fs::write(dir.path().join("index.json"), r#"[{"seq": 5, "offset": 1, "n_tokens": 2, "first_pos": 9, "x": [1]}]"#)
        .unwrap();
    let t = load(dir.path(), None, &options).unwrap();
    let s = t.sequence(0);
    assert_eq!((s.id, s.first_position, s.prefill), (5, 9, &[0, 1, 2, 0xFFFF][..]));
}

#[test]
fn json_round_trip_is_exact() {
    let m = || "m".to_string();
    let meta = Meta { model: m(), layer_numbers: vec![1, 3], experts: 9, k: 2, source: m(), licence: m() };
    let sequence = |id: u32| OwnedSequence {
        id,
        prefill: (0..4 * id).map(|x| (x % 9) as u16).collect(),
        // Missing at the end of a row, in its middle, and all of it.
        decode: vec![1, 0xFFFF, 0xFFFF, 2, 0xFFFF, 0xFFFF, 8, 7],
        decode_first_position: id,
        ..Default::default()
    };
    let trace = Trace::from_sequences(meta, (0..3).map(sequence).collect()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    export_wafer_json(&trace, &dir.path().join("out")).unwrap();
    let text = fs::read_to_string(dir.path().join("out/00000001.json")).unwrap();
    assert!(
        text.starts_with("[{\"0\":null,\"1\":[[0,1]],\"2\":null,\"3\":[[2,3]]},\n{\"0\":null,\"1\":[[1]],"),
        "{text}"
    );
    let options =
        Options { model: Some(m()), experts: Some(9), source: Some(m()), licence: Some(m()), ..Default::default() };
    let back = load(&dir.path().join("out"), None, &options).unwrap();
    assert_eq!((back.meta(), back.hash()), (trace.meta(), trace.hash()));
}

#[test]
fn the_example_of_the_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.json");
    fs::write(&path, r#"[{"0": null, "1": [[106], [89]]}, {"1": [[7]], "0": null}]"#).unwrap();
    let options = Options { experts: Some(128), ..Default::default() };
    let t = load(&path, None, &options).unwrap();
    let s = t.sequence(0);
    assert_eq!((s.prefill, s.decode, s.decode_first_position), (&[106, 89][..], &[7][..], 2));
    assert_eq!((t.meta().layer_numbers.as_slice(), t.k()), (&[1][..], 1));
}

#[test]
fn a_model_must_agree() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ids.npy");
    fs::write(&path, npy("|u1", "(1, 24, 2)", &[0; 48])).unwrap();
    let e = load(&path, None, &gpt_oss()).unwrap_err().to_string();
    assert!(e.contains("experts a token: has 2 experts a token; gpt-oss-20b has 4; "), "{e}");
    let e = load(&path, None, &Options { model: Some("gpt-oss-20".into()), ..Default::default() }).unwrap_err();
    assert!(e.cure.contains("did you mean \"gpt-oss-20b\"?"), "{e}");
    assert!(load(&path, Some("npzz"), &gpt_oss()).unwrap_err().cure.contains("npz"));
}
