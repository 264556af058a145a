use super::*;
use crate::trace::{MISSING, Meta, OwnedSequence};

fn trace(experts: u32, k: u32, layers: u32, sequences: Vec<OwnedSequence>) -> Trace {
    let layer_numbers = (0..layers).collect();
    let meta = Meta { model: "m".into(), layer_numbers, experts, k, source: "s".into(), licence: "l".into() };
    Trace::from_sequences(meta, sequences).unwrap()
}

fn decode(id: u32, ids: Vec<u16>) -> OwnedSequence {
    OwnedSequence { id, decode: ids, ..Default::default() }
}

/// Counted by hand: two layers of five experts, top-2, three tokens.
#[test]
fn structure_by_hand() {
    // Token by token: layer 0, layer 1.
    let rows = vec![0, 1, 2, 3, 0, 2, 2, 3, 0, 1, 4, MISSING];
    let t = trace(5, 2, 2, vec![decode(0, rows)]);
    let s = structure(&Part::whole(&t)).unwrap();
    assert_eq!((s.pair(0, 0, 1), s.pair(0, 0, 2), s.pair(1, 2, 3), s.together(0), s.together(1)), (2, 1, 2, 3, 2));
    let [first, second] = &s.figures()[..] else { panic!("two layers") };
    // Layer 0: counts 3, 2, 1, 0, 0.
    assert_eq!((first.imbalance, first.top_fifth_share), (2.5, 0.5));
    // Expert 0 is followed by 2, 3, 2, 3, 4; 1 by 2, 3, 4; 2 by 2, 3: the likeliest of each is followed 2 + 1 + 1 times of 10.
    assert_eq!(first.next_layer_mass, Some(0.4));
    // Tokens 1 and 2 share expert 0 with the one before: 2 of 4.
    assert_eq!(first.next_token_overlap, Some(0.5));
    // Pair (0, 1) twice, three co-activations over ten pairs.
    assert_eq!((first.hottest_pair, first.highest_lift), (Some(2.0 * 10.0 / 3.0), None));
    assert_eq!(first.top_tenth_pairs_share, Some(2.0 / 3.0));
    assert_eq!((second.next_layer_mass, second.next_token_overlap), (None, Some(2.0 / 3.0)));
    // After expert 0, experts 2 and 3 are likeliest, and of equals the lower numbers.
    let runs: Vec<&[u16]> = Part::whole(&t).all_rows().collect();
    assert_eq!(s.next_layer_overlap(&runs), Some(4.0 / 5.0));
    assert!(Structure::new(4096, 65_534, 8).is_none());
}

/// Counted one selection after the other, over runs shorter and longer than what is counted at a time.
#[test]
fn structure_does_not_depend_on_how_rows_are_cut() {
    let (experts, k, layers) = (7u16, 3, 2);
    let id = |i: usize| if i % 11 == 4 { MISSING } else { ((i / k) * 5 + i % k * 2 + i / 97) as u16 % experts };
    let all: Vec<u16> = (0..20_000 * layers * k).map(id).collect();
    let width = layers * k;
    let runs: Vec<&[u16]> = vec![&all[..8191 * width], &[], &all[..width], &all[..3 * width], &all];
    let mut s = Structure::new(layers, experts.into(), k).unwrap();
    s.count(&runs);
    let mut plain = vec![[0u32; 7 * 7 * 3]; layers];
    let mut repeats = vec![(0u64, 0u64); layers];
    for run in runs {
        let rows: Vec<&[u16]> = run.chunks_exact(width).collect();
        for (t, row) in rows.iter().enumerate() {
            for l in 0..layers {
                let of = |row: &[u16], l: usize| -> Vec<usize> {
                    row[l * k..][..k].iter().filter(|e| **e != MISSING).map(|e| usize::from(*e)).collect()
                };
                let here = of(row, l);
                let next = if l + 1 < layers { of(row, l + 1) } else { Vec::new() };
                let after = rows.get(t + 1).map_or(Vec::new(), |row| of(row, l));
                repeats[l].0 += after.iter().filter(|e| here.contains(e)).count() as u64;
                repeats[l].1 += after.len() as u64;
                for e in &here {
                    here.iter().filter(|f| *f > e).for_each(|f| plain[l][e * 7 + f] += 1);
                    next.iter().for_each(|f| plain[l][49 + e * 7 + f] += 1);
                    after.iter().for_each(|f| plain[l][98 + e * 7 + f] += 1);
                }
            }
        }
    }
    // The likeliest two of seven successors.
    let mass = |table: &[u32]| {
        let rows = table.chunks_exact(7).map(|row| {
            let mut row = row.to_vec();
            row.sort_unstable();
            row[5..].iter().sum::<u32>()
        });
        rows.sum::<u32>() as f64 / table.iter().sum::<u32>() as f64
    };
    for (l, figures) in s.figures().into_iter().enumerate() {
        (0..7).for_each(|i| (i + 1..7).for_each(|j| assert_eq!(s.pair(l, i, j), plain[l][i * 7 + j], "{l} {i} {j}")));
        assert_eq!(s.together(l), plain[l][..49].iter().map(|c| u64::from(*c)).sum::<u64>());
        assert_eq!(figures.next_layer_mass, (l == 0).then(|| mass(&plain[l][49..98])));
        assert_eq!(figures.next_token_mass, Some(mass(&plain[l][98..])));
        assert_eq!(figures.next_token_overlap, Some(repeats[l].0 as f64 / repeats[l].1 as f64));
    }
}

#[test]
fn serving_figures_by_hand() {
    // One layer, top-1: 0, 1, 0, 1, ...
    let t = trace(8, 1, 1, vec![decode(0, [0, 1].repeat(50))]);
    let s = Serving::of(&Part::whole(&t), 1);
    assert_eq!((s.batch_activated[0], s.batch_imbalance[0]), (1.0, 8.0));
    assert_eq!((s.run_activated[1], s.run_activated[6], s.run_activated[7]), (Some(2.0), Some(2.0), None));
    // Eight experts: one eighth holds one of the two, which is never the next; two eighths hold both.
    assert_eq!(s.lru_hit_rate[..2], [0.0, 0.98]);
    assert_eq!((s.lag_overlap[0], s.lag_overlap[1], s.lag_overlap[7]), (Some(0.0), Some(1.0), None));
    assert_eq!((s.devices_per_token[0], s.devices_per_token[3]), (Some(1.0), None));
}

/// A batch of B uniform independent tokens activates E (1 - (1 - k/E)^B) experts.
#[test]
fn a_batch_of_uniform_draws_activates_what_the_closed_form_says() {
    let uniform = trace(16, 2, 1, (0..40).map(|i| decode(i, (0..256).map(|j| (j % 16) as u16).collect())).collect());
    let (twin, _) = independent::independent(&Part::whole(&uniform), u64::MAX, 3).unwrap();
    let s = Serving::of(&Part::whole(&twin), 1);
    for (n, activated) in BATCHES.into_iter().zip(&s.batch_activated) {
        let miss = (0..n).fold(1.0, |x, _| x * (1.0 - 2.0 / 16.0));
        let expected = 16.0 * (1.0 - miss);
        // Under 2 experts' deviation over 400 batches.
        assert!((activated - expected).abs() < 0.3, "{n}: {activated}, {expected}");
    }
}

#[test]
fn ranks_and_tops() {
    assert_eq!(spearman(&[1, 2, 3, 4], &[10, 20, 30, 40]), 1.0);
    assert_eq!(spearman(&[1, 2, 3, 4], &[4, 3, 2, 1]), -1.0);
    assert_eq!(spearman(&[1, 1, 1, 1], &[4, 3, 2, 1]), 0.0);
    // Ties share ranks 1.5: sum of products of deviations over the spreads, by hand 4.5 / sqrt(4.5 x 5).
    assert!((spearman(&[1, 2, 2, 3], &[1, 2, 3, 4]) - 4.5 / (4.5f64 * 5.0).sqrt()).abs() < 1e-12);
    let t = trace(
        4,
        1,
        1,
        vec![OwnedSequence {
            prefill: vec![0, 0, 1],
            decode: vec![0, 1, 1, 2],
            decode_first_position: 3,
            ..Default::default()
        }],
    );
    let p = Phases::of(&Part::whole(&t)).unwrap();
    // The prompt's are 0 and 1; the fourth expert was never selected.
    assert_eq!(p.top_overlap, [1.0; 3]);
    let t = trace(
        8,
        1,
        1,
        vec![OwnedSequence { prefill: vec![0], decode: vec![1], decode_first_position: 1, ..Default::default() }],
    );
    let p = Phases::of(&Part::whole(&t)).unwrap();
    assert_eq!((p.top_overlap, p.sequence_top_overlap), ([0.0; 3], [0.0; 3]));
    assert!(Phases::of(&Part::whole(&trace(4, 1, 1, vec![decode(0, vec![0])]))).is_none());
}

#[test]
fn topics_with_experts_of_their_own() {
    let sequence = |i: u32| decode(i, (0..60).map(|t| (t % 6 + 6 * (i % 2)) as u16).collect());
    let t = trace(12, 1, 1, (0..20).map(sequence).collect());
    let of: Vec<usize> = (0..20).map(|i| i % 2).collect();
    let names = ["even".to_string(), "odd".to_string()];
    let topics = Topics::of(&Part::whole(&t), &of, &names, "labels", 1).unwrap();
    assert_eq!((topics.shared_popular, topics.imbalance_within, topics.imbalance_together), (0.0, 2.0, 1.0));
    assert!(topics.shared_popular_random > 2.0, "{topics:?}");
    assert!(Topics::of(&Part::whole(&t), &[0; 20], &names[..1], "labels", 1).is_none());
    // Two topics with an expert each: those that nobody selected are nobody's popular ones.
    let t = trace(12, 1, 1, (0..2).map(|i| decode(i, vec![i as u16])).collect());
    assert_eq!(Topics::of(&Part::whole(&t), &[0, 1], &names, "labels", 1).unwrap().shared_popular, 0.0);
}

#[test]
fn labels_of_sequences() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels.csv");
    let t = trace(2, 1, 1, (0..70_000).map(|i| decode(2 * i, vec![0])).collect());
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Labels::read(&path, &t)
    };
    let rows =
        |topic: fn(u32) -> String| -> String { (0..70_000).map(|i| format!("{},{}\n", 2 * i, topic(i))).collect() };
    let two = rows(|i| format!("t{}", i % 2));
    let l = read(&format!("\u{feff}sequence, topic\n1,other\n{two}")).unwrap();
    assert_eq!((&l.of[..4], &l.names[..]), (&[0, 1, 0, 1][..], &["t0".to_string(), "t1".to_string()][..]));
    for (text, word) in [
        (format!("sequence,topic\n{}", rows(|i| i.to_string())), "line 65538: has more than 65536 topics"),
        (format!("sequence,topic\n0,{}\n", "x".repeat(100_000)), "a line is longer than 64 KiB"),
        (format!("sequence,topic{}\n", "x".repeat(100_000)), "a line is longer than 64 KiB"),
        ("sequence,topic\n0,\"a\n".into(), "has no topic for sequence 2"),
        ("sequence,topic\n0,a,b\n".into(), "line 2: has 3 fields, not 2"),
        ("sequence,topic\nx,a\n".into(), "line 2: \"x\" is not a number"),
        ("sequence\n".into(), "line 1: has no column `topic`"),
        (String::new(), "line 1: has no column `sequence`"),
    ] {
        let e = read(&text).unwrap_err();
        let said = e.to_string();
        assert!(
            said.contains(word) && said.contains("labels.csv") && e.exit_code() == 2 && !e.cure.is_empty(),
            "{said}"
        );
    }
}

/// A label a sequence takes time in proportion: its square would take minutes here.
#[test]
fn a_topic_for_every_sequence() {
    const N: usize = 300_000;
    let t = trace(2, 1, 1, (0..N as u32).map(|i| decode(i, vec![0])).collect());
    let (of, names): (Vec<usize>, Vec<String>) = (0..N).map(|i| (i, i.to_string())).unzip();
    assert_eq!(Topics::of(&Part::whole(&t), &of, &names, "labels", 1).unwrap().topics.len(), 32);
}

#[test]
fn parts_are_all_of_a_trace_once() {
    let t = trace(4, 1, 1, (0..10).map(|i| decode(i, vec![0])).collect());
    let (a, b) = Part::split(&t, 0.7, 1);
    let mut ids: Vec<u32> = a.sequences().chain(b.sequences()).map(|s| s.id).collect();
    assert_eq!((a.len(), b.len()), (7, 3));
    ids.sort_unstable();
    assert_eq!(ids, (0..10).collect::<Vec<_>>());
    // One id a sequence.
    assert_eq!([0, 1, 4, 99].map(|limit| a.some(limit, 1).len()), [1, 1, 4, 7]);
    assert!(a.some(4, 1).sequences().all(|s| a.sequences().any(|t| t.id == s.id)));
}
