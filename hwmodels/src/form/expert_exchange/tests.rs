use super::*;
use proptest::prelude::*;

const H100: LinkPeaks = LinkPeaks { link_bytes_per_s: 450e9, nic_bytes_per_s: 50e9, bytes_per_s: 3.35e12 };
const UB: LinkPeaks = LinkPeaks { link_bytes_per_s: 135e9, ..H100 };

#[track_caller]
fn near(a: f64, b: f64) {
    assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
}

/// Times of the forms as written out in another language, apart: same constants, same bytes.
#[test]
fn agrees_with_the_forms_written_apart() {
    type Cases<'a, const N: usize, const M: usize> = [([f64; N], &'a [([f64; M], f64)]); 2];
    let all: Cases<7, 4> = [
        (
            [
                1.4548222001429887e-05,
                6.226276367310466e-07,
                5.463196992355119e-08,
                0.5480407470733013,
                0.9620876397462887,
                3.641207971417182,
                1e-8,
            ],
            &[
                ([145845.0, 0.0, 0.0, 0.0], 1.5139601386504426e-05),
                ([1213754.5, 1387148.0, 144.0, 1.0], 5.188672695808836e-05),
                ([1029422.625, 8235381.0, 252.0, 1.0], 0.00020013631482138859),
            ],
        ),
        (
            [
                1.1750877583971285e-05,
                1.0631768821156888e-05,
                2.8575434320575976e-08,
                0.46312425237005844,
                0.927135384787866,
                3.5035582252597064,
                1e-8,
            ],
            &[
                ([282240.0, 0.0, 0.0, 0.0], 1.3105157772906062e-05),
                ([2348864.0, 2684416.0, 144.0, 1.0], 8.445864162544004e-05),
                ([1992144.0, 15937152.0, 252.0, 1.0], 0.00037337741799636526),
            ],
        ),
    ];
    for (c, rows) in all {
        for ([link_bytes, nic_bytes, flags, several], wanted) in rows {
            let (link_bytes, nic_bytes, flags, nodes) = (*link_bytes, *nic_bytes, *flags, 1.0 + several);
            near(
                LowLatencyForm
                    .seconds(&c, &LowLatencyRow { link_bytes, nic_bytes, flags, experts: 0.0, nodes, peaks: H100 }),
                *wanted,
            );
        }
    }
    let all: Cases<11, 5> = [
        (
            [
                3.3245065457865634e-05,
                3.203568854370768e-05,
                2.8000692380411915e-05,
                19196733588.376377,
                14951817959.375565,
                0.7777444471726946,
                0.9418574685020051,
                0.489638912553128,
                9.29043760867135,
                0.49588799693317,
                7.857587198378231e-05,
            ],
            &[
                ([0.0, 136983.23655389552, 156552.27034730918, 20.0, 1.0], 3.3889034953349446e-05),
                ([353577.71263852855, 2025243.4571000093, 2668141.663609968, 16.0, 2.0], 7.60778071037526e-05),
                ([1313158208.5569413, 3080300912.013373, 4833502108.000796, 16.0, 4.0], 0.028158604377384884),
                ([4488666695.398048, 6507299109.64964, 11925579963.569065, 16.0, 8.0], 0.19481932268600566),
            ],
        ),
        (
            [
                4.893632311480186e-05,
                6.5385772888662e-05,
                2.1654111719321002e-05,
                19837787176.649,
                11862291226.047808,
                0.7987070221508338,
                0.9360846944314762,
                0.4886611133935794,
                11.999999999997213,
                0.5501039585594218,
                0.00027365131589631244,
            ],
            &[
                ([0.0, 265664.4587711913, 303616.52430993295, 20.0, 1.0], 5.017239756900518e-05),
                ([685726.4729959342, 3927744.8864969877, 5174577.771849634, 16.0, 2.0], 0.00012794472276820662),
                ([2546731071.1407347, 5973916920.268359, 9374064694.304575, 16.0, 4.0], 0.05591916605234708),
                ([8705292985.014397, 12620216455.078089, 23128397505.10364, 16.0, 8.0], 0.38089981303718085),
            ],
        ),
    ];
    for (c, rows) in all {
        for ([nic_bytes, link_bytes, copied_bytes, units, nodes], wanted) in rows {
            let (nic_bytes, link_bytes, copied_bytes) = (*nic_bytes, *link_bytes, *copied_bytes);
            let row = NormalRow { link_bytes, nic_bytes, copied_bytes, units: *units, nodes: *nodes, peaks: H100 };
            near(NormalForm.seconds(&c, &row), *wanted);
        }
    }
    let c = [4.7760762422017355e-05, 5.769200972312644e-06];
    for (devices, wanted) in
        [(8.0, 0.00011604080978339974), (64.0, 0.00013971996825589322), (320.0, 0.0001538438158563352)]
    {
        let row = FusedExchangeRow { devices, messages: 1024.0, message_bytes: 7680.0, peaks: UB };
        near(FusedExchangeForm.seconds(&c, &row), wanted);
    }
    for (units, experts, k, wanted) in [
        (8.0, 256, 8, 5.294652000382481),
        (2.0, 256, 8, 1.9930201154318212),
        (4.0, 256, 8, 3.614214305566513),
        (64.0, 256, 8, 7.675750191770092),
        (256.0, 256, 8, 8.0),
        (2.0, 32, 4, 1.8987764182424915),
        (8.0, 384, 6, 4.429823346236269),
    ] {
        near(distinct(units, experts, k), wanted);
    }
}

/// Counts of uniform routing by hand.
#[test]
fn uniform_counts() {
    let x = Exchange { nodes: 8.0, devices: 8.0, tokens: 128.0, experts: 288, top_k: 8, hidden: 7168.0 };
    let low = LowLatencyRow::uniform(&x, ExchangeOp::Dispatch, 0.0, H100);
    // 1 024 messages of 7 408 bytes: 7 of 64 devices are in the node, 56 away.
    near(low.link_bytes, 1024.0 * 7408.0 * 7.0 / 64.0);
    near(low.nic_bytes, 1024.0 * 7408.0 * 56.0 / 64.0);
    near(low.flags, 252.0);
    // An expert costs its constant, wherever it is.
    let c: Vec<f64> = LOW_LATENCY.iter().map(|c| c.start).collect();
    let more = LowLatencyRow { experts: 388.0, ..low };
    near(LowLatencyForm.seconds(&c, &more) - LowLatencyForm.seconds(&c, &low), 100.0 * 1e-8);
    // One node: nothing leaves it; a token reaches 5.29 of 8 devices, 7 of 8 parts of that over the link.
    let x = Exchange { nodes: 1.0, tokens: 1000.0, experts: 256, ..x };
    let normal = NormalRow::uniform(&x, ExchangeOp::Combine, 20.0, H100);
    assert_eq!(normal.nic_bytes, 0.0);
    near(normal.link_bytes, 1000.0 * 14_336.0 * 5.294_652_000_382_481 * 7.0 / 8.0);
}

/// Draws of all experts reach all units; of none, none; a unit an expert, as many as experts.
#[test]
fn distinct_at_its_ends() {
    for units in [1.0, 2.0, 8.0, 64.0] {
        near(distinct(units, 64, 64), units);
        assert_eq!(distinct(units, 64, 0), 0.0);
        assert!(distinct(units, 64, u32::MAX).is_finite());
    }
    near(distinct(64.0, 64, 6), 6.0);
}

fn within(constants: &[Constant], at: &[f64]) -> Vec<f64> {
    constants.iter().zip(at).map(|(c, at)| c.bounds[0] + at * (c.bounds[1] - c.bounds[0])).collect()
}

proptest! {
    /// More tokens never cost less, and no number of them costs more than can be counted.
    #[test]
    fn more_tokens_never_cost_less(
        nodes in 1u32..64, tokens in 1.0f64..1e9, more in 1.0f64..1e3, combine: bool, units in 1u32..64,
        at in prop::collection::vec(0.0f64..1.0, 11),
    ) {
        let op = if combine { ExchangeOp::Combine } else { ExchangeOp::Dispatch };
        let x = |tokens| Exchange { nodes: f64::from(nodes), devices: 8.0, tokens, experts: 256, top_k: 8, hidden: 7168.0 };
        let c = within(&LOW_LATENCY, &at);
        let low = |tokens| LowLatencyForm.seconds(&c, &LowLatencyRow::uniform(&x(tokens), op, 0.0, H100));
        let d = within(&NORMAL, &at);
        let normal = |tokens| NormalForm.seconds(&d, &NormalRow::uniform(&x(tokens), op, f64::from(units), H100));
        let e = within(&FUSED, &at);
        let fused = |messages: f64| FusedExchangeForm.seconds(&e, &FusedExchangeRow {
            devices: f64::from(nodes), messages, message_bytes: 7680.0, peaks: UB });
        for (a, b) in [(low(tokens), low(tokens * more)), (normal(tokens), normal(tokens * more)), (fused(tokens), fused(tokens * more))] {
            prop_assert!(a.is_finite() && a > 0.0 && b.is_finite() && b >= a * (1.0 - 1e-9), "{a} {b}");
        }
    }
}
