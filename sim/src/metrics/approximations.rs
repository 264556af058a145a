//! What a run approximates, each in a sentence of the summary.

use super::Ended;
use crate::network::NetworkFidelity;
use crate::replacement;
use moesim_hwmodels::cost::ExchangeKernel;
use moesim_solver::traffic::Mode;
use moesim_traces::model::Moe;

/// The sentences for a run.
pub(super) fn approximations(s: &Ended) -> Vec<String> {
    let plan = s.plan;
    let mut out: Vec<String> = Vec::new();
    let rooflines: Vec<&str> =
        s.costs.iter().filter(|c| c.1.starts_with(crate::costs::ROOFLINE)).map(|c| *c.0).collect();
    if !rooflines.is_empty() {
        let all = if rooflines.len() == crate::costs::WHAT.len() { "all operations" } else { &rooflines.join(", ") };
        out.push(format!("costs of {all} are rooflines with assumed achievable fractions, not calibrated"));
    }
    if s.costs.values().any(|c| c.contains(crate::costs::DONOR)) {
        out.push("some kernels take fractions of peaks, and fixed times as they are, from a device that was measured (see costs)".into());
    }
    if s.engine.is_some_and(|e| !e.graphs) {
        let eager = s.costs.get("all-reduce").is_some_and(|words| words.contains(crate::costs::EAGER));
        let text = match eager && plan.ranks.tp > 1 {
            true => {
                "without graphs the engine's own all-reduce takes its eager time; other kernels keep theirs in graphs"
            }
            false => "without graphs kernels keep the times that they take in graphs",
        };
        out.push(text.into());
    }
    let exchange = s.network.kernels();
    let mut push = |text: &str| out.push(text.to_string());
    push(match s.experiment.fidelity.network {
        NetworkFidelity::Bottleneck => "collectives take their bottleneck bound: a lower bound on contention",
        NetworkFidelity::Flow => "transfers of a collective are fluids that share links max-min fairly",
        NetworkFidelity::Reserve | NetworkFidelity::ReserveHeadOfLine => {
            "a transfer holds all links of its path for its whole duration"
        }
    });
    if exchange.dispatch.is_some() || exchange.combine.is_some() {
        push(
            "where dispatch and combine have a calibrated kernel they take what it says of the busiest device, if that is longer",
        );
    }
    let between = plan.machine.topology.nodes() > 1;
    if between && [&exchange.dispatch, &exchange.combine].into_iter().flatten().any(ExchangeKernel::is_of_a_node) {
        push(
            "the all-to-all of dispatch and combine was measured inside a node; between nodes its fixed times stand in, and the \
             fractions of the link that it reached as fractions of the network card",
        );
    }
    if plan.deployment.tokens == Mode::TokenFollows {
        push(
            "tokens that follow: the reduce-scatter after attention and the all-gather before it take what even ones would, and \
             all tokens of an iteration start from devices in turn",
        );
    }
    push("a device's attention of one layer is one operation; its kernels run one after the other");
    if plan.machine.gpu.kernels.experts.as_ref().is_some_and(|e| e.outside() > 0) {
        push("some calls of the experts' kernel had fewer or more tokens than any measurement: extrapolated");
    }
    let kernels = [&exchange.dispatch, &exchange.combine, &exchange.all_reduce, &exchange.all_gather];
    if kernels.into_iter().flatten().any(|k| k.outside() > 0) {
        push("some collectives were smaller or larger than any measurement of their kernel: extrapolated");
    }
    if plan.model.decoder.iter().any(|l| l.attention.experts > 0) {
        push(
            "selections of attention experts are not replayed: each token takes top_k, and the weights that uniform choice \
             activates in the mean are read",
        );
    }
    let any = |has: fn(&Moe) -> bool| plan.model.decoder.iter().filter_map(|l| l.moe()).any(has);
    if any(|m| m.copy_experts + m.constant_experts > 0) {
        push("what copy and constant experts add is part of the combine's sum, which is not priced");
    }
    if any(|m| m.expert_base) {
        push("the base of factorised experts is computed once a token and device, as linearity allows at best");
    }
    if any(|m| m.capacity_factor.is_some()) {
        push(
            "selections beyond an expert's capacity are dropped in the order of the iteration's batch over all ranks; the \
             gate does not choose again",
        );
    }
    if s.replacement.is_some() {
        replacement::APPROXIMATIONS.iter().copied().for_each(push);
    }
    out
}
