use super::*;
use proptest::prelude::*;

const H800: Peaks = Peaks { flop_per_s: 1978.9e12, bytes_per_s: 3.35e12, units: 132.0, l2_bytes: 50e6 };
const RTX: Peaks = Peaks { flop_per_s: 503.8e12, bytes_per_s: 1.597e12, units: 188.0, l2_bytes: 128e6 };
const COLD: GemmForm = GemmForm { warm: false };
const TYPICAL: [f64; 7] = [3.6e-6, 0.8, 5e-7, 0.91, 3.6, 1.8, 1.25];

fn row(load: GemmLoad, [n, k]: [f64; 2]) -> GemmRow {
    GemmRow { load, n, k, element_bytes: [1.0, 1.0, 2.0], kernel: GemmKernel::WIDE, peaks: H800 }
}

/// Times of the form as written out in another language, apart: same constants, same shapes.
#[test]
fn agrees_with_the_form_written_apart() {
    let near = |t: f64, wanted: f64| assert!((t / wanted - 1.0).abs() < 1e-9, "{t} {wanted}");
    let c = [
        8.479404352705824e-07,
        0.7178879193925283,
        2.947036323410529e-06,
        0.8614493795807039,
        5.25103713343222,
        2.503844895996947,
    ];
    for (groups, m, n, k, wanted) in [
        (1.0, 64.0, 2112.0, 7168.0, 9.393845135542593e-06),
        (1.0, 128.0, 32768.0, 512.0, 1.1110480528960542e-05),
        (1.0, 4096.0, 2112.0, 7168.0, 0.00010910628075747099),
        (8.0, 4096.0, 4096.0, 7168.0, 0.0015284967613669552),
        (2.0, 512.0, 4096.0, 7168.0, 5.233227892416265e-05),
    ] {
        near(COLD.seconds(&c, &row(GemmLoad::even(groups, m), [n, k])), wanted);
    }
    // 64 groups of 45 to 82 rows, decode.
    let c = [
        7.140118893509703e-06,
        0.7947369768581162,
        2.871545238151511e-07,
        0.9037028246121621,
        3.164841996196572,
        2.1139726533541445,
    ];
    let load = GemmLoad::of((0..64).map(|e| (64.0 * (0.7 + 0.6 * (f64::from(e) + 0.5) / 64.0)) as u32));
    near(COLD.seconds(&c, &row(load, [4096.0, 7168.0])), 0.0007327651141450721);
    // Warm, any tile, K split.
    let c = [
        2.0035949579314664e-07,
        0.7354178533893688,
        1.122909835847224e-06,
        0.907379004110259,
        4.230120266475329,
        11.999930192959415,
        1.2512027360093751,
    ];
    for (m, n, k, wanted) in [
        (1.0, 2048.0, 4096.0, 9.462805202014477e-06),
        (592.0, 2048.0, 4096.0, 4.415895544329823e-05),
        (80.0, 5120.0, 2048.0, 1.3998640827113544e-05),
        (2000.0, 5120.0, 2048.0, 0.00013154537374376952),
    ] {
        let row = GemmRow {
            load: GemmLoad::even(1.0, m),
            n,
            k,
            element_bytes: [2.0; 3],
            kernel: GemmKernel::CUBLAS,
            peaks: RTX,
        };
        near(GemmForm { warm: true }.seconds(&c, &row), wanted);
    }
}

#[test]
fn no_rows_take_the_launch_alone() {
    let none = row(GemmLoad::of([0, 0]), [4096.0, 4096.0]);
    assert_eq!(COLD.seconds(&TYPICAL, &none), TYPICAL[0]);
}

/// The same rows over more groups read more weights.
#[test]
fn the_spread_over_groups_is_felt() {
    let even = row(GemmLoad::even(32.0, 16.0), [4096.0, 7168.0]);
    let one = row(GemmLoad::even(1.0, 512.0), [4096.0, 7168.0]);
    assert_eq!(even.load.rows, one.load.rows);
    assert!(COLD.seconds(&TYPICAL, &even) > 4.0 * COLD.seconds(&TYPICAL, &one));
}

#[test]
fn extremes_are_finite() {
    for n in [1.0, 1e9] {
        for rows in [1.0, 1e9] {
            for k in [1.0, 1e9] {
                let t = COLD.seconds(&TYPICAL, &row(GemmLoad::even(1e4, rows), [n, k]));
                assert!(t.is_finite() && t >= TYPICAL[0], "{rows} {n} {k}: {t}");
            }
        }
    }
}

proptest! {
    /// More rows, groups, columns or K never cost less, under any constants and kernel.
    #[test]
    fn more_never_costs_less(
        groups in prop::collection::vec(0u32..3000, 1..6), n in 1u32..40_000, k in 1u32..20_000,
        at in prop::collection::vec(0.0f64..1.0, 7), triton: bool, split_k: bool, warm: bool,
        which in 0usize..5,
    ) {
        let form = GemmForm { warm };
        let c: Vec<f64> = form.constants().iter().zip(&at).map(|(c, at)| c.bounds[0] + at * (c.bounds[1] - c.bounds[0])).collect();
        let kernel = GemmKernel { least_tile: if triton { 16.0 } else { 64.0 }, split_k };
        let base = GemmRow { kernel, ..row(GemmLoad::of(groups.clone()), [f64::from(n), f64::from(k)]) };
        let mut more = groups;
        let mut row = base;
        match which {
            0 => more[0] += 1,
            1 => more.push(1),
            2 => row.n += 1.0,
            3 => row.k += 1.0,
            _ => row.k *= 2.0,
        }
        row.load = GemmLoad::of(more);
        let (a, b) = (form.seconds(&c, &base), form.seconds(&c, &row));
        prop_assert!(a.is_finite() && a > 0.0 && b >= a * (1.0 - 1e-9), "{a} {b}");
    }
}
