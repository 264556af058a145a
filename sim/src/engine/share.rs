//! Max-min rates of operations that draw on the same shared channels.

/// One operation in its body, as the solver sees it.
#[derive(Clone, Debug)]
pub struct Drawer {
    /// (channel, amount of the whole body) for every channel it draws on; amounts above zero.
    pub demands: Vec<(u32, f64)>,
    /// The body's time alone, in seconds: no operation runs faster than alone.
    pub alone_s: f64,
}

/// Rates in bodies per second, max-min fair in bytes per second of each operation's largest demand (progressive
/// filling: Bertsekas and Gallager, Data Networks, section 6.5.2): all rates rise together; an operation stops at its own
/// speed, or when one of its channels is full.
///
/// `capacity(channel)` is in bytes per second. Quadratic in the number of operations, which are few here.
pub fn max_min(drawers: &[Drawer], capacity: impl Fn(u32) -> f64) -> Vec<f64> {
    let weight: Vec<f64> = drawers.iter().map(|d| d.demands.iter().map(|x| x.1).fold(0.0, f64::max)).collect();
    let mut channels: Vec<u32> = drawers.iter().flat_map(|d| d.demands.iter().map(|x| x.0)).collect();
    channels.sort_unstable();
    channels.dedup();
    let mut rates = vec![0.0; drawers.len()];
    let mut open = vec![true; drawers.len()];
    while open.iter().any(|&o| o) {
        // The level (bytes per second of the largest demand) at which each channel would be full.
        let full: Vec<f64> = channels
            .iter()
            .map(|&c| {
                let (mut taken, mut slope) = (0.0, 0.0);
                for (i, d) in drawers.iter().enumerate() {
                    for &(_, amount) in d.demands.iter().filter(|x| x.0 == c) {
                        if open[i] { slope += amount / weight[i] } else { taken += amount * rates[i] }
                    }
                }
                if slope > 0.0 { ((capacity(c) - taken) / slope).max(0.0) } else { f64::INFINITY }
            })
            .collect();
        let own = |i: usize| weight[i] / drawers[i].alone_s;
        let level =
            full.iter().copied().chain((0..drawers.len()).filter(|&i| open[i]).map(own)).fold(f64::INFINITY, f64::min);
        for i in 0..drawers.len() {
            if !open[i] {
                continue;
            }
            let blocked =
                drawers[i].demands.iter().any(|x| channels.binary_search(&x.0).is_ok_and(|at| full[at] <= level));
            if own(i) <= level {
                rates[i] = 1.0 / drawers[i].alone_s;
                open[i] = false;
            } else if blocked {
                rates[i] = level / weight[i];
                open[i] = false;
            }
        }
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drawer(demands: &[(u32, f64)], alone_s: f64) -> Drawer {
        Drawer { demands: demands.to_vec(), alone_s }
    }

    #[test]
    fn a_slow_copy_keeps_its_speed_and_the_kernel_gets_the_rest() {
        // Channel of 100 B/s; the copy alone moves 10 B/s, the kernel alone 100 B/s.
        let rates = max_min(&[drawer(&[(0, 10.0)], 1.0), drawer(&[(0, 100.0)], 1.0)], |_| 100.0);
        assert_eq!(rates, [1.0, 0.9]);
    }

    #[test]
    fn equals_share_equally() {
        let d = drawer(&[(3, 50.0)], 0.5);
        assert_eq!(max_min(&[d.clone(), d.clone(), d.clone(), d], |_| 100.0), [0.5; 4]);
    }

    #[test]
    fn the_textbook_line_network() {
        // Two links of 1; one flow over both, one on each: 1/2 for all.
        let flows = [drawer(&[(0, 1.0), (1, 1.0)], 0.1), drawer(&[(0, 1.0)], 0.1), drawer(&[(1, 1.0)], 0.1)];
        assert_eq!(max_min(&flows, |_| 1.0), [0.5; 3]);
        // The second link twice as wide: the lone flow on it takes what the long one leaves.
        assert_eq!(max_min(&flows, |c| f64::from(c + 1)), [0.5, 0.5, 1.5]);
    }

    proptest! {
        #[test]
        fn no_channel_is_overdrawn_and_no_rate_can_rise_alone(
            raw in prop::collection::vec((prop::collection::btree_map(0u32..4, 1.0..100.0f64, 1..4), 0.1..10.0f64), 1..8),
            caps in prop::collection::vec(1.0..50.0f64, 4),
        ) {
            let drawers: Vec<_> = raw.iter().map(|(d, s)| drawer(&d.iter().map(|(c, a)| (*c, *a)).collect::<Vec<_>>(), *s)).collect();
            let rates = max_min(&drawers, |c| caps[c as usize]);
            let load = |c: u32| -> f64 {
                drawers.iter().zip(&rates).flat_map(|(d, r)| d.demands.iter().filter(move |x| x.0 == c).map(move |x| x.1 * r)).sum()
            };
            for c in 0..4 {
                prop_assert!(load(c) <= caps[c as usize] * (1.0 + 1e-9));
            }
            for (d, &r) in drawers.iter().zip(&rates) {
                prop_assert!(r > 0.0 && r <= 1.0 / d.alone_s * (1.0 + 1e-12));
                let at_speed = r >= 1.0 / d.alone_s * (1.0 - 1e-9);
                let blocked = d.demands.iter().any(|x| load(x.0) >= caps[x.0 as usize] * (1.0 - 1e-9));
                prop_assert!(at_speed || blocked);
            }
        }
    }
}
