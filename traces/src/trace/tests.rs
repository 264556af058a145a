use super::*;
use moesim_core::rng;
use std::fs;
use std::path::{Path, PathBuf};

fn meta() -> Meta {
    let text = |t: &str| t.to_string();
    let layer_numbers = vec![1, 3, 4];
    Meta { model: text("m"), layer_numbers, experts: 5, k: 2, source: text("test"), licence: text("MIT") }
}

/// Sequences of changing lengths, some without prompt, some without decoding, with missing experts.
fn sequences(n: u32, weights: bool) -> Vec<OwnedSequence> {
    let draw = |i: u32, j: usize, n: u64| rng::below(rng::draw(1, 2, i.into(), j as u64), n);
    let ids = |i: u32, from: usize, rows: u64| {
        let id = |j| if draw(i, j, 20) == 0 { MISSING } else { draw(i, j, 5) as u16 };
        let mut ids: Vec<u16> = (from..from + rows as usize * 6).map(id).collect();
        ids.chunks_exact_mut(2).for_each(|two| {
            if two[0] == two[1] {
                two[1] = MISSING
            }
        });
        ids
    };
    let sequence = |i: u32| {
        let (prefill, decode) = (ids(i, 0, u64::from(i % 4)), ids(i, 1000, 1 + draw(i, 9999, 5)));
        let prefill_rows = prefill.len() as u32 / 6;
        OwnedSequence {
            id: 3 * i,
            first_position: 0,
            decode_first_position: prefill_rows + i % 2,
            weights: weights.then(|| vec![0.25; prefill.len() + decode.len()]),
            prefill,
            decode,
        }
    };
    (0..n).map(sequence).collect()
}

fn write(name: &str, sequences: &[OwnedSequence]) -> (tempfile::TempDir, PathBuf, Summary) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let mut w = Writer::create(&path, meta()).unwrap();
    sequences.iter().for_each(|s| w.push_sequence(s).unwrap());
    let summary = w.finish().unwrap();
    (dir, path, summary)
}

#[test]
fn what_is_written_is_read() {
    for weights in [false, true] {
        let all = sequences(40, weights);
        let (_dir, path, summary) = write("a.arrow", &all);
        let mapped = Trace::open(&path).unwrap();
        let memory = Trace::from_sequences(meta(), all.clone()).unwrap();
        assert_eq!(summary.bytes, fs::metadata(&path).unwrap().len());
        assert_eq!((summary.sequences, summary.rows), (40, mapped.rows()));
        assert_eq!((mapped.meta(), mapped.hash()), (&meta(), memory.hash()));
        assert_eq!((mapped.layers(), mapped.k(), mapped.experts(), mapped.width()), (3, 2, 5, 6));
        mapped.verify().unwrap();
        for (i, s) in all.iter().enumerate() {
            assert_eq!(mapped.sequence(i), memory.sequence(i));
            mapped.check_sequence(i).unwrap();
            let read = mapped.sequence(i).to_owned();
            let first = if s.prefill.is_empty() { s.decode_first_position } else { 0 };
            assert_eq!(read, OwnedSequence { first_position: first, ..s.clone() });
        }
        let (_again, path_again, _) = write("b.arrow", &all);
        assert_eq!(fs::read(path).unwrap(), fs::read(path_again).unwrap());
    }
}

#[test]
fn batches_hold_whole_sequences_and_do_not_change_the_hash() {
    // Two sequences exceed one batch of 4 Mi ids.
    let rows = 800_000;
    let s = |id: u32| OwnedSequence { id, decode: [(id % 5) as u16, MISSING].repeat(rows * 3), ..Default::default() };
    let all: Vec<_> = (0..3).map(s).collect();
    let (_dir, path, _) = write("large.arrow", &all);
    let t = Trace::open(&path).unwrap();
    assert_eq!(t.rows(), 3 * rows as u64);
    assert_eq!(t.hash(), Trace::from_sequences(meta(), all.clone()).unwrap().hash());
    assert!((0..3).all(|i| t.sequence(i) == all[i].view()));
}

#[test]
fn writing_refuses_what_reading_would() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.arrow");
    let refuse = |list: &[OwnedSequence]| {
        let mut w = Writer::create(&path, meta()).unwrap();
        let e = list.iter().try_for_each(|s| w.push_sequence(s)).and_then(|()| w.finish()).unwrap_err();
        assert!(Trace::from_sequences(meta(), list.to_vec()).is_err() || e.problem.contains("does not exist"));
        e.to_string()
    };
    let one = |id, decode: Vec<u16>| OwnedSequence { id, decode, decode_first_position: 7, ..Default::default() };
    let e = refuse(&[one(9, vec![0, 1, 2, 3, 5, 0])]);
    assert!(e.contains("t.arrow: sequence 9, position 7, layer 4: expert 5 of 5 does not exist; "), "{e}");
    assert!(refuse(&[one(1, [0, 1].repeat(3)), one(1, [0, 1].repeat(3))]).contains("follows sequence 1"));
    assert!(refuse(&[one(1, vec![0; 7])]).contains("rows of 6"));
    assert!(refuse(&[]).contains("no sequences"));
    let inside = OwnedSequence { prefill: vec![0; 60], ..one(1, [0, 1].repeat(3)) };
    assert!(refuse(&[inside]).contains("inside the prompt"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn ids_are_checked_at_first_use() {
    let s = OwnedSequence { id: 4, decode: vec![0, 1, 2, 9, 0, 0], ..Default::default() };
    let e = Trace::from_sequences(meta(), vec![s]).unwrap().check_sequence(0).unwrap_err();
    assert_eq!(e.place.as_deref(), Some("sequence 4, position 0, layer 3"));
    // Twice in a layer; missing ones and other layers are no repetition.
    let s = OwnedSequence {
        id: 4,
        prefill: vec![0, 1, MISSING, MISSING, 0, 1],
        decode: vec![2, 1, 3, 2, 4, 4],
        ..Default::default()
    };
    let s = OwnedSequence { decode_first_position: 8, ..s };
    let e = Trace::from_sequences(meta(), vec![s]).unwrap().check_sequence(0).unwrap_err();
    assert_eq!(
        (e.place.as_deref(), &*e.problem),
        (Some("sequence 4, position 8, layer 4"), "expert 4 is selected twice")
    );
}

/// Uses everything a trace offers.
fn exercise(t: &Trace) {
    for i in 0..t.sequences() {
        let _ = t.check_sequence(i);
        let s = t.sequence(i);
        assert_eq!((s.prefill.len() % t.width(), s.decode.len() % t.width()), (0, 0));
    }
    let _ = t.verify();
}

#[test]
fn no_mutation_or_truncation_panics() {
    let (_dir, path, _) = write("good.arrow", &sequences(12, true));
    let good = fs::read(&path).unwrap();
    let (mut opened, mut refused) = (0, 0);
    for case in 0..20_000u64 {
        let draw = |i: u64| rng::draw(7, 8, case, i);
        let mut bad = good.clone();
        if case % 10 == 0 {
            bad.truncate(rng::below(draw(0), good.len() as u64) as usize);
        } else {
            // Half of the mutations hit the footer and the messages, where the structure is.
            for i in 0..1 + draw(1) % 4 {
                let tail = case % 2 * (good.len() as u64 - 1500);
                let at = (tail + rng::below(draw(3 * i + 2), good.len() as u64 - tail)) as usize;
                let value = draw(3 * i + 4);
                match draw(3 * i + 3) % 4 {
                    0 => bad[at] ^= 1 << (value % 8),
                    1 => bad[at] = value as u8,
                    // Offsets and lengths have 4 or 8 bytes.
                    kind => {
                        let extremes =
                            [-1, 0, i64::MIN, i64::MAX, i64::from(i32::MAX), value as i64, (value % 4096) as i64];
                        let bytes = extremes[(value % 7) as usize].to_le_bytes();
                        let (at, n) = (at / 4 * 4, if kind == 2 { 4 } else { 8 });
                        let n = n.min(bad.len() - at);
                        bad[at..at + n].copy_from_slice(&bytes[..n]);
                    }
                }
            }
        }
        match Trace::parse(&arrow_buffer::Buffer::from_slice_ref(&bad), Path::new("bad.arrow")) {
            Ok(t) => {
                exercise(&t);
                opened += 1;
            }
            Err(e) => {
                assert!(e.exit_code() == 2 && e.to_string().contains("bad.arrow") && !e.cure.is_empty(), "{e}");
                refused += 1;
            }
        }
    }
    // Both happen often: rows and padding may change unseen, the structure may not.
    assert!(opened > 1000 && refused > 1000, "{opened} opened, {refused} refused");
}

#[test]
fn traces_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Trace>();
}

#[test]
fn another_order_is_the_same_sequences() {
    let (_dir, path, _) = write("t", &sequences(9, true));
    let trace = Trace::open(&path).unwrap();
    let order = [8, 3, 0, 1, 7, 2, 4, 6, 5];
    let other = trace.reordered(&order).unwrap();
    assert_eq!((other.rows(), other.sequences(), other.meta()), (trace.rows(), 9, trace.meta()));
    for (i, &of) in order.iter().enumerate() {
        assert_eq!((other.sequence(i), other.rows_of(i)), (trace.sequence(of), trace.rows_of(of)));
        other.check_sequence(i).unwrap();
    }
    assert_ne!(other.hash(), trace.hash());
    assert_eq!(other.reordered(&[2, 3, 5, 1, 6, 8, 7, 4, 0]).unwrap().hash(), trace.hash());
    assert!(trace.reordered(&[]).is_err());
}
