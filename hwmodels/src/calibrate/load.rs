//! Loads of the benchmark behind the fused-MoE tables (aiconfigurator): how many tokens each expert of the timed rank
//! gets.

use crate::form::MoeLoad;
use moesim_core::rng::{Stream, below, stream};
use rand::Rng;

/// Draws over which a power-law load is averaged.
pub const DRAWS: u64 = 12;

/// A benchmark's global shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Global {
    /// Tokens over the expert-parallel group.
    pub tokens: u64,
    /// Routed experts.
    pub experts: u64,
    /// Experts a token.
    pub k: u64,
    /// Ranks of the group.
    pub ranks: u64,
    /// Whether a rank keeps only the tokens that selected one of its experts, and computes all k places of each on
    /// those experts: what SGLang's benchmark times before 0.5.14. Else every token passes through every rank's kernel.
    pub filled: bool,
}

/// The exponent of a power law of loads, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Power(pub u32);

impl Power {
    /// 1.2, which most tables have.
    pub const COMMON: Self = Self(1200);

    /// The name of a cell with such loads.
    pub(super) fn cell(self) -> String {
        if self == Self::COMMON { "power law".into() } else { format!("power law {}", f64::from(self.0) / 1000.0) }
    }
    /// The inverse of the distribution function of `x^-exponent` between two bounds.
    fn quantile(self, [low, high]: [f64; 2], part: f64) -> f64 {
        // 1 - exponent; thousandths are exact where it is made of them.
        let power = (1000.0 - f64::from(self.0)) / 1000.0;
        if power == 0.0 {
            return low * libm::pow(high / low, part);
        }
        let [a, b] = [low, high].map(|x| libm::pow(x, power));
        libm::pow(a + (b - a) * part, 1.0 / power)
    }
}

impl Global {
    fn local(&self) -> usize {
        (self.experts / self.ranks) as usize
    }

    /// Token t selects `(t + i s) mod E`, `s = ceil(E / k)`; with fewer tokens than that, `(t s / T + i s) mod E`. Rank
    /// 0 is timed.
    pub fn balanced(&self) -> MoeLoad {
        let Self { tokens, experts, k, .. } = *self;
        let step = experts.div_ceil(k);
        let mut counts = vec![0u32; self.local()];
        let mut kept = 0;
        for t in 0..tokens {
            let first = if tokens >= step { t } else { t * step / tokens };
            let mut here = false;
            for i in 0..k {
                if let Some(c) = counts.get_mut(((first + i * step) % experts) as usize) {
                    *c += 1;
                    here = true;
                }
            }
            kept += u64::from(here);
        }
        self.load(&counts, &|| kept)
    }

    /// Loads drawn from `x^-exponent`, the most loaded rank of each; the mean over [`DRAWS`] draws.
    pub fn power_law(&self, power: Power) -> MoeLoad {
        let mut sum = MoeLoad::default();
        for draw in 0..DRAWS {
            let mut r = stream(self.tokens ^ (self.experts << 32) ^ (self.k << 48), "power-law-load", draw);
            let counts = self.draw(power, &mut r);
            let rank = |c: &&[u32]| c.iter().map(|n| u64::from(*n)).sum::<u64>();
            // The first of the most loaded ones.
            let ranks: Vec<&[u32]> = counts.chunks(self.local()).collect();
            let most = ranks.iter().map(rank).max().unwrap_or(0);
            let timed = ranks.iter().position(|c| rank(c) == most).expect("there are ranks");
            let load = self.load(ranks[timed], &|| self.kept(&counts, timed));
            let add = |to: &mut f64, x: f64| *to += x / DRAWS as f64;
            add(&mut sum.tokens, load.tokens);
            add(&mut sum.off, load.off);
            add(&mut sum.active, load.active);
            add(&mut sum.rows, load.rows);
            add(&mut sum.least_blocks, load.least_blocks);
            sum.tiles.iter_mut().zip(load.tiles).for_each(|(t, x)| add(t, x));
        }
        sum
    }

    /// The load of a rank whose experts have these tokens; `kept` gives the tokens that selected one of them.
    fn load(&self, counts: &[u32], kept: &dyn Fn() -> u64) -> MoeLoad {
        let load = MoeLoad::of(counts.iter().copied());
        let (tokens, pairs) = (self.tokens as f64, (self.tokens * self.k) as f64);
        if !self.filled || self.ranks == 1 || load.rows == 0.0 {
            return MoeLoad { tokens, off: pairs - load.rows, ..load };
        }
        let kept = kept();
        let fill = (kept * self.k) as f64 / load.rows;
        let filled = counts.iter().map(|n| (f64::from(*n) * fill).round_ties_even() as u32);
        MoeLoad { tokens: kept as f64, off: 0.0, ..MoeLoad::of(filled) }
    }

    /// Tokens with an expert on a rank, where the pairs are listed by expert, the most loaded first, and token t has
    /// every T-th of them from the t-th on.
    fn kept(&self, counts: &[u32], rank: usize) -> u64 {
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|e| std::cmp::Reverse(counts[*e]));
        let tokens = self.tokens as usize;
        let mut change = vec![0i64; tokens + 1];
        let mut at = 0usize;
        for e in order {
            let n = counts[e] as usize;
            if n > 0 && e / self.local() == rank {
                let (first, last) = (at % tokens, at % tokens + n);
                change[first] += 1;
                change[last.min(tokens)] -= 1;
                if last > tokens {
                    change[0] += 1;
                    change[last - tokens] -= 1;
                }
            }
            at += n;
        }
        let mut open = 0;
        change[..tokens]
            .iter()
            .filter(|c| {
                open += **c;
                open > 0
            })
            .count() as u64
    }

    /// Tokens of every expert: draws by the inverse of the distribution function, scaled to all pairs, rounded, at most
    /// every token; what is over goes to the smallest experts, what is missing is dealt out from the smallest up. Equal
    /// loads are in random order.
    fn draw(&self, power: Power, r: &mut Stream) -> Vec<u32> {
        let Self { tokens, experts, k, .. } = *self;
        let pairs = tokens * k;
        let bounds = if pairs > experts { [1.0, 0.8 * tokens as f64] } else { [0.01, 2.0] };
        let x: Vec<f64> = (0..experts).map(|_| power.quantile(bounds, unit(r))).collect();
        let sum: f64 = x.iter().sum();
        let mut counts: Vec<u64> = x.iter().map(|x| (x / sum * pairs as f64).round_ties_even() as u64).collect();
        let mut over: u64 = counts.iter().map(|c| c.saturating_sub(tokens)).sum();
        counts.iter_mut().for_each(|c| *c = (*c).min(tokens));
        let ascending = |counts: &[u64], r: &mut Stream| {
            let mut order: Vec<(u64, u64, usize)> =
                counts.iter().enumerate().map(|(e, c)| (*c, r.next_u64(), e)).collect();
            order.sort_unstable();
            order.into_iter().map(|o| o.2).collect::<Vec<usize>>()
        };
        for e in ascending(&counts, r) {
            let add = over.min(tokens - counts[e]);
            counts[e] += add;
            over -= add;
        }
        let order = ascending(&counts, r);
        let (mut total, mut turn) = (counts.iter().sum::<u64>(), 0);
        while total != pairs {
            let e = order[turn % order.len()];
            turn += 1;
            if total < pairs && counts[e] < tokens {
                counts[e] += 1;
                total += 1;
            } else if total > pairs && counts[e] > 0 {
                counts[e] -= 1;
                total -= 1;
            }
        }
        counts.into_iter().map(|c| c as u32).collect()
    }
}

/// Uniform in [0, 1).
fn unit(r: &mut Stream) -> f64 {
    below(r.next_u64(), 1 << 53) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn balanced_loads_by_hand() {
        // 8 experts, top-2: step 4. Two tokens, fewer than the step: token 0 selects 0 and 4, token 1 selects 2 and 6.
        let g = Global { tokens: 2, experts: 8, k: 2, ranks: 2, filled: false };
        let load = g.balanced();
        assert_eq!((load.active, load.rows, load.off, load.tokens), (2.0, 2.0, 2.0, 2.0));
        // Both tokens selected one of the rank's experts, 0 and 2, and compute two places each on them.
        let load = Global { filled: true, ..g }.balanced();
        assert_eq!((load.active, load.rows, load.off, load.tokens), (2.0, 4.0, 0.0, 2.0));
        // Sixteen tokens: every expert gets four.
        let load = Global { tokens: 16, ranks: 1, ..g }.balanced();
        assert_eq!((load.active, load.rows, load.off, load.tiles), (8.0, 32.0, 0.0, [8.0; 5]));
    }

    #[test]
    fn quantiles_of_a_power_law() {
        // Of x^-2 on [1, 2] the distribution function is 2 (1 - 1/x); of 1/x it is the logarithm.
        for (power, half) in [(Power(2000), 4.0 / 3.0), (Power(1000), 2f64.sqrt())] {
            let of = |part| power.quantile([1.0, 2.0], part);
            assert!((of(0.0) - 1.0).abs() < 1e-12 && (of(1.0) - 2.0).abs() < 1e-12, "{power:?}");
            assert!((of(0.5) - half).abs() < 1e-12, "{power:?}");
        }
        // A flatter law has a lighter most loaded rank, and neighbours are near.
        let g = Global { tokens: 512, experts: 64, k: 8, ranks: 8, filled: false };
        let rows = |p| g.power_law(Power(p)).rows;
        assert!(rows(500) < rows(1010) && (rows(1010) / rows(1000) - 1.0).abs() < 0.05);
    }

    proptest! {
        /// Every pair has an expert, no expert has more than every token.
        #[test]
        fn draws_place_every_pair(tokens in 1u64..300, experts in 1u64..64, k in 1u64..9, seed in 0u64..9) {
            let k = k.min(experts);
            let g = Global { tokens, experts, k, ranks: 1, filled: false };
            let counts = g.draw(Power::COMMON, &mut stream(seed, "test", 0));
            prop_assert_eq!(counts.iter().map(|c| u64::from(*c)).sum::<u64>(), tokens * k);
            prop_assert!(counts.iter().all(|c| u64::from(*c) <= tokens));
            // With one rank every token is kept.
            prop_assert_eq!(g.kept(&counts, 0), tokens);
        }
    }
}
