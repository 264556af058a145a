use super::*;
use proptest::prelude::*;

const B200: Peaks = Peaks { flop_per_s: 9e15, bytes_per_s: 8e12, units: 148.0, l2_bytes: 126e6 };

fn shape(experts: f64) -> MoeShape {
    let (weight_bytes, activation_bytes) = (0.5625, 0.5625);
    MoeShape { hidden: 4096.0, intermediate: 2048.0, first: 2.0, experts, weight_bytes, activation_bytes, tuned: false }
}

/// The one tile that a rule chooses for experts with so many rows each, beside pairs of other devices.
fn chosen(tiling: Tiling, counts: &[u32], off: f64) -> [f64; 2] {
    let load = MoeLoad { off, ..MoeLoad::of(counts.iter().copied()) };
    let (options, n) = FusedMoeForm { tiling }.options(&load, &shape(counts.len() as f64));
    assert_eq!(n, 1);
    [options[0].height, options[0].tiles]
}

/// Tiles grow with the choices of all tokens, whoever's experts they are.
#[test]
fn tiles_by_choices() {
    // 20 rows each are two tiles of 16 or one of 32.
    assert_eq!(chosen(Tiling::Rows, &[20, 20], 0.0), [32.0, 2.0]);
    assert_eq!(chosen(Tiling::Rows, &[10, 20], 0.0), [16.0, 3.0]);
    // With 200 pairs of other devices beside 40 the mean is 120.
    assert_eq!(chosen(Tiling::Rows, &[20, 20], 200.0), [128.0, 2.0]);
    assert_eq!(chosen(Tiling::Rows, &[20, 20], 2e6), [128.0, 2.0]);
}

/// Marlin's blocks: eight rows up to 7.2 a mean, 16 up to 14.4, 32 up to 28.8, then 64.
#[test]
fn blocks_of_marlin() {
    assert_eq!(chosen(Tiling::Blocks, &[7, 0, 7], 0.0), [8.0, 2.0]);
    // Where loads are uneven an expert may take several: one of 8, then three for 17 rows.
    assert_eq!(chosen(Tiling::Blocks, &[0, 1, 17], 0.0), [8.0, 4.0]);
    assert_eq!(chosen(Tiling::Blocks, &[8, 8], 0.0), [16.0, 2.0]);
    assert_eq!(chosen(Tiling::Blocks, &[15, 15], 0.0), [32.0, 2.0]);
    assert_eq!(chosen(Tiling::Blocks, &[29, 200], 0.0), [64.0, 5.0]);
}

proptest! {
    /// Times are times under any constants; where the tile is the fastest, an idle expert more costs nothing but its
    /// walk. (By a rule an idle expert lowers the mean, which may take a lower tile.)
    #[test]
    fn idle_experts_are_cheap(
        counts in prop::collection::vec(0u32..300, 1..40), at in prop::collection::vec(0.0f64..1.0, 14), which in 0usize..3,
    ) {
        let form = FusedMoeForm { tiling: [Tiling::Best, Tiling::Rows, Tiling::Blocks][which] };
        let c: Vec<f64> = form.constants().iter().zip(&at).map(|(c, at)| c.bounds[0] + at * (c.bounds[1] - c.bounds[0])).collect();
        let time = |experts: f64| {
            let load = MoeLoad::of(counts.iter().copied());
            form.seconds(&c, &MoeRow { load, shape: shape(experts), peaks: B200 })
        };
        let n = counts.len() as f64;
        prop_assert!(time(n).is_finite() && time(n) >= c[0]);
        if form.tiling == Tiling::Best {
            let walk = 2.0 * 0.5 * c[8];
            prop_assert!(time(n + 1.0) >= time(n) && time(n + 1.0) <= time(n) + walk * (1.0 + 1e-9));
        }
    }
}
