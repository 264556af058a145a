//! Parts of what was measured in which errors of constants cannot hide: differences between points of one server.

use super::Point;
use std::collections::BTreeMap;

/// A component: measured and simulated values by what they are of.
#[derive(Clone, Debug, Default)]
pub struct Component {
    /// (measured, simulated), one a server or series.
    pub pairs: Vec<(f64, f64)>,
}

/// The components of a set of points.
#[derive(Clone, Debug, Default)]
pub struct Components {
    /// Milliseconds that a long prompt takes from the decodes beside it: TPOT with long prompts less TPOT with short ones, of one server
    /// and as many clients, times the tokens of an output, over the other clients, each of whom sends one prompt meanwhile.
    pub prompt_in_decodes: Component,
    /// TTFT with long prompts less TTFT with short ones, milliseconds, at the fewest clients of the server.
    pub prompt_alone: Component,
    /// TPOT at the fewest clients, where those are four or fewer.
    pub few_clients: Component,
    /// Milliseconds of TPOT a client: between the fewest and the most clients of a series.
    pub slope: Component,
}

/// A point with what was simulated.
#[derive(Clone, Copy, Debug)]
pub struct Both<'a> {
    /// As measured.
    pub point: &'a Point,
    /// Simulated TTFT, milliseconds.
    pub ttft_ms: f64,
    /// Simulated TPOT, milliseconds.
    pub tpot_ms: f64,
}

/// Clients that are few.
const FEW: u32 = 4;

impl Components {
    /// Of points that were simulated.
    pub fn of(points: &[Both]) -> Self {
        let mut out = Self::default();
        let mut servers: BTreeMap<(String, u32), Vec<&Both>> = BTreeMap::new();
        let mut series: BTreeMap<String, Vec<&Both>> = BTreeMap::new();
        for b in points {
            servers.entry((b.point.server(), b.point.conc)).or_default().push(b);
            series.entry(b.point.series()).or_default().push(b);
            if b.point.conc <= FEW {
                out.few_clients.pairs.push((b.point.mean_tpot_ms, b.tpot_ms));
            }
        }
        let mut alone: BTreeMap<&str, (u32, (f64, f64))> = BTreeMap::new();
        for ((server, clients), at) in &servers {
            let long = at.iter().find(|b| b.point.is_long_prompt());
            let short = at.iter().find(|b| b.point.is_short_prompt());
            let (Some(long), Some(short)) = (long, short) else { continue };
            let first = long.point.mean_ttft_ms - short.point.mean_ttft_ms;
            let entry = alone.entry(server).or_insert((u32::MAX, (0.0, 0.0)));
            if *clients < entry.0 {
                *entry = (*clients, (first, long.ttft_ms - short.ttft_ms));
            }
            if *clients > 1 {
                let each = 0.9 * f64::from(long.point.osl) / f64::from(clients - 1);
                let measured = long.point.mean_tpot_ms - short.point.mean_tpot_ms;
                out.prompt_in_decodes.pairs.push((measured * each, (long.tpot_ms - short.tpot_ms) * each));
            }
        }
        out.prompt_alone.pairs = alone.into_values().map(|(_, pair)| pair).collect();
        for of in series.values() {
            let fewest = of.iter().min_by_key(|b| b.point.conc);
            let most = of.iter().max_by_key(|b| b.point.conc);
            let (Some(a), Some(b)) = (fewest, most) else { continue };
            if a.point.conc < b.point.conc {
                let clients = f64::from(b.point.conc - a.point.conc);
                let measured = (b.point.mean_tpot_ms - a.point.mean_tpot_ms) / clients;
                out.slope.pairs.push((measured, (b.tpot_ms - a.tpot_ms) / clients));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::point;
    use super::*;

    #[test]
    fn components_by_hand() {
        let row =
            |isl, osl, conc, ttft, tpot| Point { isl, osl, conc, mean_ttft_ms: ttft, mean_tpot_ms: tpot, ..point() };
        let points = [
            row(1024, 8192, 4, 30.0, 6.0),
            row(8192, 1024, 4, 200.0, 6.9),
            row(8192, 1024, 10, 400.0, 9.9),
            row(1024, 8192, 10, 60.0, 7.2),
        ];
        // Simulated: TTFT twice, TPOT half of it.
        let both =
            points.each_ref().map(|p| Both { point: p, ttft_ms: 2.0 * p.mean_ttft_ms, tpot_ms: p.mean_tpot_ms / 2.0 });
        let c = Components::of(&both);
        assert_eq!(c.prompt_alone.pairs, [(170.0, 340.0)]);
        assert_eq!(c.few_clients.pairs, [(6.0, 3.0), (6.9, 3.45)]);
        let near = |found: &[(f64, f64)], expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            for (f, e) in found.iter().zip(expected) {
                assert!((f.0 - e).abs() < 1e-9 && (f.1 - e / 2.0).abs() < 1e-9, "{found:?}");
            }
        };
        // 0.9 ms x 921.6 tokens over three others, 2.7 ms over nine.
        near(&c.prompt_in_decodes.pairs, &[276.48, 276.48]);
        near(&c.slope.pairs, &[0.2, 0.5]);
    }

    #[test]
    fn a_server_with_one_kind_of_request_has_no_pair() {
        let p = point();
        let c = Components::of(&[Both { point: &p, ttft_ms: 1.0, tpot_ms: 1.0 }]);
        assert!(c.prompt_alone.pairs.is_empty() && c.slope.pairs.is_empty() && c.prompt_in_decodes.pairs.is_empty());
    }
}
