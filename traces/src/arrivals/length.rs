//! Drawn token counts.

use super::gaps::sample;
use super::real::Real;
use super::{Request, TOKENS, out_of_range};
use moesim_core::rng::{Stream, below, stream};
use moesim_core::{Diag, Picos, Result};
use rand::Rng;
use rand_distr::{Gamma, LogNormal, Normal, Zipf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number of tokens, at least 1: `{ mean = 500 }`, or as `distribution` says. Draws are rounded to whole tokens, and one
/// outside of `min` to `max` is the nearer of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Length {
    /// How it varies.
    #[serde(default)]
    pub distribution: LengthDistribution,
    /// The mean, of all but Zipf and table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<u32>,
    /// Of uniform: half the width of the range over the mean, 0 (constant, unless told otherwise) to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// Of normal, log-normal and gamma: the standard deviation over the mean, 0.01 to 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cv: Option<f64>,
    /// Of Zipf: n tokens above the smallest are as probable as (n + 1)^-exponent; 0 (all lengths alike) to 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponent: Option<f64>,
    /// Of normal, log-normal, gamma and Zipf: the fewest tokens; 1 unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// Of normal, log-normal, gamma and Zipf: the most tokens; Zipf needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Of table: the lengths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<u32>>,
    /// Of table: how probable each is beside the others, for example how often it was counted; all alike unless told
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<f64>>,
}

/// How token counts vary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LengthDistribution {
    /// Evenly in mean x (1 - spread) .. mean x (1 + spread); without spread not at all.
    #[default]
    Uniform,
    /// Normal.
    Normal,
    /// Log-normal: few are very long.
    LogNormal,
    /// Gamma; a cv of 1 is exponential.
    Gamma,
    /// Zipf's law from the smallest length up.
    Zipf,
    /// Lengths and their weights.
    Table,
}

/// Entries of a table at most.
const ENTRIES: usize = 1 << 16;

/// A length whose keys are sound.
#[derive(Clone, Debug)]
pub(super) enum Draw {
    Uniform {
        low: u32,
        high: u32,
    },
    Normal {
        normal: Normal<Real>,
        bounds: [u32; 2],
    },
    LogNormal {
        log_normal: LogNormal<Real>,
        bounds: [u32; 2],
    },
    Gamma {
        gamma: Gamma<Real>,
        bounds: [u32; 2],
    },
    Zipf {
        zipf: Zipf<Real>,
        bounds: [u32; 2],
    },
    /// With the sums of weights up to each.
    Table {
        tokens: std::sync::Arc<[u32]>,
        sums: std::sync::Arc<[f64]>,
    },
}

impl Length {
    /// Always so many tokens.
    pub fn constant(tokens: u32) -> Self {
        Self { mean: Some(tokens), ..Self::default() }
    }
    /// Uniform around a mean.
    pub fn uniform(mean: u32, spread: f64) -> Self {
        Self { mean: Some(mean), spread: Some(spread), ..Self::default() }
    }

    /// Checks the keys of the table `place`.
    pub(super) fn check(&self, place: &str) -> Result<Draw> {
        use LengthDistribution as D;
        let key = |name: &str| format!("{place}.{name}");
        let given = [
            ("mean", self.mean.is_some()),
            ("spread", self.spread.is_some()),
            ("cv", self.cv.is_some()),
            ("exponent", self.exponent.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("tokens", self.tokens.is_some()),
            ("weights", self.weights.is_some()),
        ];
        let (name, known): (_, &[&str]) = match self.distribution {
            D::Uniform => ("uniform", &["mean", "spread"]),
            D::Normal => ("normal", &["mean", "cv", "min", "max"]),
            D::LogNormal => ("log-normal", &["mean", "cv", "min", "max"]),
            D::Gamma => ("gamma", &["mean", "cv", "min", "max"]),
            D::Zipf => ("zipf", &["exponent", "min", "max"]),
            D::Table => ("table", &["tokens", "weights"]),
        };
        if let Some((unused, _)) = given.iter().find(|(k, given)| *given && !known.contains(k)) {
            return Err(Diag::input(format!("means nothing to the distribution {name}"))
                .place(key(unused))
                .cure(format!("leave it out, or choose another distribution ({name} has {})", known.join(", "))));
        }
        let lacking = |name: &str, cure: &str| Diag::input("is lacking").place(key(name)).cure(cure);
        let tokens = |name: &str, n: u32| match (1..=TOKENS).contains(&n) {
            true => Ok(n),
            false => Err(out_of_range(&key(name), n.to_string(), "from 1 to 16777216 tokens")),
        };
        let mean = || tokens("mean", self.mean.ok_or_else(|| lacking("mean", "give the mean number of tokens"))?);
        let cv = || match self.cv {
            None => Err(lacking("cv", "give the standard deviation over the mean, as in cv = 0.5")),
            Some(cv) if (0.01..=10.0).contains(&cv) => Ok(cv),
            Some(cv) => Err(out_of_range(&key("cv"), cv.to_string(), "from 0.01 to 10")),
        };
        let bounds = || {
            let (low, high) = (tokens("min", self.min.unwrap_or(1))?, tokens("max", self.max.unwrap_or(TOKENS))?);
            match low <= high {
                true => Ok([low, high]),
                false => Err(out_of_range(&key("max"), high.to_string(), &format!("at least min, which is {low}"))),
            }
        };
        // Ranges are those that rand_distr takes.
        let refused = |e: String| Diag::input(e).place(place).cure("give other values");
        Ok(match self.distribution {
            D::Uniform => {
                let (mean, spread) = (mean()?, self.spread.unwrap_or(0.0));
                if !(0.0..=1.0).contains(&spread) {
                    return Err(out_of_range(&key("spread"), spread.to_string(), "from 0 (constant) to 1"));
                }
                let half = (f64::from(mean) * spread) as u32;
                Draw::Uniform { low: (mean - half).max(1), high: (mean + half).min(TOKENS) }
            }
            D::Normal => {
                let normal = Normal::from_mean_cv(Real(mean()?.into()), Real(cv()?));
                Draw::Normal { normal: normal.map_err(|e| refused(e.to_string()))?, bounds: bounds()? }
            }
            D::LogNormal => {
                let log_normal = LogNormal::from_mean_cv(Real(mean()?.into()), Real(cv()?));
                Draw::LogNormal { log_normal: log_normal.map_err(|e| refused(e.to_string()))?, bounds: bounds()? }
            }
            D::Gamma => {
                let (mean, cv) = (f64::from(mean()?), cv()?);
                let gamma = Gamma::new(Real(1.0 / (cv * cv)), Real(mean * cv * cv));
                Draw::Gamma { gamma: gamma.map_err(|e| refused(e.to_string()))?, bounds: bounds()? }
            }
            D::Zipf => {
                let exponent = self.exponent.ok_or_else(|| lacking("exponent", "give it, as in exponent = 1.2"))?;
                if !(0.0..=10.0).contains(&exponent) {
                    return Err(out_of_range(&key("exponent"), exponent.to_string(), "from 0 to 10"));
                }
                if self.max.is_none() {
                    return Err(lacking("max", "give the most tokens of a length"));
                }
                let bounds = bounds()?;
                let zipf = Zipf::new(Real(f64::from(bounds[1] - bounds[0] + 1)), Real(exponent));
                Draw::Zipf { zipf: zipf.map_err(|e| refused(e.to_string()))?, bounds }
            }
            D::Table => {
                let lengths = self.tokens.as_ref().ok_or_else(|| lacking("tokens", "list the lengths"))?;
                if !(1..=ENTRIES).contains(&lengths.len()) {
                    let d = Diag::input(format!("has {} entries", lengths.len())).place(key("tokens"));
                    return Err(d.cure("list from 1 to 65536 lengths"));
                }
                for n in lengths {
                    tokens("tokens", *n)?;
                }
                let weights = self.weights.clone().unwrap_or_else(|| vec![1.0; lengths.len()]);
                let sound = weights.iter().all(|w| (0.0..=1e15).contains(w)) && weights.iter().any(|w| *w > 0.0);
                if weights.len() != lengths.len() || !sound {
                    let d = Diag::input(format!("are not weights of the {} lengths", lengths.len()));
                    let cure = "give one a length, from 0 to 1e15, not all 0";
                    return Err(d.place(key("weights")).cure(cure));
                }
                let sums = weights.iter().scan(0.0, |sum, w| {
                    *sum += w;
                    Some(*sum)
                });
                Draw::Table { tokens: lengths.as_slice().into(), sums: sums.collect() }
            }
        })
    }
}

impl Draw {
    /// A number of tokens.
    pub(super) fn draw(&self, r: &mut Stream) -> u32 {
        let bounded = |x: f64, [low, high]: [u32; 2]| (libm::round(x).max(0.0) as u32).clamp(low, high);
        match self {
            Self::Uniform { low, high } => low + below(r.next_u64(), u64::from(high - low) + 1) as u32,
            Self::Normal { normal, bounds } => bounded(sample(normal, r), *bounds),
            Self::LogNormal { log_normal, bounds } => bounded(sample(log_normal, r), *bounds),
            Self::Gamma { gamma, bounds } => bounded(sample(gamma, r), *bounds),
            Self::Zipf { zipf, bounds } => bounded(sample(zipf, r) + f64::from(bounds[0] - 1), *bounds),
            Self::Table { tokens, sums } => {
                let at: f64 = rand::distr::Distribution::sample(&rand::distr::StandardUniform, r);
                let at = at * sums[sums.len() - 1];
                tokens[sums.partition_point(|s| *s <= at).min(tokens.len() - 1)]
            }
        }
    }
}

/// Requests with drawn lengths and no arrival yet.
pub(super) struct Lengths {
    prompt: Draw,
    output: Draw,
    stream: Stream,
    next: u64,
    requests: u64,
}

impl Lengths {
    pub(super) fn new(seed: u64, prompt: &Length, output: &Length, requests: u64) -> Result<Self> {
        let (prompt, output) = (prompt.check("prompt_tokens")?, output.check("output_tokens")?);
        if requests == 0 {
            return Err(out_of_range("requests", "0".into(), "at least 1"));
        }
        Ok(Self { prompt, output, stream: stream(seed, "arrivals", 1), next: 0, requests })
    }
}

impl Iterator for Lengths {
    type Item = Request;
    fn next(&mut self) -> Option<Request> {
        let id = self.next;
        self.next += 1;
        (id < self.requests).then(|| {
            let prompt = self.prompt.draw(&mut self.stream);
            Request::new(id, Picos::ZERO, prompt, self.output.draw(&mut self.stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::failure;
    use super::*;
    use LengthDistribution as D;

    const N: usize = 200_000;

    fn of(distribution: D) -> Length {
        Length { distribution, mean: Some(1000), cv: Some(0.5), ..Length::default() }
    }
    fn draws(length: &Length) -> Vec<u32> {
        let draw = length.check("prompt_tokens").unwrap();
        let mut r = stream(3, "test", 0);
        let mut all: Vec<u32> = (0..N).map(|_| draw.draw(&mut r)).collect();
        all.sort_unstable();
        all
    }
    fn mean(all: &[u32]) -> f64 {
        all.iter().map(|n| f64::from(*n)).sum::<f64>() / all.len() as f64
    }
    /// The share of draws up to this length is the exact one, within five standard errors.
    fn up_to(all: &[u32], tokens: u32, exact: f64) {
        let share = all.partition_point(|n| *n <= tokens) as f64 / all.len() as f64;
        assert!((share - exact).abs() < 5.0 * (0.25 / all.len() as f64).sqrt(), "{tokens}: {share}, not {exact}");
    }
    /// The distribution function of the normal.
    fn phi(x: f64) -> f64 {
        0.5 * libm::erfc(-x / 2f64.sqrt())
    }

    #[test]
    fn lengths_have_their_means_and_quantiles() {
        // Draws are rounded, so that the share up to n is that below n + 0.5.
        let normal = draws(&of(D::Normal));
        for n in [1u32, 500, 1000, 1700] {
            up_to(&normal, n, phi((f64::from(n) - 999.5) / 500.0));
        }
        let log_normal = draws(&of(D::LogNormal));
        let sigma = libm::log1p(0.25).sqrt();
        for n in [300u32, 800, 1000, 2500] {
            up_to(&log_normal, n, phi((libm::log((f64::from(n) + 0.5) / 1000.0) + sigma * sigma / 2.0) / sigma));
        }
        // A shape of 4 is the sum of four exponentials of 250.
        let gamma = draws(&of(D::Gamma));
        for n in [300u32, 800, 1000, 2500] {
            let x = (f64::from(n) + 0.5) / 250.0;
            up_to(&gamma, n, 1.0 - libm::exp(-x) * (1.0 + x + x * x / 2.0 + x * x * x / 6.0));
        }
        // The normal lacks what is below 1: 2.3 % of it, 0.85 % of the mean.
        let below = 1000.0 * (0.5 * libm::exp(-2.0) / (2.0 * std::f64::consts::PI).sqrt() - phi(-2.0));
        for (all, exact) in [(normal, 1000.0 + below), (log_normal, 1000.0), (gamma, 1000.0)] {
            let found = mean(&all);
            assert!((found - exact).abs() < 5.0 * 500.0 / (N as f64).sqrt(), "{found}, not {exact}");
        }
        let zipf =
            Length { distribution: D::Zipf, exponent: Some(1.2), min: Some(10), max: Some(1009), ..Length::default() };
        let all = draws(&zipf);
        let weight = |n: u32| libm::pow(f64::from(n), -1.2);
        let total: f64 = (1..=1000).map(weight).sum();
        for n in [1u32, 2, 10, 100, 999] {
            up_to(&all, n + 9, (1..=n).map(weight).sum::<f64>() / total);
        }
        let exact = (1..=1000).map(|n| f64::from(n + 9) * weight(n)).sum::<f64>() / total;
        let square = (1..=1000).map(|n| f64::from(n + 9) * f64::from(n + 9) * weight(n)).sum::<f64>() / total;
        assert!((mean(&all) - exact).abs() < 5.0 * ((square - exact * exact) / N as f64).sqrt());
        let table = |weights: Option<Vec<f64>>| Length {
            distribution: D::Table,
            tokens: Some(vec![7, 90, 8]),
            weights,
            ..Length::default()
        };
        let all = draws(&table(Some(vec![1.0, 0.0, 3.0])));
        up_to(&all, 7, 0.25);
        assert_eq!((all[0], all[N - 1]), (7, 8));
        let all = draws(&table(None));
        up_to(&all, 7, 1.0 / 3.0);
        up_to(&all, 8, 2.0 / 3.0);
    }

    #[test]
    fn bounds_hold_and_old_files_keep_their_draws() {
        let bounded = Length { min: Some(900), max: Some(1100), ..of(D::LogNormal) };
        let all = draws(&bounded);
        assert_eq!((all[0], all[N - 1]), (900, 1100));
        let old: Length = moesim_core::config::from_toml("mean = 80\nspread = 0.5", "e.toml").unwrap();
        assert_eq!(old, Length::uniform(80, 0.5));
        let all = draws(&old);
        assert_eq!((all[0], all[N - 1]), (40, 120));
        assert!((mean(&all) - 80.0).abs() < 5.0 * 23.4 / (N as f64).sqrt());
        let text = "distribution = \"log-normal\"\nmean = 5\ncv = 1.0\nmax = 9";
        let new: Length = moesim_core::config::from_toml(text, "e.toml").unwrap();
        assert_eq!(moesim_core::config::to_toml(&new).unwrap().trim(), text);
        assert_eq!(draws(&Length::constant(6))[N - 1], 6);
    }

    #[test]
    fn draws_are_the_same_bits_everywhere() {
        // As they came out when this was written.
        let kinds = [of(D::Normal), of(D::LogNormal), of(D::Gamma), Length { cv: Some(2.0), ..of(D::Gamma) }];
        let mut r = stream(1, "test", 0);
        let found = kinds.map(|l| match l.check("x").unwrap() {
            Draw::Normal { normal, .. } => sample(&normal, &mut r).to_bits(),
            Draw::LogNormal { log_normal, .. } => sample(&log_normal, &mut r).to_bits(),
            Draw::Gamma { gamma, .. } => sample(&gamma, &mut r).to_bits(),
            other => panic!("{other:?}"),
        });
        assert_eq!(
            found,
            [
                4_653_158_284_563_390_959,
                4_652_705_061_666_479_513,
                4_652_767_109_487_001_274,
                4_629_210_946_803_722_891
            ]
        );
    }

    #[test]
    fn keys_that_mean_nothing_are_refused() {
        for (text, words) in [
            (
                "mean = 5\ncv = 1.0",
                &["prompt_tokens.cv: means nothing to the distribution uniform", "mean, spread"][..],
            ),
            ("spread = 0.5", &["prompt_tokens.mean: is lacking"]),
            ("distribution = \"normal\"\nmean = 5", &["prompt_tokens.cv: is lacking"]),
            ("distribution = \"gamma\"\nmean = 5\ncv = 99.0", &["prompt_tokens.cv: 99 is out of range"]),
            ("distribution = \"gamma\"\nmean = 5\ncv = nan", &["prompt_tokens.cv: NaN is out of range"]),
            (
                "distribution = \"log-normal\"\nmean = 5\ncv = 1.0\nmin = 9\nmax = 8",
                &["prompt_tokens.max: 8", "at least min, which is 9"],
            ),
            ("distribution = \"zipf\"\nexponent = 1.0", &["prompt_tokens.max: is lacking"]),
            ("distribution = \"zipf\"\nmax = 10", &["prompt_tokens.exponent: is lacking"]),
            ("distribution = \"zipf\"\nmax = 10\nexponent = -1.0", &["prompt_tokens.exponent: -1"]),
            ("distribution = \"table\"", &["prompt_tokens.tokens: is lacking"]),
            ("distribution = \"table\"\ntokens = []", &["prompt_tokens.tokens: has 0 entries"]),
            ("distribution = \"table\"\ntokens = [0]", &["prompt_tokens.tokens: 0 is out of range"]),
            ("distribution = \"table\"\ntokens = [5]\nweights = [0.0]", &["prompt_tokens.weights: are not weights"]),
            (
                "distribution = \"table\"\ntokens = [5]\nweights = [1.0, 2.0]",
                &["prompt_tokens.weights: are not weights"],
            ),
            ("distribution = \"table\"\ntokens = [5]\nweights = [inf]", &["prompt_tokens.weights: are not weights"]),
            ("distribution = \"pareto\"", &["pareto"]),
        ] {
            let read = moesim_core::config::from_toml::<Length>(text, "e.toml").and_then(|l| l.check("prompt_tokens"));
            let e = failure(read);
            assert!(words.iter().all(|w| e.contains(w)), "{text}: {e}");
        }
    }
}
