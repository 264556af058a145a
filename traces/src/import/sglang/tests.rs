use super::requests::{Pass, Request, join};
use super::*;
use crate::import::{Phase, load};

/// A file written by the tool's own library: see `testdata/make.py`.
fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata")).join(name)
}

/// The ids that the script gives positions `from..to` of a request, at layers 1 and 2.
fn ids(request: u16, from: u16, to: u16) -> Vec<u16> {
    let row = |p| [(1, 0), (1, 1), (2, 0), (2, 1)].map(|(l, c)| (request * 5 + p * 3 + l * 2 + c) % 6);
    (from..to).flat_map(row).collect()
}

#[test]
fn a_recording_of_torch_becomes_its_requests() {
    let t = load(&golden("sglang_per_token.pt"), None, &Options::default()).unwrap();
    let m = t.meta();
    assert_eq!((&m.layer_numbers[..], m.experts, m.k), (&[1, 2][..], 6, 2));
    assert!(m.source.contains("joined by their positions; wrong where experts were moved meanwhile)"), "{}", m.source);
    // (Request, first position, behind the prompt, end).
    let expected = [(0, 0, 3, 4), (1, 0, 6, 9), (2, 2, 4, 8), (3, 0, 2, 3)];
    assert_eq!(t.sequences(), expected.len());
    for (i, (r, first, prompt, end)) in expected.into_iter().enumerate() {
        let s = t.sequence(i);
        assert_eq!((s.id, s.first_position, s.decode_first_position), (i as u32, first.into(), prompt.into()));
        assert_eq!(s.prefill, ids(r, first, prompt), "request {r}");
        assert_eq!(s.decode, ids(r, prompt, end), "request {r}");
    }
    // The marks of the file say what is prompt and what is output, whatever the option.
    let prefill = Options { phase: Phase::Prefill, ..Default::default() };
    assert_eq!(load(&golden("sglang_per_token.pt"), Some("sglang"), &prefill).unwrap().hash(), t.hash());
}

#[test]
fn ranks_that_saw_the_same_tokens_count_once() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["recorder_1_0.pt", "recorder_1_1.pt"] {
        std::fs::copy(golden("sglang_per_token.pt"), dir.path().join(name)).unwrap();
    }
    assert_eq!(load(dir.path(), None, &Options::default()).unwrap().sequences(), 4);
}

#[test]
fn counts_are_no_trace() {
    for name in ["sglang_stat.pt", "sglang_per_pass.pt", "eplb.pt"] {
        let e = load(&golden(name), None, &Options::default()).unwrap_err().to_string();
        assert!(e.contains(name) && e.contains("has counts alone") && e.contains("moesim trace counts"), "{e}");
    }
}

fn pass(mode: i64, positions: &[u32], extend: &[u32]) -> Pass {
    let extend = (!extend.is_empty()).then(|| extend.to_vec());
    Pass { positions: positions.to_vec(), extend, mode: Some(mode) }
}

fn positions(passes: &[Pass]) -> Vec<(usize, Vec<u32>)> {
    let of = |r: &Request| r.tokens.iter().map(|(n, t)| passes[*n as usize].positions[*t as usize]).collect();
    join(passes).unwrap().iter().map(|r| (r.prompt, of(r))).collect()
}

#[test]
fn requests_that_look_alike() {
    // A recording that starts in the middle; the former of two equals ends: the order decides.
    let p = [pass(2, &[7, 7, 9], &[]), pass(2, &[8, 10], &[]), pass(2, &[9, 11], &[])];
    assert_eq!(positions(&p), [(0, vec![7, 8, 9]), (0, vec![7]), (0, vec![9, 10, 11])]);
    // A prompt of one uncached token is no output of a running request, in a prefill pass.
    let p = [pass(1, &[0, 1, 0], &[2, 1]), pass(1, &[2], &[1]), pass(2, &[2, 1, 3], &[])];
    assert_eq!(positions(&p), [(2, vec![0, 1, 2]), (1, vec![0, 1]), (1, vec![2, 3])]);
    // A prompt in three chunks beside running requests, and one preempted.
    let p = [
        pass(1, &[0, 0, 1], &[1, 2]),
        pass(2, &[1], &[]),
        pass(1, &[2, 3], &[2]),
        pass(2, &[2], &[]),
        pass(1, &[4], &[1]),
        pass(2, &[3, 5], &[]),
        pass(2, &[6], &[]),
        pass(1, &[0, 1, 2, 3], &[4]),
    ];
    assert_eq!(positions(&p), [(1, vec![0, 1, 2, 3]), (5, vec![0, 1, 2, 3, 4, 5, 6]), (4, vec![0, 1, 2, 3])]);
    assert!(join(&[pass(5, &[1], &[])]).unwrap_err().to_string().contains("record 0: has tokens in forward_mode 5"));
    assert!(join(&[pass(1, &[1], &[2])]).unwrap_err().to_string().contains("extend_seq_lens of 2"));
    assert!(join(&[pass(1, &[1, 3], &[2])]).unwrap_err().to_string().contains("not consecutive"));
}

#[test]
fn mixed_passes_behind_a_prefill() {
    // The last prompt of the prefill is decoded beside a new one, not continued.
    let p = [pass(1, &[0, 1, 2], &[3]), pass(3, &[0, 1, 3], &[2, 1]), pass(2, &[2, 4], &[])];
    assert_eq!(positions(&p), [(3, vec![0, 1, 2, 3, 4]), (2, vec![0, 1, 2])]);
    // So it is where the new one starts at the same position, behind a cached prefix.
    let p = [pass(1, &[0, 1], &[2]), pass(3, &[2, 3, 2], &[2, 1]), pass(2, &[4, 3], &[])];
    assert_eq!(positions(&p), [(2, vec![0, 1, 2, 3]), (2, vec![2, 3, 4])]);
    // A prompt in chunks goes on, beside one that runs at the same position.
    let p = [pass(1, &[0, 1, 0, 1], &[2, 2]), pass(3, &[2, 3, 2], &[2, 1]), pass(2, &[4, 3], &[])];
    assert_eq!(positions(&p), [(2, vec![0, 1, 2, 3]), (4, vec![0, 1, 2, 3, 4])]);
    // Those that ran are behind the prompts of the pass.
    let p = [pass(1, &[0], &[1]), pass(3, &[0, 1, 1], &[2, 1]), pass(2, &[2, 2], &[])];
    let requests = join(&p).unwrap();
    assert_eq!(requests[0].tokens, [(0, 0), (1, 2), (2, 1)]);
    assert_eq!(requests[1].tokens, [(1, 0), (1, 1), (2, 0)]);
}

mod any {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_token_is_of_one_request_at_consecutive_positions(
            passes in proptest::collection::vec((1i64..=3, proptest::collection::vec((0u32..6, 1u32..4), 0..6)), 0..12)
        ) {
            let passes: Vec<Pass> = passes.into_iter().map(|(mode, chunks)| {
                let chunks: Vec<_> = chunks.into_iter().map(|(p, n)| (p, if mode == 2 { 1 } else { n })).collect();
                let positions: Vec<u32> = chunks.iter().flat_map(|(p, n)| *p..p + n).collect();
                let lengths: Vec<u32> = chunks.iter().map(|c| c.1).collect();
                pass(mode, &positions, if mode == 2 { &[] } else { &lengths })
            }).collect();
            let requests = join(&passes).unwrap();
            let mut all: Vec<_> = requests.iter().flat_map(|r| r.tokens.iter().copied()).collect();
            all.sort_unstable();
            let expected: Vec<_> = passes.iter().enumerate()
                .flat_map(|(n, p)| (0..p.positions.len()).map(move |t| (n as u32, t as u32))).collect();
            prop_assert_eq!(all, expected);
            for r in &requests {
                prop_assert!(r.prompt <= r.tokens.len());
                for (i, (n, t)) in r.tokens.iter().enumerate() {
                    prop_assert_eq!(passes[*n as usize].positions[*t as usize], r.first + i as u32);
                }
            }
        }
    }
}
