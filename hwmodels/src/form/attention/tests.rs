use super::*;
use proptest::prelude::*;

const H800: Peaks = Peaks { flop_per_s: 989.4e12, bytes_per_s: 3.35e12, units: 132.0, l2_bytes: 50e6 };
const H800_FP8: Peaks = Peaks { flop_per_s: 1978.9e12, ..H800 };
const RTX: Peaks = Peaks { flop_per_s: 503.8e12, bytes_per_s: 1.597e12, units: 188.0, l2_bytes: 128e6 };
const GQA: AttentionHeads = AttentionHeads { query: 32, kv: 4, width: [128.0; 2], kv_bytes: 512.0, query_bytes: 2.0 };
const PACKED: AttentionKernel = AttentionKernel { tile: 64, pack: true, split: true, causal: true, converts: false };
const PLAIN: AttentionKernel = AttentionKernel { tile: 64, pack: false, split: false, causal: true, converts: false };
/// Two sets of constants, in the order of [`CONSTANTS`].
const FIRST: [f64; 15] = [8e-6, 1.2e-6, 0.55, 2.6, 0.93, 2.2, 3e-6, 1.0, 4e-7, 2e-8, 1.5e-8, 3e-6, 70.0, 1.8, 0.65];
const SECOND: [f64; 15] = [1.2e-5, 2.5e-6, 0.8, 8.0, 0.85, 1.4, 5e-6, 0.7, 5e-8, 5e-9, 3e-9, 1e-6, 200.0, 0.4, 0.55];

fn class(sequences: u64, tokens: u64, keys: u64) -> AttentionClass {
    AttentionClass::full(sequences, tokens, keys)
}

fn seconds(classes: Vec<AttentionClass>, kernel: AttentionKernel) -> f64 {
    AttentionForm.seconds(&FIRST, &AttentionRow::new(classes, GQA, kernel, None, RTX))
}

/// A call: classes (sequences, new tokens, keys, window or 0), heads, widths, bytes of a key, of a query element,
/// kernel (tile, pack, split, causal), unique keys.
type Call<'a> = (&'a [(u64, u64, u64, u64)], [u64; 2], [f64; 4], [u64; 4], Option<f64>);

/// Times of the form as written out in another language, apart: same constants, same shapes, on the same data again or
/// not.
#[test]
fn agrees_with_the_form_written_apart() {
    let calls: [(Call, Peaks, [f64; 15], bool, f64); 10] = [
        (
            (&[(16, 1, 16384, 0)], [32, 8], [128.0, 128.0, 512.0, 2.0], [64, 1, 1, 1], None),
            H800,
            FIRST,
            true,
            0.00037174076338388775,
        ),
        (
            (&[(512, 1, 30, 0)], [64, 2], [128.0, 128.0, 512.0, 2.0], [64, 1, 1, 1], None),
            H800,
            FIRST,
            true,
            3.853098947454978e-05,
        ),
        (
            (&[(4, 1, 5000, 128)], [8, 1], [64.0, 64.0, 256.0, 2.0], [64, 1, 1, 1], None),
            H800,
            SECOND,
            true,
            1.591413887196582e-05,
        ),
        (
            (&[(16, 1, 16384, 0)], [128, 1], [576.0, 512.0, 1152.0, 2.0], [64, 1, 1, 0], None),
            H800,
            SECOND,
            false,
            0.0002018499653458829,
        ),
        (
            (&[(1, 8192, 8192, 0)], [128, 128], [192.0, 128.0, 640.0, 2.0], [128, 0, 0, 1], None),
            H800,
            FIRST,
            false,
            0.00707516948188509,
        ),
        (
            (&[(2, 3000, 9000, 1024)], [32, 4], [128.0, 128.0, 512.0, 2.0], [128, 1, 0, 1], None),
            H800,
            SECOND,
            true,
            0.0003174439164238545,
        ),
        (
            (&[(4096, 1, 2048, 0)], [128, 1], [576.0, 512.0, 1152.0, 2.0], [64, 1, 0, 0], Some(32768.0)),
            H800,
            SECOND,
            false,
            0.003951420165372263,
        ),
        (
            (&[(64, 2, 16384, 0)], [64, 1], [128.0, 0.0, 132.0, 1.0], [128, 1, 1, 0], None),
            H800_FP8,
            FIRST,
            false,
            8.00632548576004e-05,
        ),
        (
            (&[(1, 24, 792, 0), (8, 1, 16384, 0)], [32, 4], [128.0, 128.0, 512.0, 2.0], [64, 0, 0, 1], None),
            RTX,
            FIRST,
            false,
            0.000811281131230553,
        ),
        (
            (&[(1, 410, 1178, 0), (128, 1, 512, 0)], [32, 4], [128.0, 128.0, 512.0, 2.0], [64, 0, 0, 1], None),
            RTX,
            SECOND,
            false,
            0.00046544081516709346,
        ),
    ];
    for (call, peaks, constants, repeated, wanted) in calls {
        let (classes, [query, kv], [dq, dv, kv_bytes, query_bytes], [tile, pack, split, causal], unique) = call;
        let class = |c: &(u64, u64, u64, u64)| AttentionClass::windowed(c.0, c.1, c.2, (c.3 > 0).then_some(c.3));
        let heads = AttentionHeads { query, kv, width: [dq, dv], kv_bytes, query_bytes };
        let kernel = AttentionKernel { tile, pack: pack == 1, split: split == 1, causal: causal == 1, converts: false };
        let row = AttentionRow::new(classes.iter().map(class).collect(), heads, kernel, unique, peaks);
        let row = if repeated { row.repeated() } else { row };
        let t = AttentionForm.seconds(&constants, &row);
        assert!((t / wanted - 1.0).abs() < 1e-9, "{classes:?}: {t} {wanted}");
    }
}

/// One sequence of one block, by hand: launch, item, the block's keys, its bytes; nothing else.
#[test]
fn one_block_by_hand() {
    let mut c = FIRST;
    // No overlap; the L2 holds nothing; a key takes its bytes alone.
    (c[5], c[12]) = (1.0, 1.0);
    let heads = AttentionHeads { query: 1, kv: 1, width: [128.0; 2], kv_bytes: 1e6, query_bytes: 2.0 };
    let row = AttentionRow::new(vec![class(1, 1, 5)], heads, PACKED, None, RTX);
    let item = c[1] + c[8] + c[9];
    let keys = 64.0 * 1e6 / (c[3] * RTX.bytes_per_s / RTX.units);
    let memory = (5e6 + 512.0) / (RTX.bytes_per_s * c[4]);
    let wanted = c[0] + c[10] + c[13] * 1e6 / RTX.bytes_per_s + item + keys + memory;
    assert!((AttentionForm.seconds(&c, &row) / wanted - 1.0).abs() < 1e-6);
}

/// What the L2 holds costs a repeated call no memory time; what it does not hold costs all of it.
#[test]
fn repeated_calls_find_what_the_l2_holds() {
    let row = |keys| AttentionRow::new(vec![class(8, 1, keys)], GQA, PACKED, None, RTX);
    let time = |row| AttentionForm.time(&FIRST, &row).memory_s;
    // 8 sequences, 4 heads, 512 bytes: 16 MB of 128 MB, then 2 GB.
    assert!(time(row(1000).repeated()) < 0.1 * time(row(1000)));
    assert!(time(row(125_000).repeated()) > 0.999 * time(row(125_000)));
}

/// A kernel that converts its cache first pays for every key, others for new ones alone.
#[test]
fn conversion_pays_for_every_key() {
    let [all, new] =
        [true, false].map(|converts| seconds(vec![class(2, 1, 5000)], AttentionKernel { converts, ..PACKED }));
    let bytes = 2.0 * 4999.0 * 4.0 * 512.0;
    assert!(((all - new) / (FIRST[13] * bytes / RTX.bytes_per_s) - 1.0).abs() < 1e-9);
}

/// A window that hides keys adds its own time, and a walk that begins anywhere in a block.
#[test]
fn windows_that_hide_keys_cost_more_than_all_of_as_many_keys() {
    let time = |keys| seconds(vec![AttentionClass::windowed(4, 1, keys, Some(128))], PACKED);
    assert!(time(129) - time(128) > FIRST[11]);
    assert_eq!(time(129), time(100_000));
}

#[test]
fn nothing_to_do_takes_the_launch_alone() {
    for classes in [vec![], vec![class(0, 1, 100)], vec![class(3, 0, 100)]] {
        assert_eq!(seconds(classes, PACKED), FIRST[0]);
    }
}

/// (Query, key) pairs under a window, counted one by one, and a prompt of a windowed layer that costs less than a full
/// one.
#[test]
fn windows_bound_pairs_and_time() {
    for (tokens, keys, window) in [(1, 1, 4), (1, 9, 4), (5, 5, 4), (7, 20, 4), (3, 6, 100), (300, 300, 128)] {
        let read = keys.min(window + tokens - 1);
        let pairs = (keys - tokens + 1..=keys).map(|seen| seen.min(window)).sum::<u64>();
        let found = AttentionClass::windowed(2, tokens, keys, Some(window));
        let cut = read < keys;
        assert_eq!(found, AttentionClass { sequences: 2, tokens, keys: read, pairs, cut }, "{tokens} {keys} {window}");
    }
    assert!((AttentionClass::windowed(1, 4000, 9000, Some(128)).reach() - 128.0).abs() < 1.0);
    let time = |window| seconds(vec![AttentionClass::windowed(4, 8192, 8192, window)], PLAIN);
    let [full, wide, narrow] = [None, Some(4096), Some(128)].map(time);
    assert!(full > wide && wide > 3.0 * narrow, "{full} {wide} {narrow}");
}

/// One sequence keeps few processors busy, unless its keys are split.
#[test]
fn splits_help_few_long_sequences() {
    let long = vec![class(1, 1, 131_072)];
    let split = seconds(long.clone(), PACKED);
    assert!(seconds(long, AttentionKernel { split: false, ..PACKED }) > 5.0 * split);
}

/// Lengths that no machine holds give a time, in bounded memory.
#[test]
fn extremes_are_finite() {
    for kernel in [PACKED, PLAIN] {
        for classes in [vec![class(1, 1, 1)], vec![class(u64::MAX, 1, u64::MAX)], vec![class(1, u64::MAX, u64::MAX)]] {
            let row = AttentionRow::new(classes, GQA, kernel, None, RTX);
            assert!(row.work.flop >= 0.0);
            let t = AttentionForm.seconds(&FIRST, &row);
            assert!(t.is_finite() && t > 0.0, "{t}");
        }
    }
    assert!(seconds(vec![class(1, 1, 4), class(1, 5, 2)], PLAIN).is_finite());
}

proptest! {
    /// More keys, sequences, or new tokens behind the same prefix never cost less, under any constants and kernel.
    #[test]
    fn more_never_costs_less(
        decode in prop::collection::vec((1u64..200, 16u64..60_000), 1..4), tokens in 1u64..4000, cached in 0u64..30_000,
        at in prop::collection::vec(0.0f64..1.0, 15), pack: bool, split: bool, causal: bool, which in 0usize..4,
    ) {
        let c: Vec<f64> = CONSTANTS.iter().zip(&at).map(|(c, at)| c.bounds[0] + at * (c.bounds[1] - c.bounds[0])).collect();
        let kernel = AttentionKernel { tile: 64, pack, split, causal, converts: false };
        let time = |decode: &[(u64, u64)], tokens: u64| {
            let mut classes: Vec<AttentionClass> = decode.iter().map(|(n, keys)| class(*n, 1, *keys)).collect();
            classes.push(class(1, tokens, cached + tokens));
            AttentionForm.seconds(&c, &AttentionRow::new(classes, GQA, kernel, None, RTX))
        };
        let (mut more, mut new) = (decode.clone(), tokens);
        match which {
            0 => more[0].1 += 1,
            1 => more[0].1 *= 2,
            2 => more[0].0 += 1,
            _ => new += 1,
        }
        let (a, b) = (time(&decode, tokens), time(&more, new));
        prop_assert!(a.is_finite() && a > 0.0 && b >= a * (1.0 - 1e-9), "{a} {b}");
    }
}
