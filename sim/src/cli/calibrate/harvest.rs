//! What an experiment asks of its devices: works that can be measured, each with the share of the critical path that
//! it stands for.

use crate::cli::cache::routing_cache;
use crate::costs::ROOFLINE;
use crate::engine::{OpKind, critical};
use crate::experiment::Resolved;
use crate::machine::{AttentionDemand, Plan};
use crate::metrics::tables::Tables;
use crate::registry::Registry;
use crate::routing::Segment;
use crate::simulation::Simulation;
use moesim_core::{Diag, Picos, Result};
use moesim_hwmodels::calibrate::profile::{self, Op, Profile};
use moesim_hwmodels::cost::{Asked, AskedLog, Cost};
use moesim_hwmodels::measure::{MeasuredShape, Precision, Skew, Target, Work, drive};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::PoisonError;

/// Iterations that are simulated at most: seconds on one core for a model of 60 layers.
const MOST_ITERATIONS: u64 = 4096;
/// Most iterations that are looked at, evenly spread over those that were simulated: looking prices every operation
/// again.
const MOST_LOOKS: usize = 32;
/// Most works that are measured one by one: the others stand for little, and are listed together as not measurable.
const MOST_WORKS: usize = 48;

/// An experiment's critical path by what it stands on.
pub(super) struct Harvest {
    /// Works that can be measured, those that stand for most first.
    pub(super) targets: Vec<Target>,
    /// What cannot.
    pub(super) apart: Vec<Apart>,
    /// Mean seconds of an iteration.
    pub(super) iteration_s: f64,
    /// Iterations that were simulated, and those that were looked at.
    pub(super) iterations: [u64; 2],
    /// Whether the experiment goes on behind them.
    pub(super) is_cut: bool,
}

/// A part of the critical path that the reference kernel cannot measure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Apart {
    pub(super) why: String,
    pub(super) share: f64,
    /// Relative error of the part's cost, if anybody knows one; 0 for what the hardware's file states.
    pub(super) error: Option<f64>,
}

impl Apart {
    /// Sum of share times error. A part whose error nobody knows may be off by all of itself.
    pub(super) fn sum(all: &[Self]) -> f64 {
        all.iter().map(|a| a.share * a.error.unwrap_or(1.0)).sum()
    }
}

/// What an operation on the critical path is a part of.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    /// A work, by the words of its cost.
    Work(Work, &'static str),
    /// Something else, and the words of its cost.
    Apart(String, &'static str),
}

/// Runs the experiment to its end or for 4096 iterations, and reads every so many of them.
///
/// # Errors
/// What a run may fail with; an experiment without an iteration.
pub(super) fn harvest(resolved: &Resolved, registry: &Registry, eight_bits: Precision) -> Result<Harvest> {
    let cache = routing_cache()?;
    let open = || Ok(cache.open(resolved.routing(), &|_| {})?.trace);
    let label = |d: Diag| if d.file.is_some() { d } else { d.file(&resolved.label) };
    let mut s = Simulation::new(resolved, registry, open, Tables::default()).map_err(label)?;
    let mut plan = s.plan.clone();
    let log = plan.machine.gpu.note_asked();
    let (mut looks, mut every, mut now, mut goes_on) = (Vec::new(), 1, Picos::ZERO, true);
    while s.recorder.iterations() < MOST_ITERATIONS {
        goes_on = s.step(&mut now).map_err(label)?;
        if !goes_on {
            break;
        }
        if (s.recorder.iterations() - 1).is_multiple_of(every) {
            looks.push(Look { s: &s, plan: &plan, log: &log, eight_bits }.items());
        }
        if looks.len() > MOST_LOOKS {
            // Every other one stays, the first among them.
            let mut at = 0;
            looks.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            every *= 2;
        }
        if crate::cli::terminal::interrupted() {
            return Err(Diag::run("interrupted").cure("run it again"));
        }
    }
    if looks.is_empty() {
        return Err(label(
            Diag::input("no request runs, so that there is nothing to measure for").cure("give requests that fit"),
        ));
    }
    let iterations = [s.recorder.iterations(), looks.len() as u64];
    let mut out = gathered(&looks.concat(), &|what| error(&s, what));
    // Time between iterations, in which nothing runs, is none of theirs.
    out.iteration_s = looks.iter().flatten().map(|(_, t)| t).sum::<f64>() / looks.len() as f64;
    (out.iterations, out.is_cut) = (iterations, goes_on);
    Ok(out)
}

/// Relative error of what `what` costs in a run: that of its kernel, or of bare rooflines; 0 for what is stated.
fn error(s: &Simulation, what: &str) -> Option<f64> {
    let is_calibrated =
        |words: &String| words.starts_with(ROOFLINE) || words.starts_with("profile") || words.starts_with("table");
    match s.costs.get(what) {
        Some(words) if is_calibrated(words) => s.errors.get(what).copied().or_else(|| roofline_error(what)),
        _ => Some(0.0),
    }
}

/// How far bare rooflines are off in the mean, by the cells of all profiles that ship, weighted by rows; `None` for
/// operations that none has.
fn roofline_error(what: &str) -> Option<f64> {
    let ops: &[Op] = match what {
        "experts" => &[Op::Experts],
        "gemm" => &[Op::Gemm],
        "decode attention" => &[Op::DecodeAttention, Op::LatentDecodeAttention],
        "prefill attention" => &[Op::PrefillAttention, Op::LatentPrefillAttention],
        "stream" => &[Op::Stream],
        _ => return None,
    };
    let profiles = profile::presets().iter().filter_map(|(name, _)| Profile::load(name).ok());
    let kernels = profiles.flat_map(|p| p.kernels).filter(|k| ops.contains(&k.op));
    let (mut sum, mut rows) = (0.0, 0);
    for cell in kernels.flat_map(|k| k.cell) {
        sum += cell.roofline.mean * cell.roofline.rows as f64;
        rows += cell.roofline.rows;
    }
    (rows > 0).then(|| sum / rows as f64)
}

/// Sums of what is alike. Of the works in a bucket ([`drive::bucket`]) the one with the most time stands for all.
fn gathered(items: &[(Item, f64)], error: &dyn Fn(&str) -> Option<f64>) -> Harvest {
    let whole: f64 = items.iter().map(|(_, t)| t).sum();
    type Alike<'a> = Vec<(&'a Work, &'static str, f64)>;
    let (mut works, mut apart): (BTreeMap<_, Alike>, BTreeMap<(String, &'static str), f64>) = Default::default();
    for (item, t) in items {
        match item {
            Item::Work(work, what) => {
                let all = works.entry(drive::bucket(work)).or_default();
                match all.iter_mut().find(|(w, ..)| *w == work) {
                    Some(same) => same.2 += t,
                    None => all.push((work, *what, *t)),
                }
            }
            Item::Apart(why, what) => *apart.entry((why.clone(), *what)).or_default() += t,
        }
    }
    let mut errors: BTreeMap<&str, Option<f64>> = BTreeMap::new();
    let mut of = |what: &'static str| *errors.entry(what).or_insert_with(|| error(what));
    let mut targets: Vec<Target> = Vec::new();
    for all in works.into_values() {
        let Some((work, what, _)) = all.iter().max_by(|a, b| a.2.total_cmp(&b.2)) else { continue };
        let share = all.iter().map(|a| a.2).sum::<f64>() / whole;
        // Without any error that anybody knows, a cost may be off by all of itself.
        let before = of(what).unwrap_or(1.0);
        targets.push(Target { work: (*work).clone(), share, before, left: None });
    }
    targets.sort_by(|a, b| b.share.total_cmp(&a.share));
    let small = targets.split_off(targets.len().min(MOST_WORKS));
    let mut apart: Vec<Apart> = apart
        .into_iter()
        .map(|((why, what), t)| {
            let error = of(what);
            Apart { why, share: t / whole, error }
        })
        .collect();
    if !small.is_empty() {
        let share = small.iter().map(|t| t.share).sum();
        let sum: f64 = small.iter().map(|t| t.share * t.before).sum();
        apart.push(Apart { why: "works that stand for little".into(), share, error: Some(sum / share) });
    }
    apart.sort_by(|a, b| b.share.total_cmp(&a.share));
    Harvest { targets, apart, iteration_s: 0.0, iterations: [0; 2], is_cut: false }
}

/// The last iteration of a run.
struct Look<'a> {
    s: &'a Simulation,
    /// The run's plan, whose engine notes what it is asked for.
    plan: &'a Plan,
    log: &'a AskedLog,
    /// Which weights of eight bits the reference kernel has here.
    eight_bits: Precision,
}

impl Look<'_> {
    /// Operations of the critical path, with their seconds on it.
    fn items(&self) -> Vec<(Item, f64)> {
        let g = &self.s.executor.graph;
        let mut on_path: BTreeMap<usize, u64> = BTreeMap::new();
        critical::path(g, self.s.last.begin, |i, took| *on_path.entry(i).or_default() += took.0);
        let mut out = Vec::new();
        for (i, took) in on_path.into_iter().filter(|(_, took)| *took > 0) {
            let seconds = Picos(took).seconds();
            let (layer, device) = (usize::from(g.layer(i)), g.device(i) as usize);
            match g.kind(i) {
                OpKind::Experts => out.push((self.experts(layer, device, g.flop(i)), seconds)),
                OpKind::Dispatch => out.push((Item::Apart("dispatch".into(), "dispatch"), seconds)),
                OpKind::Combine => out.push((Item::Apart("combine".into(), "combine"), seconds)),
                OpKind::AllReduce => out.push((Item::Apart("all-reduce".into(), "all-reduce"), seconds)),
                OpKind::Host | OpKind::Load | OpKind::Join => {
                    out.push((Item::Apart("host and its link, as stated".into(), "stated"), seconds));
                }
                kind => self.parts(kind, layer, device, seconds, &mut out),
            }
        }
        out
    }

    fn moe_layer(&self, layer: usize) -> Option<usize> {
        self.plan.moe_layers.iter().position(|l| *l == layer)
    }

    fn precision(&self, weight_bits: f64) -> Option<Precision> {
        let wide = self.plan.model.precision.activation > 15.5;
        [(Precision::F32, 32.0), (Precision::Bf16, 16.0), (self.eight_bits, 8.0)]
            .into_iter()
            .find(|(_, bits)| wide && (weight_bits - bits).abs() <= 0.5)
            .map(|found| found.0)
    }

    /// The layer of experts of one device, with the counts that the run gave it.
    fn experts(&self, layer: usize, device: usize, flop: u64) -> Item {
        let apart = |why: &str| Item::Apart(why.into(), "experts");
        let Some(moe_layer) = self.moe_layer(layer) else { return apart("experts of no layer") };
        let mlp = self.plan.experts(moe_layer);
        let mut counts = self.s.replay.reveal(moe_layer).group_tokens(device / self.plan.ranks.etp).to_vec();
        let rows: u64 = counts.iter().map(|n| u64::from(*n)).sum();
        let whole = 2 * rows * mlp.matrices * mlp.hidden * mlp.intermediate;
        if mlp.matrices != 3 || mlp.rank > 0 || flop != whole {
            return apart("experts in another form than a gated layer at once");
        }
        let Some(precision) = self.precision(mlp.weight_bits) else {
            return apart("experts in a precision that the reference kernel lacks");
        };
        // The reference kernel takes tokens that have as many selections each. So every token has here what tokens have in the mean,
        // rounded, and selections that are then left over are taken off the experts with most.
        let top_k = (mlp.choices.round() as usize).clamp(1, counts.len());
        let most = counts.iter().copied().max().unwrap_or(0) as usize;
        let tokens = (rows as usize / top_k).max(most);
        let top_k = (rows as usize / tokens.max(1)).max(1);
        for _ in 0..rows as usize - tokens * top_k {
            if let Some(n) = counts.iter_mut().max() {
                *n -= 1;
            }
        }
        let (hidden, intermediate) = (mlp.hidden as usize, mlp.intermediate as usize);
        let shape = MeasuredShape { hidden, intermediate, experts: counts.len(), top_k };
        Item::Work(Work::Experts { shape, precision, tokens, counts, skew: Skew::Trace }, "experts")
    }

    /// Products, streams and what is left of an operation, each with its part of the seconds.
    fn parts(&self, kind: OpKind, layer: usize, device: usize, seconds: f64, out: &mut Vec<(Item, f64)>) {
        let (plan, batch) = (self.plan, &self.s.batch);
        let rank = device / plan.ranks.tp;
        let tokens = batch.rank_tokens[rank];
        let here = |moe_layer: usize| {
            let held = self.s.replay.held(moe_layer);
            held.get(device).map_or(batch.device_tokens[device], |n| u64::from(*n))
        };
        let moe_layer = self.moe_layer(layer).unwrap_or(0);
        let log = || self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log().clear();
        let cost = match kind {
            OpKind::Attention => self.attention(layer, rank, false),
            OpKind::Gate => plan.gate_cost(moe_layer, here(moe_layer)),
            OpKind::Shared => plan.shared_cost(moe_layer, here(moe_layer)),
            OpKind::Dense => plan.dense_cost(layer, tokens),
            OpKind::Head => plan.head_cost(batch.samples[rank]),
            _ => plan.embed_cost(tokens),
        };
        let whole = cost.time_s().max(1e-15);
        let mut left = 1.0;
        for (asked, t) in log().drain(..) {
            left -= t / whole;
            out.push((self.part(asked), seconds * t / whole));
        }
        if kind == OpKind::Attention {
            let left = left.max(0.0);
            // What sequences that decode take of core attention: with them alone the projections stay as they are.
            let decodes = match batch.size.prefill_tokens {
                0 => left,
                _ => left - (1.0 - self.attention(layer, rank, true).time_s() / whole).clamp(0.0, left),
            };
            for (what, part) in [("decode attention", decodes), ("prefill attention", left - decodes)] {
                if part > 0.0 {
                    out.push((Item::Apart("core attention".into(), what), seconds * part));
                }
            }
        }
    }

    fn part(&self, asked: Asked) -> Item {
        let width = self.plan.model.hidden as usize;
        match asked {
            // A norm reads and writes BF16.
            Asked::Stream(bytes) => {
                let tokens = (bytes / (4 * width) as f64).round().max(1.0) as usize;
                Item::Work(Work::Norm { tokens, hidden: width }, "stream")
            }
            Asked::Product(g) => match self.precision(g.weight_bits) {
                Some(precision) => {
                    Item::Work(Work::Gemm { precision, size: [g.m as usize, g.n as usize, g.k as usize] }, "gemm")
                }
                None => Item::Apart("products in a precision that the reference kernel lacks".into(), "gemm"),
            },
        }
    }

    /// Attention of a layer for all tokens of a rank; core attention of sequences that decode alone if `decodes`.
    fn attention(&self, layer: usize, rank: usize, decodes: bool) -> Cost {
        let plan = self.plan;
        let (class, devices) = (plan.class_of[layer], plan.ranks.rank_devices(rank));
        let listed = plan.machine.gpu.kernels.wants_sequences();
        let mut demand = AttentionDemand::default();
        let here = |seg: &&Segment| devices.contains(&(seg.device as usize)) && !(decodes && seg.count > 1);
        for seg in self.s.batch.segments.iter().filter(here) {
            demand.add(&plan.attention_work(class, seg.from, seg.count), listed);
        }
        plan.attention_cost(class, self.s.batch.rank_tokens[rank], &demand.view())
    }
}
