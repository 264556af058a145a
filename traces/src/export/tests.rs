use super::*;
use crate::import::{Options, load};
use crate::trace::{Meta, OwnedSequence};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

/// Small traces: gaps in layers, sequence numbers and before decoding; either phase alone; missing ids, whole rows of them.
fn traces() -> impl Strategy<Value = Trace> {
    let labels = prop_oneof![Just("m"), Just("a \"b\"\\\u{e9}\n, c")];
    let shape = (btree_set(0u32..200, 1..4), 1u32..40, 1u32..4, labels);
    shape.prop_flat_map(|(layers, experts, k, label)| {
        let label = label.to_string();
        let layer_numbers: Vec<u32> = layers.into_iter().collect();
        let (licence, source) = ("l".into(), "s".into());
        let meta = Meta { model: label, layer_numbers, experts, k: k.min(experts), source, licence };
        let row = vec(prop_oneof![1 => Just(MISSING), 9 => 0..experts as u16], meta.width());
        let row = prop_oneof![9 => row, 1 => Just(vec![MISSING; meta.width()])];
        // Step of the number, first position, gap before decoding, rows of both phases.
        let sequence = (1u32..4, 0u32..1000, 0u32..3, vec(row.clone(), 0..4), vec(row, 0..4));
        vec(sequence, 1..5).prop_map(move |list| trace(&meta, list))
    })
}

type Drawn = (u32, u32, u32, Vec<Vec<u16>>, Vec<Vec<u16>>);

fn trace(meta: &Meta, list: Vec<Drawn>) -> Trace {
    let mut next = 0;
    let sequence = |(step, first, gap, prefill, mut decode): Drawn| {
        if prefill.is_empty() && decode.is_empty() {
            decode.push(vec![0; meta.width()]);
        }
        next += step;
        let decode_first_position = first + prefill.len() as u32 + gap;
        let (mut prefill, mut decode) = (prefill.concat(), decode.concat());
        for layer in prefill.chunks_exact_mut(meta.k as usize).chain(decode.chunks_exact_mut(meta.k as usize)) {
            (1..layer.len()).for_each(|i| {
                if layer[..i].contains(&layer[i]) {
                    layer[i] = MISSING
                }
            });
        }
        OwnedSequence { id: next - 1, first_position: first, prefill, decode, decode_first_position, weights: None }
    };
    let sequences = list.into_iter().map(sequence).collect();
    Trace::from_sequences(meta.clone(), sequences).unwrap()
}

/// The trace that comes back out of a format, which is found by looking at the file.
fn round_trip(t: &Trace, format: &str, name: &str, options: &Options) -> Trace {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join(name);
    exporter(format).unwrap().export(t, &out).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no partial file is left");
    load(&out, None, options).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn what_is_exported_is_imported(t in traces()) {
        let m = t.meta();
        let back = round_trip(&t, "json-lines", "a.jsonl", &Options::default());
        prop_assert_eq!((back.meta(), back.hash()), (m, t.hash()));

        let told = Options {
            model: Some(m.model.clone()),
            experts: Some(m.experts),
            k: Some(m.k),
            source: Some(m.source.clone()),
            licence: Some(m.licence.clone()),
            ..Default::default()
        };
        let back = round_trip(&t, "csv", "a.csv", &told);
        prop_assert_eq!((back.meta(), back.hash()), (m, t.hash()));

        #[cfg(feature = "parquet")]
        {
            let back = round_trip(&t, "parquet", "a.parquet", &Options::default());
            prop_assert_eq!((back.meta(), back.hash()), (m, t.hash()));
        }

        let back = round_trip(&t, "wafer-json", "folder", &told);
        prop_assert_eq!(back.meta(), m);
        for i in 0..t.sequences() {
            let (a, b) = (t.sequence(i), back.sequence(i));
            prop_assert_eq!((a.prefill, a.decode), (b.prefill, b.decode));
        }
    }
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_build_without_parquet_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    std::fs::write(&path, b"PAR1PAR1").unwrap();
    let import = load(&path, None, &Options::default()).err().unwrap();
    for e in [exporter("parquet").err().unwrap(), import] {
        assert!(e.problem.contains("lacks Parquet") && e.cure.contains("--features parquet"), "{e}");
        assert_eq!(e.exit_code(), 2);
    }
}

/// Gate weights go through Parquet too, in batches of more rows than one.
#[cfg(feature = "parquet")]
#[test]
fn parquet_loses_nothing() {
    let label = || "m".to_string();
    let meta = Meta {
        model: label(),
        layer_numbers: vec![0, 2, 5],
        experts: 300,
        k: 2,
        source: "s".into(),
        licence: "l".into(),
    };
    let ids = |from: u32, rows: u32| (from..from + rows * 6).map(|i| (i * 7919 % 300) as u16).collect::<Vec<_>>();
    let sequence = |id: u32, prefill: u32, decode: u32| OwnedSequence {
        id,
        first_position: 4,
        prefill: ids(id, prefill),
        decode: ids(id + 1, decode),
        decode_first_position: 5 + prefill,
        weights: Some((0..(prefill + decode) * 6).map(|i| 1.0 / (i + id + 1) as f32).collect()),
    };
    let t = Trace::from_sequences(meta, vec![sequence(0, 9000, 7), sequence(3, 0, 20_000), sequence(9, 2, 0)]).unwrap();
    let back = round_trip(&t, "parquet", "a", &Options::default());
    assert_eq!((back.meta(), back.hash(), back.rows()), (t.meta(), t.hash(), t.rows()));
    for i in 0..3 {
        assert_eq!(back.sequence(i), t.sequence(i));
    }
}

#[test]
fn bad_rows_and_unknown_formats_leave_nothing_behind() {
    let label = || "m".to_string();
    let meta = Meta { model: label(), layer_numbers: vec![3], experts: 2, k: 1, source: label(), licence: label() };
    let s = OwnedSequence { decode: vec![1, 2], ..Default::default() };
    let t = Trace::from_sequences(meta, vec![s]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for e in exporters() {
        let e = e.export(&t, &dir.path().join("out")).unwrap_err();
        assert_eq!(e.place.as_deref(), Some("sequence 0, position 1, layer 3"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    let e = exporter("json-line").err().unwrap();
    assert!(e.cure.contains("did you mean \"json-lines\"?"), "{e}");
}

#[test]
fn the_forms_are_as_documented() {
    let label = || "m".to_string();
    let meta = Meta { model: label(), layer_numbers: vec![1, 3], experts: 9, k: 2, source: label(), licence: label() };
    let s = |id: u32, prefill: &[u16], decode: &[u16]| OwnedSequence {
        id,
        first_position: 5,
        prefill: prefill.to_vec(),
        decode: decode.to_vec(),
        decode_first_position: 7,
        weights: None,
    };
    let both = s(4, &[0, 1, 2, 8], &[3, MISSING, MISSING, MISSING]);
    let t = Trace::from_sequences(meta, vec![s(1, &[], &[4, 5, 6, 7]), both]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let text = |format: &str| {
        exporter(format).unwrap().export(&t, &dir.path().join("out")).unwrap();
        std::fs::read_to_string(dir.path().join("out")).unwrap()
    };
    let about = r#""n_layers":2,"top_k":2,"n_experts":9,"layer_numbers":[1,3],"model":"m","source":"m","licence":"m""#;
    let lines = [
        format!(r#"{{"seq":1,"first_pos":7,"n_tokens":1,{about},"phase":"decode","experts":[[4,5,6,7]]}}"#),
        format!(
            r#"{{"seq":4,"first_pos":5,"n_tokens":2,{about},"prefill":[[0,1,2,8]],"decode_first_pos":7,"decode":[[3,-1,-1,-1]]}}"#
        ),
    ];
    assert_eq!(text("json-lines"), lines.map(|l| l + "\n").concat());
    let table = "sequence,phase,position,layer,expert0,expert1\n\
        1,decode,7,1,4,5\n1,decode,7,3,6,7\n4,prefill,5,1,0,1\n4,prefill,5,3,2,8\n4,decode,7,1,3,-1\n4,decode,7,3,-1,-1\n";
    assert_eq!(text("csv"), table);
}
