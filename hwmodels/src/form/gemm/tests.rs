use super::*;
use proptest::prelude::*;

const H800: Peaks = Peaks { flop_per_s: 1978.9e12, bytes_per_s: 3.35e12, units: 132.0, l2_bytes: 50e6 };
const RTX: Peaks = Peaks { flop_per_s: 503.8e12, bytes_per_s: 1.597e12, units: 188.0, l2_bytes: 128e6 };
const COLD: GemmForm = GemmForm { warm: false, kernel: GemmKernel::WIDE };
const TYPICAL: [f64; 7] = [3.6e-6, 0.8, 5e-7, 0.91, 3.6, 1.8, 1.25];

fn row(load: GemmLoad, [n, k]: [f64; 2]) -> GemmRow {
    GemmRow { load, n, k, element_bytes: [1.0, 1.0, 2.0], peaks: H800 }
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
        1.122909835847224e-06,
        1.2512027360093751,
    ];
    for (m, n, k, wanted) in [
        (1.0, 2048.0, 4096.0, 9.462805202014477e-06),
        (592.0, 2048.0, 4096.0, 4.415895544329823e-05),
        (80.0, 5120.0, 2048.0, 1.3998640827113544e-05),
        (2000.0, 5120.0, 2048.0, 0.00013154537374376952),
    ] {
        let row = GemmRow { load: GemmLoad::even(1.0, m), n, k, element_bytes: [2.0; 3], peaks: RTX };
        near(GemmForm { warm: true, kernel: GemmKernel::CUBLAS }.seconds(&c, &row), wanted);
    }
}

/// By hand: a kernel that rounds its inputs takes `a_q` times the bytes of every row, which costs `k_q` elements more.
#[test]
fn rounding_comes_before_the_product() {
    let kernel = GemmKernel { rounds: true, ..GemmKernel::WIDE };
    let c = [&TYPICAL[..6], &[2.0, 400.0]].concat();
    let row = row(GemmLoad::even(1.0, 1000.0), [4096.0, 7168.0]);
    let more = GemmForm::cold(kernel).seconds(&c, &row) - COLD.seconds(&TYPICAL, &row);
    assert!((more / (2.0 * 1000.0 * 7568.0 * 3.0 / 3.35e12) - 1.0).abs() < 1e-9, "{more}");
}

/// By hand: where only one tile may run, its waves are counted: 512 rows of 7168 columns are 112 tiles of 128 by 256,
/// one wave.
#[test]
fn a_single_tile_runs_in_whole_waves() {
    let kernel = GemmKernel { tiling: GemmTiling::Single, ..GemmKernel::WIDE };
    let time =
        |rows: f64| GemmForm::cold(kernel).time(&TYPICAL, &row(GemmLoad::even(1.0, rows), [7168.0, 4096.0])).compute_s;
    assert_eq!(time(1.0), time(512.0));
    assert_eq!(time(1024.0), 2.0 * time(512.0));
}

/// The rule by rows: up to 64 rows a tile has 64, up to 128 it has 128 columns, then 128 rows too.
#[test]
fn tiles_by_rows() {
    let kernel = GemmKernel { tiling: GemmTiling::Rows, ..GemmKernel::WIDE };
    let open = |rows: f64, tile: [f64; 2]| kernel.open(tile[0], tile[1], rows);
    assert!(open(64.0, [64.0, 64.0]) && open(65.0, [64.0, 128.0]) && open(129.0, [128.0, 128.0]));
    assert!(!open(65.0, [64.0, 64.0]) && !open(1.0, [128.0, 128.0]));
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
        at in prop::collection::vec(0.0f64..1.0, 10), triton: bool, split_k: bool, warm: bool, rounds: bool,
        which in 0usize..5, tiling in 0usize..3,
    ) {
        let tiling = [GemmTiling::Best, GemmTiling::Rows, GemmTiling::Single][tiling];
        let kernel = GemmKernel { tiling, least_tile: if triton { 16.0 } else { 64.0 }, split_k, rounds };
        // A rule by rows is for dense products.
        let (groups, which) = if tiling == GemmTiling::Best { (groups, which) } else { (groups[..1].to_vec(), which.max(2)) };
        let form = GemmForm { warm, kernel };
        let c: Vec<f64> = form.constants().iter().zip(&at).map(|(c, at)| c.bounds[0] + at * (c.bounds[1] - c.bounds[0])).collect();
        let base = row(GemmLoad::of(groups.clone()), [f64::from(n), f64::from(k)]);
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
