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

    // The sample of it in JSON lines.
    let sample = load(&source.join("sample_24seq.jsonl"), None, &Options::default()).unwrap();
    assert_eq!((sample.sequences(), sample.rows(), sample.experts()), (24, 7_458, 32));
    for i in 0..sample.sequences() {
        let s = sample.sequence(i);
        assert_eq!(s, trace.sequence(s.id as usize));
    }
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
fn arrays_of_several_sequences_end_where_the_padding_starts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ids.npy");
    // Three sequences of at most three tokens, two layers, k = 2: of two tokens (with a hole in the first), none, three.
    let values: [i16; 36] = [
        -1, -1, -1, -1, 1, 2, 3, 0, -1, -1, -1, -1, // padded
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, // empty
        0, 1, 2, 3, 3, -1, -1, -1, -1, -1, -1, 0, // full
    ];
    let body: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    fs::write(&path, npy("<i2", "(3, 3, 2, 2)", &body)).unwrap();
    let options = Options { experts: Some(4), ..Default::default() };
    let t = load(&path, None, &options).unwrap();
    let ids = |from: usize, to: usize| values[from..to].iter().map(|v| *v as u16).collect::<Vec<_>>();
    assert_eq!((t.sequences(), t.layers(), t.k()), (2, 2, 2));
    assert_eq!((t.sequence(0).id, t.sequence(0).decode), (0, &ids(0, 8)[..]));
    assert_eq!((t.sequence(1).id, t.sequence(1).decode), (2, &ids(24, 36)[..]));
    // The same as one sequence of [tokens, layers, k]: rows of -1 keep their positions.
    fs::write(&path, npy("<i2", "(9, 2, 2)", &body)).unwrap();
    let t = load(&path, None, &options).unwrap();
    assert_eq!((t.sequences(), t.sequence(0).decode), (1, &ids(0, 36)[..]));
    assert!(t.check_sequence(0).is_ok());
}

/// vLLM saves all layers of some models, and 0 for the dense ones.
#[test]
fn arrays_with_dense_layers_are_cut_to_the_models() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("routed_experts.npy");
    // DeepSeek-V3 has 3 dense layers before 58 of 256 experts, k = 8.
    let id = |token: usize, layer: usize, i: usize| ((token + layer * 8 + i) % 256) as i16 * i16::from(layer >= 3);
    let all = |from: usize| (0..2).flat_map(move |t| (from..61).flat_map(move |l| (0..8).map(move |i| id(t, l, i))));
    let body: Vec<u8> = all(0).flat_map(i16::to_le_bytes).collect();
    fs::write(&path, npy("<i2", "(2, 61, 8)", &body)).unwrap();
    let t = load(&path, None, &Options { model: Some("deepseek-v3".into()), ..Default::default() }).unwrap();
    assert_eq!((t.layers(), t.meta().layer_numbers[0], t.rows()), (58, 3, 2));
    assert!(t.sequence(0).decode.iter().map(|id| *id as i16).eq(all(3)));
}

/// What a text of one format is read as: (number, first position, prefill, decode first position, decode).
type Read = (u32, u32, Vec<u16>, u32, Vec<u16>);

fn read(name: &str, text: &str, options: &Options) -> (Meta, Vec<Read>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), text).unwrap();
    let t = load(&dir.path().join(name), None, options).unwrap();
    let one = |i: usize| {
        let s = t.sequence(i);
        (s.id, s.first_position, s.prefill.to_vec(), s.decode_first_position, s.decode.to_vec())
    };
    (t.meta().clone(), (0..t.sequences()).map(one).collect())
}

#[test]
fn forms_of_json_lines() {
    let options = Options { experts: Some(9), ..Default::default() };
    const M: u16 = 0xFFFF;
    // Nested and flat, null and -1, a phase of its own, both phases, an empty sequence, no numbers, blank lines.
    let text = r#"{"experts": [[[1, 2], [3, null]], [[-1, null], [8, 0]]], "other": {"a": [1, {}]}}

        {"seq": 5, "experts": [[1, 2, 3, 4]], "phase": "prefill", "first_pos": 7, "n_layers": 2}
        {"seq": 6, "experts": [], "n_tokens": 0}
        {"prefill": [[1, 2, 3, 4], [1, 2, 3, 4]], "decode": [[5, 6, 7, 8]], "n_tokens": 3, "first_pos": 10}
        {"decode": [[5, 6, 7, 8]], "decode_first_pos": 3}"#;
    let (meta, list) = read("x.txt", text, &options);
    assert_eq!((meta.layer_numbers.len(), meta.k, meta.experts), (2, 2, 9));
    assert_eq!(
        list,
        [
            (0, 0, vec![], 0, vec![1, 2, 3, M, M, M, 8, 0]),
            (5, 7, vec![1, 2, 3, 4], 8, vec![]),
            (6, 10, vec![1, 2, 3, 4, 1, 2, 3, 4], 12, vec![5, 6, 7, 8]),
            (7, 3, vec![], 3, vec![5, 6, 7, 8]),
        ]
    );
    // The source describes itself; the options name it otherwise.
    let text = r#"{"experts": [[1, 2]], "top_k": 1, "n_experts": 3, "model": "a", "source": "b", "licence": "c"}"#;
    let (meta, _) = read("x.jsonl", text, &Options { licence: Some("d".into()), ..Default::default() });
    assert_eq!((&*meta.model, &*meta.source, &*meta.licence, meta.experts), ("a", "b", "d", 3));
    // k of a flat row by the model.
    let row = vec!["28,31,30,29"; 24].join(",");
    let (meta, _) = read("x.jsonl", &format!("{{\"experts\": [[{row}]]}}"), &gpt_oss());
    assert_eq!((&*meta.model, meta.k, meta.experts), ("gpt-oss-20b", 4, 32));
}

#[test]
fn forms_of_csv() {
    let options = Options { experts: Some(9), phase: Phase::Prefill, ..Default::default() };
    let text = "\u{feff}layer,text,sequence, token ,expert_1,expert_0\r\n1,a,3,8,2,1\r\n5,b,3,8,4,3\r\n1,c,3,9,-1,\r\n\
        5,d,3,9, 0 ,8\r\n1,e,4,0,2,1\r\n5,,4,0,4,3";
    let (meta, list) = read("x.csv", text, &options);
    assert_eq!((&meta.layer_numbers[..], meta.k, meta.experts), (&[1, 5][..], 2, 9));
    let first = (3, 8, vec![1, 2, 3, 4, 0xFFFF, 0xFFFF, 8, 0], 10, vec![]);
    assert_eq!(list, [first, (4, 0, vec![1, 2, 3, 4], 1, vec![])]);
    let text = "sequence,phase,position,layer,expert0\n0,0,0,0,1\n0,prefill,1,0,2\n0,1,5,0,3\n0,decode,6,0,4\n";
    let (_, list) = read("x.txt", text, &options);
    assert_eq!(list, [(0, 0, vec![1, 2], 5, vec![3, 4])]);
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
fn a_model_has_the_ids_and_experts_a_token_of_its_widest_layer() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    // 8 experts, 3 that compute nothing; behind them a stack of one layer of 16 experts, top-4.
    let file = "base = \"mixtral-8x7b\"\nname = \"x\"\n[decoder]\nlayers = 1\n[decoder.moe]\nzero_experts = 3\n";
    fs::write(at("zero.toml"), file).unwrap();
    let stack = "[[decoder_stack]]\nlayers = 1\nattention = { heads = { gqa = { heads = 8, kv_heads = 8, head_dim = 8 } } }\n\
        moe = { experts = 16, top_k = 4, expert_intermediate = 64 }\n";
    fs::write(at("stacks.toml"), format!("{file}{stack}")).unwrap();
    fs::write(at("two.npy"), npy("|u1", "(1, 1, 2)", &[10, 3])).unwrap();
    let load = |array: &str, model: &str, experts: Option<u32>| {
        load(Path::new(&at(array)), None, &Options { model: Some(at(model)), experts, ..Default::default() })
    };
    assert_eq!(load("two.npy", "zero.toml", None).unwrap().experts(), 11);
    let e = load("two.npy", "zero.toml", Some(8)).unwrap_err().to_string();
    assert!(e.contains("has 8 experts; x has 11"), "{e}");
    let e = load("two.npy", "stacks.toml", None).unwrap_err().to_string();
    assert!(e.contains("1 MoE layers; x has 2"), "{e}");
    fs::write(at("four.npy"), npy("|i1", "(1, 2, 4)", &[10, 3, 0xFF, 0xFF, 15, 1, 2, 3])).unwrap();
    let t = load("four.npy", "stacks.toml", None).unwrap();
    assert_eq!((t.experts(), t.k(), t.layers()), (16, 4, 2));
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

/// Options that a source or a model contradicts are refused, not ignored.
#[test]
fn options_must_agree() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a.npy"), npy("|u1", "(1, 2, 2)", &[0, 1, 2, 3])).unwrap();
    fs::write(at("a.csv"), "sequence,position,layer,expert0,expert1\n0,0,3,0,1\n0,0,4,2,3\n").unwrap();
    fs::write(at("a.json"), r#"[{"3": [[0, 1]], "4": [[2, 3]]}]"#).unwrap();
    fs::write(at("a.jsonl"), r#"{"experts": [[[0, 1], [2, 3]]], "layer_numbers": [3, 4], "n_experts": 4}"#).unwrap();
    fs::write(at("b.jsonl"), r#"{"choices": [{"routed_experts": [[[0, 0], [0, 1], [2, 3]]]}]}"#).unwrap();
    let golden = |name: &str| Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata")).join(name);
    let (sglang, tensorrt) = (golden("sglang_per_token.pt"), golden("tensorrt_llm"));
    let known = |path: &Path| if path.starts_with(dir.path()) { Some(4) } else { None };
    // Layers that the source numbers, where it does.
    for (path, layers) in [
        (at("a.npy"), None),
        (at("a.csv"), Some([3, 4])),
        (at("a.json"), Some([3, 4])),
        (at("a.jsonl"), Some([3, 4])),
        (at("b.jsonl"), Some([1, 2])),
        (sglang, Some([1, 2])),
        (tensorrt, Some([3, 10])),
    ] {
        let name = path.display().to_string();
        let good =
            Options { experts: known(&path), k: Some(2), layer_numbers: layers.map(Vec::from), ..Default::default() };
        assert_eq!(load(&path, None, &good).unwrap().k(), 2, "{name}");
        let other = Options { layer_numbers: Some(vec![5, 6]), ..good.clone() };
        match (layers, load(&path, None, &other)) {
            (None, t) => assert_eq!(t.unwrap().meta().layer_numbers, [5, 6]),
            (Some(l), t) => {
                let e = t.unwrap_err().to_string();
                assert!(e.contains(&format!("has {l:?} layer numbers; the option has [5, 6]")), "{name}: {e}");
            }
        }
        let e = load(&path, None, &Options { k: Some(1), ..good }).unwrap_err().to_string();
        let said = e.contains("has 2 experts a token; the option has 1") || e.contains("has 2 experts; k is 1");
        assert!(said || e.contains("has 4 MoE layers") || e.contains("layer numbers"), "{name}: {e}");
    }
    let of_model = Options { layer_numbers: Some((1..25).collect()), ..gpt_oss() };
    fs::write(at("a.npy"), npy("|u1", "(1, 24, 4)", &[0; 96])).unwrap();
    let e = load(&at("a.npy"), None, &of_model).unwrap_err().to_string();
    assert!(e.contains("layer numbers; the option has [1, 2"), "{e}");
}
