//! The policies that come with moesim: one entry each.

use super::{Entry, Make, Registry};
use crate::network::dispatch::{AllGather, Flat, Hierarchical, PerSelection};
use crate::policy::execution::{ExpertParallel, OnDemand, OnDemandBelady, PimSplit};
use crate::serving::{ChunkedPrefill, LeastLoaded, RoundRobin};
use moesim_solver::{method, program};

fn entry<T: ?Sized>(name: &'static str, about: &'static str, make: Make<T>) -> Entry<T> {
    Entry { name, about, make }
}

impl Registry {
    /// The policies that come with moesim.
    pub fn builtin() -> Self {
        Self {
            execution: vec![
                entry("expert-parallel", "dispatch, grouped GEMM on the experts' devices, combine", |_| {
                    Ok(Box::new(ExpertParallel))
                }),
                entry(
                    "on-demand",
                    "experts in host memory, loaded when selected, behind an LRU cache on the device",
                    |s| Ok(Box::new(OnDemand::from_settings(s)?)),
                ),
                entry("pim-split", "each expert on the cores or on the PIM units, whichever its Op/B favours", |_| {
                    Ok(Box::new(PimSplit::default()))
                }),
                entry(
                    "on-demand-belady",
                    "oracle: on-demand, evicting what the iteration's remaining layers do not use",
                    |s| Ok(Box::new(OnDemandBelady::from_settings(s)?)),
                ),
            ],
            dispatches: vec![
                entry("flat", "one copy of a token for each device of its experts, straight there", |_| {
                    Ok(Box::new(Flat))
                }),
                entry(
                    "per-selection",
                    "one message for each (token, expert), straight there, as low-latency kernels do",
                    |_| Ok(Box::new(PerSelection)),
                ),
                entry(
                    "all-gather",
                    "every token to every device, sums of all back, as vLLM does unless told otherwise",
                    |_| Ok(Box::new(AllGather)),
                ),
                entry(
                    "hierarchical",
                    "one copy for each node, dealt out inside it, as high-throughput kernels do",
                    |_| Ok(Box::new(Hierarchical)),
                ),
            ],
            schedulers: vec![entry(
                "chunked-prefill",
                "continuous batching: decodes first, prefills in chunks, the youngest preempted",
                |_| Ok(Box::new(ChunkedPrefill)),
            )],
            balancers: vec![
                entry("least-loaded", "the rank with the fewest requests", |_| Ok(Box::new(LeastLoaded))),
                entry("round-robin", "one rank after the other", |_| Ok(Box::new(RoundRobin::default()))),
            ],
            placements: vec![
                entry("contiguous", "blocks of consecutive experts", |_| Ok(Box::new(method::contiguous::Contiguous))),
                entry("round-robin", "experts dealt out one by one", |_| Ok(Box::new(method::cyclic::Cyclic))),
                entry("home-die", "the home dies of the wafer-scale study, arXiv 2510.05497", |_| {
                    Ok(Box::new(method::home_die::HomeDie))
                }),
                entry("random", "experts dealt out in a random order, another one in each layer", |_| {
                    Ok(Box::new(method::random::Random))
                }),
                entry(
                    "longest-first",
                    "by loads: the costliest first to the group that is done first, then swaps",
                    |_| Ok(Box::new(method::longest_first::LongestFirst)),
                ),
                entry("eplb", "by loads: DeepSeek's load balancer, node by node where it can", |_| {
                    Ok(Box::new(method::eplb::Eplb { hierarchical: true }))
                }),
                entry("eplb-global", "by loads: the same, all devices alike", |_| {
                    Ok(Box::new(method::eplb::Eplb { hierarchical: false }))
                }),
                entry("remap", "by loads: prefill-guided remap, arXiv 2510.05497", |_| {
                    Ok(Box::new(method::remap::Remap))
                }),
                entry(
                    "duplicate",
                    "by loads: prefill-guided copies beside contiguous blocks, arXiv 2510.05497",
                    |_| Ok(Box::new(method::duplicate::Duplicate)),
                ),
                entry("cluster", "by rows: experts that tokens select together share a device", |_| {
                    Ok(Box::new(method::cluster::Cluster))
                }),
                entry(
                    "affinity",
                    "by rows: experts that tokens select together share a node, inside it by load",
                    |_| Ok(Box::new(method::affinity::Affinity)),
                ),
                entry(
                    "two-stage",
                    "by rows: clusters by load, then clusters to devices by flow, as MoETuner, arXiv 2502.06643",
                    |_| Ok(Box::new(program::stages::TwoStage)),
                ),
                entry(
                    "sweep",
                    "by rows, tokens that follow: layer by layer the best between its neighbours, from random starts",
                    |_| Ok(Box::new(method::sweep::Sweep)),
                ),
                entry(
                    "windows",
                    "by rows, tokens that follow: integer programs of two layers, from what sweep finds",
                    |_| Ok(Box::new(program::Windows)),
                ),
                entry("anneal", "by loads, by rows for traffic: annealing on the objective itself", |_| {
                    Ok(Box::new(method::anneal::Anneal))
                }),
                entry(
                    "ilp",
                    "by loads, by rows for traffic: an integer program where it is small enough, else annealing or longest-first; `place` names which",
                    |_| Ok(Box::new(program::Ilp)),
                ),
            ],
        }
    }
}
