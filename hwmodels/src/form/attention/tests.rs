use super::*;
use proptest::prelude::*;

const H800: Peaks = Peaks { flop_per_s: 989.4e12, bytes_per_s: 3.35e12, units: 132.0, l2_bytes: 50e6 };
const H800_FP8: Peaks = Peaks { flop_per_s: 1978.9e12, ..H800 };
const RTX: Peaks = Peaks { flop_per_s: 503.8e12, bytes_per_s: 1.597e12, units: 188.0, l2_bytes: 128e6 };
const GQA: AttentionHeads = AttentionHeads { query: 32, kv: 4, width: [128.0; 2], kv_bytes: 512.0, query_bytes: 2.0 };
const PACKED: AttentionKernel = AttentionKernel { tile: 64, pack: true, split: true, causal: true };
const PLAIN: AttentionKernel = AttentionKernel { tile: 64, pack: false, split: false, causal: true };
const TYPICAL: [f64; 8] = [1e-5, 1.8e-6, 0.5, 3.0, 0.9, 3.0, 5e-6, 1.0];

fn class(sequences: u64, tokens: u64, keys: u64) -> AttentionClass {
    AttentionClass::full(sequences, tokens, keys)
}

fn seconds(classes: Vec<AttentionClass>, kernel: AttentionKernel) -> f64 {
    AttentionForm.seconds(&TYPICAL, &AttentionRow::new(classes, GQA, kernel, None, RTX))
}

/// A call of the vectors: classes, heads, widths, bytes of a key, of a query element, kernel (tile, pack, split, causal), unique keys.
type Call<'a> = (&'a [(u64, u64, u64)], [u64; 2], [f64; 4], [u64; 4], Option<f64>);

/// Times of the form as written out in another language, apart: same constants, same shapes.
#[test]
fn agrees_with_the_form_written_apart() {
    let calls: [(Call, Peaks, [f64; 8], f64); 12] = [
        (
            (&[(16, 1, 16384)], [32, 8], [128.0, 128.0, 512.0, 2.0], [128, 1, 1, 0], None),
            H800,
            [
                1.673199653876365e-05,
                1.834326635501407e-06,
                0.38199044309189983,
                4.63464587985413,
                0.9615721162750126,
                4.7497688785111825,
                8.83505953221651e-06,
                0.9999999999999223,
            ],
            0.00035490765654801,
        ),
        (
            (&[(512, 1, 8192)], [64, 2], [128.0, 128.0, 512.0, 2.0], [128, 1, 1, 0], None),
            H800,
            [
                1.673199653876365e-05,
                1.834326635501407e-06,
                0.38199044309189983,
                4.63464587985413,
                0.9615721162750126,
                4.7497688785111825,
                8.83505953221651e-06,
                0.9999999999999223,
            ],
            0.0013749197204232116,
        ),
        (
            (&[(16, 1, 16384)], [128, 1], [576.0, 512.0, 1152.0, 2.0], [64, 1, 1, 0], None),
            H800,
            [
                9.566375212963411e-06,
                9.303860448354186e-06,
                0.5927425480467233,
                2.4965639831799358,
                0.933606547428428,
                7.000739950059723,
                2.2029106895785653e-06,
                1.0,
            ],
            0.0001543368555789215,
        ),
        (
            (&[(1, 8192, 8192)], [128, 128], [192.0, 128.0, 640.0, 2.0], [128, 0, 0, 1], None),
            H800,
            [
                1.3390183929639264e-05,
                7.683449740307009e-07,
                0.6572318341298453,
                2.5295930548833634,
                0.8645761287615001,
                2.424749291333918,
                2.999999999999994e-06,
                1.0,
            ],
            0.004563894677842772,
        ),
        (
            (&[(4096, 1, 2048)], [128, 1], [576.0, 512.0, 1152.0, 2.0], [64, 1, 0, 0], Some(32768.0)),
            H800,
            [
                9.995805291276796e-06,
                9.971339734702437e-07,
                0.6899330344614432,
                2.5658740731854457,
                0.8794193175703973,
                2.374032509082083,
                2.999999999999994e-06,
                1.0,
            ],
            0.0037069225414781406,
        ),
        (
            (&[(64, 1, 2048)], [128, 1], [576.0, 512.0, 656.0, 2.0], [64, 1, 1, 0], Some(131072.0)),
            H800,
            [
                1.0379646671527594e-05,
                1.002647804814579e-06,
                0.4891121777377686,
                2.497185540126727,
                0.8763276134920885,
                2.1065989114260453,
                3.000000000000005e-06,
                1.0,
            ],
            9.588542099566148e-05,
        ),
        (
            (&[(64, 2, 16384)], [64, 1], [128.0, 0.0, 132.0, 1.0], [128, 1, 1, 0], None),
            H800_FP8,
            [
                4.62306421442317e-06,
                8.639884045897489e-07,
                0.7896145120068506,
                1.9667673407124,
                0.9485452713771424,
                2.0198936725812873,
                1.1134922189497184e-05,
                1.0,
            ],
            6.273265146547271e-05,
        ),
        (
            (&[(1, 2048, 32768)], [64, 1], [128.0, 0.0, 132.0, 1.0], [128, 1, 1, 1], None),
            H800_FP8,
            [
                5.857801723667807e-06,
                5.602278661039057e-07,
                0.6116043905054295,
                2.5054540543567456,
                0.8802018960736228,
                2.5647406900918406,
                3.0026000067514305e-06,
                1.0,
            ],
            0.0009185085790002049,
        ),
        (
            (&[(4, 1, 3888)], [32, 4], [128.0, 128.0, 512.0, 2.0], [64, 1, 1, 1], None),
            RTX,
            [
                8.635960148504438e-06,
                3.1238029567862526e-06,
                0.9999996442947185,
                9.159440920863007,
                0.9999995362659285,
                1.200306819582833,
                2.0802555987988354e-06,
                1.0,
            ],
            3.6964362823389524e-05,
        ),
        (
            (&[(1, 24, 792), (8, 1, 16384)], [32, 4], [128.0, 128.0, 512.0, 2.0], [64, 0, 0, 1], None),
            RTX,
            [
                8.411336635257764e-07,
                5.3638412475736535e-06,
                0.6794074983064325,
                3.0195763044771144,
                0.8430634435765566,
                2.8844005131831425,
                2.999999999999994e-06,
                1.2287793378204561,
            ],
            0.000759839177355426,
        ),
        (
            (&[(1, 122, 13244), (128, 1, 1152)], [32, 4], [128.0, 128.0, 512.0, 2.0], [64, 0, 0, 1], None),
            RTX,
            [
                8.411336635257764e-07,
                5.3638412475736535e-06,
                0.6794074983064325,
                3.0195763044771144,
                0.8430634435765566,
                2.8844005131831425,
                2.999999999999994e-06,
                1.2287793378204561,
            ],
            0.000815271723906098,
        ),
        (
            (&[(1, 410, 1178), (8, 1, 512)], [32, 4], [128.0, 128.0, 512.0, 2.0], [64, 0, 0, 1], None),
            RTX,
            [
                8.411336635257764e-07,
                5.3638412475736535e-06,
                0.6794074983064325,
                3.0195763044771144,
                0.8430634435765566,
                2.8844005131831425,
                2.999999999999994e-06,
                1.2287793378204561,
            ],
            6.438537799093897e-05,
        ),
    ];
    for (
        (classes, [query, kv], [dq, dv, kv_bytes, query_bytes], [tile, pack, split, causal], unique),
        peaks,
        c,
        wanted,
    ) in calls
    {
        let class = |(sequences, tokens, keys): &(u64, u64, u64)| AttentionClass::full(*sequences, *tokens, *keys);
        let heads = AttentionHeads { query, kv, width: [dq, dv], kv_bytes, query_bytes };
        let kernel = AttentionKernel { tile, pack: pack == 1, split: split == 1, causal: causal == 1 };
        let row = AttentionRow::new(classes.iter().map(class).collect(), heads, kernel, unique, peaks);
        let t = AttentionForm.seconds(&c, &row);
        assert!((t / wanted - 1.0).abs() < 1e-9, "{classes:?}: {t} {wanted}");
    }
}

#[test]
fn nothing_to_do_takes_the_launch_alone() {
    for classes in [vec![], vec![class(0, 1, 100)], vec![class(3, 0, 100)]] {
        assert_eq!(seconds(classes, PACKED), TYPICAL[0]);
    }
}

/// (Query, key) pairs under a window, counted one by one, and a prompt of a windowed layer that costs less than a full one.
#[test]
fn windows_bound_pairs_and_time() {
    for (tokens, keys, window) in [(1, 1, 4), (1, 9, 4), (5, 5, 4), (7, 20, 4), (3, 6, 100), (300, 300, 128)] {
        let read = keys.min(window + tokens - 1);
        let pairs = (keys - tokens + 1..=keys).map(|seen| seen.min(window)).sum::<u64>();
        let found = AttentionClass::windowed(2, tokens, keys, Some(window));
        assert_eq!(found, AttentionClass { sequences: 2, tokens, keys: read, pairs }, "{tokens} {keys} {window}");
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
            let t = AttentionForm.seconds(&TYPICAL, &row);
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
        at in prop::collection::vec(0.0f64..1.0, 8), pack: bool, split: bool, causal: bool, which in 0usize..4,
    ) {
        let c: Vec<f64> = CONSTANTS.iter().zip(&at).map(|(c, at)| c.bounds[0] + at * (c.bounds[1] - c.bounds[0])).collect();
        let kernel = AttentionKernel { tile: 64, pack, split, causal };
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
