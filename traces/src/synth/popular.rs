//! Routers for which only counts are known: how often each expert was selected and, where a file has them, which experts
//! were selected together.

use super::learn::reach;
use super::settle::{Mean, Target, gain, other, part as toward, step};
use super::transfer::targets;
use super::{Fit, Router, SynthSpec};
use crate::counts::ExpertCounts;
use crate::import::Phase;
use crate::stats::{Part, Structure, independent, spearman};
use crate::trace::{OwnedSequence, Trace};
use moesim_core::{Diag, Result};
use serde::Serialize;

/// Selections drawn in a round of settling, at most, and rounds.
const DRAWN: usize = 1 << 22;
const ROUNDS: usize = 24;
/// The last of them, of which the biases are the [`Mean`].
const MEAN: usize = 15;
/// Tokens that are compared with the counts, at least: a few sequences with experts of their own tell nothing.
const TOKENS: u64 = 32_768;
/// Rows of the sequences that are compared with the counts.
const ROWS: u32 = 128;

/// How like its counts a router's selections are, in rows as they are to be written; means over layers, of as many tokens as
/// were counted (at least 32,768, at most 2^25 selections).
#[derive(Clone, Debug, Serialize)]
pub struct PopularFit {
    /// What was counted.
    pub counted: Phase,
    /// Tokens compared, prompt and output ones as they are written.
    pub tokens: u64,
    /// Most selected expert over the mean: counted, synthetic.
    pub imbalance: [f64; 2],
    /// Half the sum of the differences of the experts' shares: synthetic, and independent draws of the counted popularity, which
    /// differ by chance alone.
    pub popularity_distance: [f64; 2],
    /// The same of each phase that is written.
    pub phases: Vec<PhaseFit>,
    /// Pairs of experts that the file lists, a layer.
    pub pairs: f64,
    /// Share of all co-activations that those pairs make: counted, synthetic, independent draws.
    pub pair_share: Option<[f64; 3]>,
    /// Rank correlation of those pairs' frequencies with the counted ones: synthetic, independent draws.
    pub pair_rank_correlation: Option<[f64; 2]>,
}

/// How like the counts the rows of a phase are; means over layers.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseFit {
    /// Which rows.
    pub phase: Phase,
    /// Most selected expert over the mean.
    pub imbalance: f64,
    /// Half the sum of the differences of the experts' shares.
    pub popularity_distance: f64,
}

impl Router {
    /// A router with the popularity and the co-activation of `counts`; what they do not say (memory, topics, what a layer
    /// says of the next) takes after `fit`, **an approximation**. They are counts of `counted`, prompt or output tokens; the
    /// others are drawn as alike as prompts and outputs were published to be.
    ///
    /// # Errors
    /// Counts that do not give k experts a token.
    pub fn popular(
        (counts, counted): (&ExpertCounts, Phase),
        fit: &Fit,
        spec: &SynthSpec,
        seed: u64,
    ) -> Result<(Self, PopularFit)> {
        let (layers, experts, k) = (spec.layer_numbers.len(), spec.experts as usize, spec.k as usize);
        if let Some(l) = (0..layers).find(|l| counts.layer(*l).iter().filter(|c| **c > 0).count() < k) {
            let problem = format!("fewer than {k} experts were ever selected in layer {}", counts.layer_numbers[l]);
            return Err(Diag::input(problem)
                .place("counts")
                .cure("give --top-k of the model, or counts of more tokens"));
        }
        let loads = |l: usize| counts.layer(l).iter().map(|c| *c as f64 + 0.5).collect();
        let targets = targets(fit, spec, &(0..layers).map(loads).collect::<Vec<Vec<f64>>>());
        let lists: Vec<Pairs> = (0..layers).map(|l| Pairs::of(counts, l, k)).collect();
        let paired = !counts.pairs.is_empty() && k > 1;
        let tables = paired.then(|| lists.iter().map(|p| p.table(experts, reach(k))).collect());
        let mut router = Self::raw(fit, spec, &targets, tables, seed);
        let paired = paired && router.layers.iter().all(|l| !l.pair.is_empty());
        let shapes = router.shapes(DRAWN);
        let mut mean = Mean::default();
        for round in 0..ROUNDS {
            let drawn = router.draw(&shapes, other(seed, round));
            let rows: Vec<&[u16]> = drawn.iter().map(Vec::as_slice).collect();
            let got = Target::of(&rows, (layers, k, experts));
            let together = paired.then(|| count(&rows, layers, experts, k)).flatten();
            for (l, layer) in router.layers.iter_mut().enumerate() {
                step(layer, &targets[l], &got[l], k, gain(round));
                if let Some(together) = &together {
                    lists[l].step(&mut layer.pair, together, (l, k), gain(round));
                }
            }
            if round + MEAN >= ROUNDS {
                mean.add(&router);
            }
        }
        mean.put(&mut router);
        let (rows, other) = match counted {
            Phase::Decode => (spec.prompt_rows, Phase::Prefill),
            Phase::Prefill => (spec.decode_rows, Phase::Decode),
        };
        router.invented = Some(other);
        if rows > 0 {
            router.invent_prompts(&targets, seed);
        }
        let fit = compare(&router, (counts, counted), &lists, spec, seed)?;
        router.about(spec.subjects, seed);
        Ok((router, fit))
    }
}

fn count(rows: &[&[u16]], layers: usize, experts: usize, k: usize) -> Option<Structure> {
    let mut structure = Structure::new(layers, experts, k)?;
    structure.count(rows);
    Some(structure)
}

/// The pairs that a file lists for a layer.
struct Pairs {
    /// (Expert, expert, share of all co-activations, the same if experts were independent).
    listed: Vec<(usize, usize, f64, f64)>,
    /// Frequency of the other pairs over that of independent experts.
    others: f64,
}

impl Pairs {
    fn of(counts: &ExpertCounts, l: usize, k: usize) -> Self {
        let c = counts.layer(l);
        let total = counts.total(l) as f64;
        // A token makes k (k - 1) / 2 pairs. Independent experts: in proportion to the product of their counts.
        let all = (total / k as f64 * (k * (k - 1)) as f64 / 2.0).max(1.0);
        let squares: f64 = c.iter().map(|c| *c as f64 * *c as f64).sum();
        let products = ((total * total - squares) / 2.0).max(1.0);
        let pair = |&(i, j, n): &(u32, u32, u64)| {
            let (i, j) = (i.min(j) as usize, i.max(j) as usize);
            (i, j, n as f64 / all, c[i] as f64 * c[j] as f64 / products)
        };
        let listed: Vec<_> = counts.pairs.get(l).into_iter().flatten().map(pair).filter(|p| p.0 != p.1).collect();
        let (share, expected) = listed.iter().fold((0.0, 0.0), |s, p| (s.0 + p.2, s.1 + p.3));
        Self { listed, others: ((1.0 - share) / (1.0 - expected).max(1e-9)).clamp(1e-3, 1.0) }
    }
    /// Factors to start with: the roots of the lifts, because experts that go together are pulled by all the others of theirs.
    fn table(&self, experts: usize, reach: f32) -> Vec<f32> {
        let most = libm::expf(reach);
        let mut table = vec![(self.others as f32).max(1.0 / most); experts * experts];
        for (i, j, share, expected) in &self.listed {
            let lift = (share / expected.max(1e-12)).sqrt() as f32;
            table[i * experts + j] = lift.clamp(1.0 / most, most);
            table[j * experts + i] = table[i * experts + j];
        }
        table
    }
    /// A step of each listed pair's factor towards its frequency, the shorter the more experts pull at once; pairs seen
    /// rarely move little.
    fn step(&self, table: &mut [f32], got: &Structure, (l, k): (usize, usize), gain: f64) {
        let (experts, most) = (got.experts(), libm::expf(reach(k)));
        let all = got.together(l) as f64;
        for (i, j, share, _) in &self.listed {
            let (want, had) = (share * all + 4.0, f64::from(got.pair(l, *i, *j)) + 4.0);
            let by = toward(want / had, 2.0 * gain / k as f64);
            let x = (table[i * experts + j] * by).clamp(1.0 / most, most);
            table[i * experts + j] = x;
            table[j * experts + i] = x;
        }
    }
}

fn compare(
    router: &Router,
    (counts, counted): (&ExpertCounts, Phase),
    lists: &[Pairs],
    spec: &SynthSpec,
    seed: u64,
) -> Result<PopularFit> {
    let (layers, experts, k) = (spec.layer_numbers.len(), spec.experts as usize, spec.k as usize);
    let tokens = (counts.total(0) / k as u64).max(TOKENS).min(((1 << 25) / (layers * k) as u64).max(1000));
    // Prompt and output rows in the proportion in which they are written.
    let (prompt, output) = (u64::from(spec.prompt_rows), u64::from(spec.decode_rows));
    let whole = (prompt + output).max(1);
    let rows = whole.min(ROWS.into()) as u32;
    let prompt =
        if output == 0 { rows } else { ((prompt * u64::from(rows)).div_ceil(whole) as u32).min(rows.max(2) - 1) };
    let shapes: Vec<(u32, u32, u32)> =
        (0..(tokens as u32).div_ceil(rows)).map(|i| (i, prompt, rows - prompt)).collect();
    let drawn: Vec<OwnedSequence> = router.sequences(seed ^ 0x5eed, &shapes);
    // Independent draws take their popularity from these rows, which is not yet that of the counts: they are given it.
    let exact = |l: usize| counts.layer(l).iter().map(|c| *c as f64).sum::<f64>().max(1.0);
    let meta = crate::trace::Meta {
        model: String::new(),
        layer_numbers: spec.layer_numbers.clone(),
        experts: spec.experts,
        k: spec.k,
        source: String::new(),
        licence: String::new(),
    };
    let synthetic = Trace::from_sequences(meta, drawn)?;
    let part = Part::whole(&synthetic);
    let popularity: Vec<Vec<u64>> = (0..layers).map(|l| counts.layer(l).to_vec()).collect();
    let (twin, _) = independent::of(&part, &popularity, u64::MAX, seed)?;
    let structures = [&synthetic, &twin].map(|t| {
        let rows: Vec<&[u16]> = Part::whole(t).all_rows().collect();
        count(&rows, layers, experts, k)
    });
    let shares = [&synthetic, &twin].map(|t| {
        let rows: Vec<&[u16]> = Part::whole(t).all_rows().collect();
        Target::of(&rows, (layers, k, experts))
    });
    let mean = |f: &dyn Fn(usize) -> f64| (0..layers).map(f).sum::<f64>() / layers as f64;
    let of_phase = |phase: Phase| {
        let rows = (0..synthetic.sequences()).map(|i| synthetic.sequence(i));
        let rows: Vec<&[u16]> = rows.map(|s| if phase == Phase::Prefill { s.prefill } else { s.decode }).collect();
        rows.iter().any(|r| !r.is_empty()).then(|| (phase, Target::of(&rows, (layers, k, experts))))
    };
    let of_phases: Vec<(Phase, Vec<Target>)> =
        [Phase::Prefill, Phase::Decode].into_iter().filter_map(of_phase).collect();
    let distance = |of: &[Target], l: usize| {
        let difference = |(c, p): (&u64, &f64)| (*c as f64 / exact(l) - p).abs();
        counts.layer(l).iter().zip(&of[l].popularity).map(difference).sum::<f64>() / 2.0
    };
    let imbalance = |of: &[Target], l: usize| of[l].popularity.iter().copied().fold(0.0, f64::max) * experts as f64;
    let phases = of_phases.iter().map(|(phase, of)| PhaseFit {
        phase: *phase,
        imbalance: mean(&|l| imbalance(of, l)),
        popularity_distance: mean(&|l| distance(of, l)),
    });
    let (mut pair_share, mut pair_rank_correlation) = (None, None);
    if let ([Some(a), Some(b)], true) = (&structures, lists.iter().any(|p| !p.listed.is_empty())) {
        let share = |s: &Structure, l: usize| {
            let sum: f64 = lists[l].listed.iter().map(|p| f64::from(s.pair(l, p.0, p.1))).sum();
            sum / (s.together(l) as f64).max(1.0)
        };
        let table = |l: usize| lists[l].listed.iter().map(|p| p.2).sum::<f64>();
        pair_share = Some([mean(&table), mean(&|l| share(a, l)), mean(&|l| share(b, l))]);
        let rank = |s: &Structure, l: usize| {
            let want: Vec<u32> = lists[l].listed.iter().map(|p| (p.2 * 1e9) as u32).collect();
            let got: Vec<u32> = lists[l].listed.iter().map(|p| s.pair(l, p.0, p.1)).collect();
            spearman(&want, &got)
        };
        pair_rank_correlation = Some([mean(&|l| rank(a, l)), mean(&|l| rank(b, l))]);
    }
    Ok(PopularFit {
        counted,
        tokens: synthetic.rows(),
        phases: phases.collect(),
        imbalance: [mean(&|l| counts.imbalance(l)), mean(&|l| imbalance(&shares[0], l))],
        popularity_distance: [mean(&|l| distance(&shares[0], l)), mean(&|l| distance(&shares[1], l))],
        pairs: mean(&|l| lists[l].listed.len() as f64),
        pair_share,
        pair_rank_correlation,
    })
}
