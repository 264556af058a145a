//! `summary.json`: what a run found.

use super::Ended;
use super::amounts::{bottleneck, bound_by, phase, traffic, utilisation};
use super::approximations::approximations;
use super::histogram::{Spread, VALUE_ERROR};
use super::recorder::BoundBy;
use super::rejection::Rejection;
use crate::engine::OpKind;
use crate::experiment::{Fidelity, Policies};
use crate::framework::Framework;
use crate::placing::PlacementReport;
use crate::policy::Report;
use crate::replacement::ReplacementReport;
use crate::routing::{Provenance, Selections};
use moesim_core::{Diag, Sourced};
use serde::Serialize;
use std::collections::BTreeMap;

/// The summary. What is not modelled or not asked for is `null`, with a reason in `not_reported`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The experiment's name.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// Versions of what made it.
    pub versions: Versions,
    /// The model's name.
    pub model: String,
    /// The hardware's name.
    pub hardware: String,
    /// Devices.
    pub devices: usize,
    /// Policies by name, with their settings.
    pub policy: Policies,
    /// The serving engine with every key as it is; `none` without one: the fastest measured kernels, graphs, no host time.
    pub engine: EngineReport,
    /// Whether the execution policy saw routing that no gate had produced yet.
    pub oracle: bool,
    /// Where the routing came from.
    pub routing: RoutingReport,
    /// The file that says where experts are; `null` if a rule does.
    pub placement: Option<PlacementReport>,
    /// What re-placement did, if there was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<ReplacementReport>,
    /// Requests by fate.
    pub requests: Requests,
    /// Sessions, if requests belong to any.
    pub sessions: Option<Sessions>,
    /// Tokens of finished requests.
    pub tokens: Tokens,
    /// (token, layer, expert) assignments by provenance, all computed positions.
    pub assignments: Provenance,
    /// What became of them, where an expert with weights did not compute every place of every row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selections: Option<Selections>,
    /// How finely was simulated.
    pub fidelity: Fidelity,
    /// What operations cost: from a calibrated profile, or a roofline with assumed fractions.
    pub costs: BTreeMap<&'static str, String>,
    /// On what costs stand: shares of the critical path that are `measured`, of a `donor`, `roofline`, or `stated` by the hardware's file.
    pub basis: BTreeMap<&'static str, f64>,
    /// By how much of the time costs may be off: the sum over operations of their share of the critical path times the mean
    /// error of their cost's kernel on what its fit had not seen.
    pub cost_error: Option<f64>,
    /// The measurement window.
    pub window: WindowReport,
    /// Simulated time.
    pub simulated_s: f64,
    /// Iterations.
    pub iterations: u64,
    /// Operations completed.
    pub events: u64,
    /// Relative error of percentiles.
    pub percentile_error: f64,
    /// Time to first token.
    pub ttft_ms: Option<Spread>,
    /// Time per output token after the first.
    pub tpot_ms: Option<Spread>,
    /// Time between output tokens.
    pub itl_ms: Option<Spread>,
    /// Arrival to last token.
    pub e2e_ms: Option<Spread>,
    /// Rates over the window.
    pub throughput: Throughput,
    /// Seconds of the critical path by kind of operation; sums to `simulated_s`.
    pub breakdown: BTreeMap<&'static str, f64>,
    /// Seconds of the critical path by what bound it, idle apart.
    pub bound_by: BTreeMap<&'static str, f64>,
    /// The largest of `bound_by`.
    pub bottleneck: Option<&'static str>,
    /// The same apart for iterations with prompt tokens and those that only decode.
    pub phases: Phases,
    /// Amount served over peak x simulated time.
    pub utilisation: BTreeMap<&'static str, Option<f64>>,
    /// Bytes by collective and channel.
    pub traffic_bytes: BTreeMap<&'static str, u128>,
    /// Largest over mean load of an expert group, over layers and iterations.
    pub imbalance: Option<Imbalance>,
    /// The cache of the execution policy in the terms that caches share, if it counts loads: of its `counters`.
    pub cache: Option<CacheSummary>,
    /// What policies counted, by their name.
    pub counters: BTreeMap<String, Report>,
    /// Positions computed again after preemptions, and how often that happened.
    pub recomputed: Recomputed,
    /// The KV cache while anything ran.
    pub kv_cache: Option<KvCache>,
    /// Weights and the most KV cache on a device.
    pub device_memory_peak_bytes: u64,
    /// Energy.
    pub energy_j: Option<f64>,
    /// The price of all devices over the output tokens of the window.
    pub cost_usd_per_million_output_tokens: Option<f64>,
    /// The price of a device, in US dollars an hour, and where that is from.
    pub price_per_device_hour: Option<Sourced<f64>>,
    /// Why something is `null`.
    pub not_reported: BTreeMap<&'static str, &'static str>,
    /// What is approximated.
    pub approximations: Vec<String>,
    /// What of the input was left out, or is not used.
    pub notes: Vec<String>,
}

/// The serving engine of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum EngineReport {
    /// `none`.
    Word(&'static str),
    /// Its keys.
    Engine(Box<Framework>),
}

/// Iterations with prompt tokens, and those that only decode.
#[derive(Clone, Debug, Serialize)]
pub struct Phases {
    /// At least one prompt token was computed; decodes of the same batch are among the rest.
    pub with_prompts: Option<PhaseReport>,
    /// Every sequence of the batch decoded.
    pub decode_only: Option<PhaseReport>,
}

/// What iterations of one sort did.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    /// Iterations.
    pub iterations: u64,
    /// Their time.
    pub seconds: f64,
    /// Seconds of their critical path by what bound it.
    pub bound_by: BTreeMap<&'static str, f64>,
    /// The largest of `bound_by`.
    pub bottleneck: Option<&'static str>,
    /// Amount served over peak x their time: `compute`, `memory`, and `device_busy`.
    pub utilisation: BTreeMap<&'static str, f64>,
}

/// Versions of what made the summary.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    /// This program.
    pub moesim: &'static str,
    /// Version of this file's layout.
    pub summary: u32,
}

/// Where the routing came from.
#[derive(Clone, Debug, Serialize)]
pub struct RoutingReport {
    /// The trace's own words.
    pub source: String,
    /// Hash of its rows.
    pub hash: String,
    /// Most requests in flight on one sequence.
    pub largest_multiplicity: u32,
}

/// Requests by fate.
#[derive(Clone, Debug, Serialize)]
pub struct Requests {
    /// They came.
    pub admitted: u64,
    /// They got all their tokens.
    pub finished: u64,
    /// They could never be served.
    pub rejected: u64,
    /// Why, by reason.
    pub rejections: Vec<Rejection>,
}

/// Sessions of several turns.
#[derive(Clone, Debug, Serialize)]
pub struct Sessions {
    /// They began.
    pub begun: u64,
    /// They ended early: a turn was rejected.
    pub cut: u64,
    /// Mean requests of a session.
    pub requests_per_session: f64,
    /// Most requests of a session.
    pub most_requests: u32,
}

/// Tokens of finished requests.
#[derive(Clone, Debug, Serialize)]
pub struct Tokens {
    /// Prompt tokens.
    pub prompt: u64,
    /// Output tokens.
    pub output: u64,
}

/// The measurement window.
#[derive(Clone, Debug, Serialize)]
pub struct WindowReport {
    /// Start.
    pub start_s: f64,
    /// End.
    pub end_s: f64,
    /// What counts.
    pub rule: &'static str,
}

/// Rates over the window.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// Prompt tokens, counted when their first output token appears.
    pub prompt_tokens_per_s: f64,
    /// Output tokens as they appear.
    pub output_tokens_per_s: f64,
    /// The same for each device.
    pub output_tokens_per_s_per_device: f64,
    /// Requests finished.
    pub requests_per_s: f64,
    /// Requests that arrived in the window and met the SLO.
    pub goodput_requests_per_s: Option<f64>,
}

/// Load imbalance: 1 is even.
#[derive(Clone, Debug, Serialize)]
pub struct Imbalance {
    /// Mean.
    pub mean: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// What a cache did, in the terms that caches share.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CacheSummary {
    /// Hits over look-ups.
    pub hit_rate: Option<f64>,
    /// Experts loaded.
    pub loads: u64,
    /// Prefetched experts that were used, over all prefetched.
    pub prefetch_precision: Option<f64>,
}

impl CacheSummary {
    fn of(report: &Report) -> Option<Self> {
        let [hit_rate, prefetch_precision] = ["hit_rate", "prefetch_precision"].map(|name| report.ratio_of(name));
        report.get("loads").map(|loads| Self { hit_rate, loads, prefetch_precision })
    }
}

/// The KV cache, summed over one device of each attention rank.
#[derive(Clone, Debug, Serialize)]
pub struct KvCache {
    /// Room.
    pub capacity_bytes: u64,
    /// In use, in the mean over the time of iterations; blocks count whole.
    pub mean_bytes: f64,
    /// Sequences running, in the mean over the time of iterations.
    pub mean_sequences: f64,
}

/// Recomputation after preemptions.
#[derive(Clone, Debug, Serialize)]
pub struct Recomputed {
    /// Positions.
    pub tokens: u64,
    /// Preemptions.
    pub preemptions: u64,
}

/// What the execution policy counted, if anything.
fn counters(s: &Ended) -> BTreeMap<String, Report> {
    let own = (s.experiment.policy.execution.kind.clone(), s.report.clone());
    std::iter::once(own).filter(|(_, report)| !report.is_empty()).collect()
}

impl Summary {
    /// Of a run that has ended.
    pub fn new(s: &Ended) -> Self {
        let (x, plan, m) = (&s.experiment, s.plan, &s.plan.machine);
        let (r, q, served) = (s.totals, &s.totals.requests, &s.totals.served);
        let simulated_s = r.end.seconds();
        let start = x.window.start.min(r.end);
        let end = x.window.end.unwrap_or(r.end).min(r.end);
        let span = end.since(start).seconds();
        let per_s = |n: u64| if span > 0.0 { n as f64 / span } else { 0.0 };
        let mut not_reported = BTreeMap::new();
        not_reported.insert("energy_j", "the hardware has no power model");
        let price_per_device_hour = plan.machine.hardware.price_per_device_hour.clone();
        let price = price_per_device_hour.as_ref().map(|p| p.value);
        let output_per_s = per_s(q.window_tokens[1]);
        let cost = price.filter(|_| output_per_s > 0.0).map(|p| p * m.devices() as f64 / 3600.0 / output_per_s * 1e6);
        if cost.is_none() {
            let why = if price.is_none() { "the hardware has no price" } else { "no output token in the window" };
            not_reported.insert("cost_usd_per_million_output_tokens", why);
        }
        if price.is_none() {
            not_reported.insert("price_per_device_hour", "the hardware has no price");
        }
        if x.slo.is_none() {
            not_reported.insert("goodput_requests_per_s", "no SLO was asked for");
        }
        let cache = CacheSummary::of(&s.report);
        if cache.is_none() {
            not_reported.insert("cache", "the execution policy has no cache");
        }
        if s.sessions.is_none() {
            not_reported.insert("sessions", "requests do not belong to sessions");
        }
        let cost_error = super::basis::cost_error(s);
        if let Err(why) = cost_error {
            not_reported.insert("cost_error", why);
        }
        let breakdown = OpKind::ALL
            .into_iter()
            .filter(|&k| k != OpKind::Join)
            .map(|k| (k.name(), served.breakdown.kinds[k as usize] as f64 / 1e12))
            .chain([("idle", served.breakdown.idle as f64 / 1e12)])
            .collect();
        let [prompts, decode] = &served.phases;
        let by: [u64; BoundBy::ALL.len()] = std::array::from_fn(|b| prompts.bound_by[b] + decode.bound_by[b]);
        Self {
            name: x.name.clone(),
            seed: x.seed,
            versions: Versions { moesim: env!("CARGO_PKG_VERSION"), summary: 2 },
            model: plan.model.name.clone(),
            hardware: m.hardware.name.clone(),
            devices: m.devices(),
            policy: x.policy.clone(),
            engine: s.engine.map_or(EngineReport::Word("none"), |e| EngineReport::Engine(Box::new(e.clone()))),
            oracle: s.oracle,
            routing: RoutingReport {
                source: s.trace.meta().source.clone(),
                hash: s.trace.hash().to_string(),
                largest_multiplicity: q.multiplicity,
            },
            placement: s.placement.cloned(),
            replacement: s.replacement,
            requests: Requests {
                admitted: q.admitted,
                finished: q.finished,
                rejected: q.rejected,
                rejections: q.rejections.clone(),
            },
            sessions: s.sessions.clone(),
            tokens: Tokens { prompt: q.tokens[0], output: q.tokens[1] },
            assignments: s.provenance,
            selections: Some(s.selections).filter(|t| t.routed() != t.computed || t.absent > 0),
            fidelity: x.fidelity,
            costs: s.costs.clone(),
            basis: super::basis::basis(s),
            cost_error: cost_error.ok(),
            window: WindowReport {
                start_s: start.seconds(),
                end_s: end.seconds(),
                rule: "requests that arrive in the window count for percentiles, tokens and requests that \
                       appear or finish in it for rates",
            },
            simulated_s,
            iterations: r.iterations,
            events: s.operations,
            percentile_error: VALUE_ERROR,
            ttft_ms: q.ttft.spread(1e9),
            tpot_ms: q.tpot.spread(1e9),
            itl_ms: q.itl.spread(1e9),
            e2e_ms: q.e2e.spread(1e9),
            throughput: Throughput {
                prompt_tokens_per_s: per_s(q.window_tokens[0]),
                output_tokens_per_s: output_per_s,
                output_tokens_per_s_per_device: output_per_s / m.devices() as f64,
                requests_per_s: per_s(q.window_finished),
                goodput_requests_per_s: x.slo.map(|_| per_s(q.window_good)),
            },
            breakdown,
            bound_by: bound_by(&by),
            bottleneck: bottleneck(&by),
            phases: Phases { with_prompts: phase(prompts, plan), decode_only: phase(decode, plan) },
            utilisation: utilisation(s, simulated_s),
            traffic_bytes: traffic(s),
            imbalance: r.imbalance.spread(1000.0).map(|i| Imbalance { mean: i.mean, p99: i.p99 }),
            cache,
            counters: counters(s),
            recomputed: Recomputed { tokens: q.recomputed, preemptions: q.preemptions },
            kv_cache: (r.running_time > 0).then(|| KvCache {
                capacity_bytes: s.ranks.iter().map(|r| r.kv.capacity()).sum(),
                mean_bytes: r.kv_time as f64 / r.running_time as f64,
                mean_sequences: r.sequence_time as f64 / r.running_time as f64,
            }),
            device_memory_peak_bytes: s.weight_bytes + s.ranks.iter().map(|r| r.kv.peak()).max().unwrap_or(0),
            energy_j: None,
            cost_usd_per_million_output_tokens: cost,
            price_per_device_hour,
            not_reported,
            approximations: approximations(s),
            notes: s.arrival_notes.iter().cloned().chain(super::idle_keys::sentences(s)).collect(),
        }
    }
}

impl Requests {
    /// That every request was rejected, and why: a run that served nothing has no figures.
    pub fn none_served(&self) -> Option<Diag> {
        let first = self.rejections.first().filter(|_| self.finished == 0)?;
        let others = self.rejections[1..].iter().map(|r| format!("; {}", r.text()));
        let why: String = std::iter::once(first.text()).chain(others).collect();
        Some(Diag::run(format!("no request could be served: {why}")).place("requests").cure(first.reason.cure()))
    }
}
