//! A summary for people.

use super::simulate::Timing;
use crate::metrics::histogram::Spread;
use crate::metrics::summary::{EngineReport, Summary};
use std::fmt::Write;
use std::path::Path;

/// The summary as lines of text.
pub(super) fn summary(s: &Summary, timing: &Timing, out: Option<&Path>) -> String {
    let mut t = String::new();
    let mut row = |name: &str, text: String| {
        let _ = writeln!(t, "{name:<14}{text}");
    };
    row("experiment", format!("{} (seed {})", s.name, s.seed));
    row("model", s.model.clone());
    row("hardware", format!("{}, {} device(s), {} execution", s.hardware, s.devices, s.policy.execution));
    row("routing", format!("{} (hash {})", s.routing.source, s.routing.hash));
    row(
        "requests",
        format!("{} admitted, {} finished, {} rejected", s.requests.admitted, s.requests.finished, s.requests.rejected),
    );
    for r in &s.requests.rejections {
        row("rejected", r.text());
    }
    if let Some(n) = &s.sessions {
        let cut = if n.cut > 0 { format!(", {} cut short", n.cut) } else { String::new() };
        row(
            "sessions",
            format!("{} of {:.2} requests each, at most {}{cut}", n.begun, n.requests_per_session, n.most_requests),
        );
    }
    row("tokens", format!("{} prompt, {} output", s.tokens.prompt, s.tokens.output));
    let a = &s.assignments;
    let share = |n: u64| 100.0 * n as f64 / a.total().max(1) as f64;
    if a.total() > 0 {
        row(
            "assignments",
            format!(
                "{} ({:.1} % traced, {:.1} % wrapped, {:.1} % drawn), up to {} requests at once on a sequence",
                a.total(),
                share(a.traced),
                share(a.wrapped),
                share(a.drawn),
                s.routing.largest_multiplicity
            ),
        );
    }
    if let Some(t) = &s.selections {
        row(
            "selections",
            format!(
                "{} computed, {} taken by zero-compute experts, {} dropped, {} places of rows empty",
                t.computed, t.zero_compute, t.dropped, t.absent
            ),
        );
    }
    row("simulated", format!("{:.3} s in {} iterations, {} operations", s.simulated_s, s.iterations, s.events));
    for (name, spread) in [("ttft", s.ttft_ms), ("tpot", s.tpot_ms), ("itl", s.itl_ms), ("e2e", s.e2e_ms)] {
        row(name, spread.map_or_else(|| "-".into(), latency));
    }
    let r = &s.throughput;
    let goodput = r.goodput_requests_per_s.map_or(String::new(), |g| format!(", goodput {g:.3} requests/s"));
    row(
        "throughput",
        format!(
            "{:.1} output tokens/s ({:.1} a device), {:.1} prompt tokens/s, {:.3} requests/s{goodput}",
            r.output_tokens_per_s, r.output_tokens_per_s_per_device, r.prompt_tokens_per_s, r.requests_per_s
        ),
    );
    let percent = |(name, v): (&&str, &Option<f64>)| v.map(|v| format!("{name} {:.1} %", 100.0 * v));
    row("utilisation", s.utilisation.iter().filter_map(percent).collect::<Vec<_>>().join(", "));
    if let (Some(cost), Some(price)) = (s.cost_usd_per_million_output_tokens, &s.price_per_device_hour) {
        let origin = format!("at {} USD a device and hour: {}", price.value, price.origin);
        row("cost", format!("{cost:.3} USD a million output tokens, {origin}"));
    }
    if let Some(i) = &s.imbalance {
        row("imbalance", format!("mean {:.2}, p99 {:.2} (largest over mean tokens of an expert group)", i.mean, i.p99));
    }
    if let Some(r) = &s.replacement {
        let (gb, ms) = (r.moved_bytes as f64 / 1e9, 1e3 * r.moving_s);
        let moved = format!("{} replicas ({gb:.2} GB) moved in {ms:.3} ms", r.moved_replicas);
        row("re-placement", format!("{} rounds, {} layers switched, {moved}", r.rounds, r.layers_switched));
    }
    for (policy, report) in &s.counters {
        row(policy, report.text());
    }
    let mut parts: Vec<_> = s.breakdown.iter().filter(|p| *p.1 > 0.0).collect();
    parts.sort_by(|a, b| b.1.total_cmp(a.1));
    let part = |(name, v): (&&str, &f64)| format!("{name} {:.1} %", 100.0 * v / s.simulated_s.max(1e-300));
    row("critical path", parts.into_iter().map(part).collect::<Vec<_>>().join(", "));
    let mut bound = s.bottleneck.unwrap_or("nothing").to_string();
    for (what, p) in [("with prompts", &s.phases.with_prompts), ("decode only", &s.phases.decode_only)] {
        if let Some(p) = p {
            let percent = |of: &str| 100.0 * p.utilisation[of];
            let _ = write!(
                bound,
                "; {what} ({:.1} % of the time): {}, compute {:.1} %, memory {:.1} %",
                100.0 * p.seconds / s.simulated_s.max(1e-300),
                p.bottleneck.unwrap_or("nothing"),
                percent("compute"),
                percent("memory")
            );
        }
    }
    row("bound by", bound);
    if let EngineReport::Engine(e) = &s.engine {
        let launched = if e.graphs { "graphs" } else { "no graphs" };
        row("engine", format!("{}, {launched}", e.framework.unwrap_or("no framework named")));
    } else {
        row("engine", "none: the fastest measured kernels, graphs, no host time".to_string());
    }
    let share = |(name, share): (&&str, &f64)| format!("{name} {:.1} %", 100.0 * share);
    row("costs", format!("{} of the critical path", s.basis.iter().map(share).collect::<Vec<_>>().join(", ")));
    // Errors of kernels are of the time in which something runs.
    let busy_s = s.simulated_s - s.breakdown.get("idle").copied().unwrap_or(0.0);
    let iteration_ms = 1e3 * busy_s / s.iterations.max(1) as f64;
    let error = match s.cost_error {
        Some(e) => {
            let [low, high] = [1.0 - e, 1.0 + e].map(|x| iteration_ms * x.max(0.0));
            format!(
                "iteration {iteration_ms:.3} ms in the mean, idle time apart, {low:.3} to {high:.3} by errors of kernels ({:.1} %)",
                100.0 * e
            )
        }
        None => format!("not known: {}", s.not_reported.get("cost_error").unwrap_or(&"no reason")),
    };
    row("cost error", error);
    let notes = s.approximations.iter().chain(&s.notes).map(String::as_str);
    row("note", notes.collect::<Vec<_>>().join("; "));
    row("took", timing.line());
    if let Some(out) = out {
        row("written to", out.display().to_string());
    }
    t
}

fn latency(s: Spread) -> String {
    format!("mean {:.3} ms, p50 {:.3}, p90 {:.3}, p99 {:.3}, max {:.3}", s.mean, s.p50, s.p90, s.p99, s.max)
}
