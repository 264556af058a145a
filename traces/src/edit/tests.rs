use super::*;
use crate::trace::OwnedSequence;
use std::path::PathBuf;

fn meta() -> Meta {
    let text = |t: &str| t.to_string();
    Meta { model: text("m"), layer_numbers: vec![0, 2], experts: 9, k: 1, source: text("s"), licence: text("l") }
}

fn sequences(step: u32) -> Vec<OwnedSequence> {
    let s = |i: u32| OwnedSequence { id: i * step, decode: vec![i as u16, 6, 7, 8], ..Default::default() };
    (0..6).map(s).collect()
}

fn written(dir: &Path, name: &str, meta: Meta, list: &[OwnedSequence]) -> PathBuf {
    let path = dir.join(name);
    let mut w = Writer::create(&path, meta).unwrap();
    list.iter().for_each(|s| w.push_sequence(s).unwrap());
    w.finish().unwrap();
    path
}

#[test]
fn slices_hold_what_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let t = Trace::open(&written(dir.path(), "t.arrow", meta(), &sequences(10))).unwrap();
    let out = dir.path().join("out.arrow");
    for (selection, expected) in [
        (Selection::Numbers(10..31), 1..4),
        (Selection::Numbers(0..u32::MAX), 0..6),
        (Selection::Numbers(49..60), 5..6),
        (Selection::First(2), 0..2),
        (Selection::First(usize::MAX), 0..6),
    ] {
        let s = slice(&t, &selection, &out).unwrap();
        let part = Trace::open(&out).unwrap();
        part.verify().unwrap();
        assert_eq!((s.sequences, part.meta()), (expected.len() as u64, t.meta()), "{selection:?}");
        assert!(expected.enumerate().all(|(i, j)| part.sequence(i) == t.sequence(j)), "{selection:?}");
    }
    std::fs::remove_file(&out).unwrap();
    for nothing in [Selection::Numbers(51..60), Selection::Numbers(1..9), Selection::First(0)] {
        let e = slice(&t, &nothing, &out).unwrap_err();
        assert!(e.to_string().contains("t.arrow: sequences: has none of these sequences; "), "{e}");
        assert!(e.cure.contains("6 sequences, numbered 0 to 50") && !out.exists(), "{e}");
    }
}

#[test]
fn merging_slices_gives_the_trace_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), "t.arrow", meta(), &sequences(1));
    let whole = Trace::open(&path).unwrap();
    let parts = [0..1, 1..4, 4..6].map(|r| {
        let out = dir.path().join(format!("{}.arrow", r.start));
        slice(&whole, &Selection::Numbers(r), &out).unwrap();
        Trace::open(&out).unwrap()
    });
    // Onto the first part itself, which is mapped meanwhile.
    let out = dir.path().join("0.arrow");
    assert_eq!(merge(&parts, &out).unwrap().sequences, 6);
    let again = Trace::open(&out).unwrap();
    assert_eq!((again.meta(), again.hash()), (whole.meta(), whole.hash()));
}

#[test]
fn merging_renumbers_and_lists_the_sources() {
    let dir = tempfile::tempdir().unwrap();
    let other = Meta { source: "other".into(), ..meta() };
    let a = Trace::open(&written(dir.path(), "a.arrow", meta(), &sequences(7))).unwrap();
    let b = Trace::open(&written(dir.path(), "b.arrow", other, &sequences(3))).unwrap();
    let out = dir.path().join("out.arrow");
    merge(&[a, b], &out).unwrap();
    let t = Trace::open(&out).unwrap();
    assert_eq!((t.meta().source.as_str(), t.meta().licence.as_str()), ("s; other", "l"));
    assert!((0..12).all(|i| t.sequence(i).id == i as u32 && t.sequence(i).decode[0] == i as u16 % 6));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let label = |m: &str| Meta { model: m.into(), ..meta() };
    let weighted: Vec<_> =
        sequences(1).into_iter().map(|s| OwnedSequence { weights: Some(vec![0.5; 4]), ..s }).collect();
    let cases = [
        ("model", label("n"), sequences(1), "n, not m"),
        ("layers", Meta { layer_numbers: vec![0, 1], ..meta() }, sequences(1), "[0, 1], not [0, 2]"),
        ("experts", Meta { experts: 10, ..meta() }, sequences(1), "10, not 9"),
        ("k", Meta { k: 2, ..meta() }, sequences(1), "2, not 1"),
        ("gate weights", meta(), weighted, "present, not absent"),
    ];
    let out = dir.path().join("out.arrow");
    for (place, meta_b, list, words) in cases {
        let a = Trace::open(&written(dir.path(), "a.arrow", meta(), &sequences(1))).unwrap();
        let b = Trace::open(&written(dir.path(), "b.arrow", meta_b, &list)).unwrap();
        let e = merge(&[a, b], &out).unwrap_err();
        assert!(e.to_string().contains(&format!("b.arrow: {place}: {words}")) && !out.exists(), "{e}");
    }
    assert_eq!(merge(&[], &out).unwrap_err().exit_code(), 2);
}
