//! Amounts served, and what bound: the parts of a summary that are sums of the recorder.

use super::Ended;
use super::recorder::{BoundBy, PhaseTotals};
use super::summary::PhaseReport;
use crate::engine::{LaneId, SharedId};
use crate::machine::Plan;
use std::collections::BTreeMap;

/// Seconds of the critical path by what bound it.
pub(super) fn bound_by(by: &[u64; BoundBy::ALL.len()]) -> BTreeMap<&'static str, f64> {
    BoundBy::ALL.into_iter().map(|b| (b.name(), by[b as usize] as f64 / 1e12)).collect()
}

/// What bound most of it.
pub(super) fn bottleneck(by: &[u64; BoundBy::ALL.len()]) -> Option<&'static str> {
    let took = |b: &BoundBy| by[*b as usize];
    BoundBy::ALL.into_iter().filter(|b| took(b) > 0).max_by_key(took).map(BoundBy::name)
}

/// Iterations of one sort, if there were any.
pub(super) fn phase(p: &PhaseTotals, plan: &Plan) -> Option<PhaseReport> {
    let m = &plan.machine;
    let whole = p.time as f64 / 1e12 * m.devices() as f64;
    let peak = m.hardware.device.memory.bandwidth.value.per_second();
    (p.time > 0).then(|| PhaseReport {
        iterations: p.iterations,
        seconds: p.time as f64 / 1e12,
        bound_by: bound_by(&p.bound_by),
        bottleneck: bottleneck(&p.bound_by),
        utilisation: BTreeMap::from([
            ("compute", p.at_peak as f64 / 1e12 * m.gpu.share() / whole),
            ("device_busy", p.busy as f64 / 1e12 / whole),
            ("memory", p.memory_bytes as f64 / peak / whole),
        ]),
    })
}

/// Amount served over peak x simulated time, by resource; nothing where a machine lacks it.
pub(super) fn utilisation(s: &Ended, simulated_s: f64) -> BTreeMap<&'static str, Option<f64>> {
    let (r, m) = (&s.totals.served, &s.plan.machine);
    let over = |amount: f64, peak: f64| (simulated_s > 0.0 && peak > 0.0).then(|| amount / (peak * simulated_s));
    let devices = m.devices() as f64;
    // Each operation counts by the peak of the precision that it ran in.
    let at_peak = |lanes: &[LaneId]| lanes.iter().map(|l| r.lane_at_peak[l.0 as usize] as f64 / 1e12).sum::<f64>();
    let sum = |ids: &[SharedId]| ids.iter().map(|c| r.channel_bytes[c.0 as usize] as f64).sum::<f64>();
    let busy: f64 = m.compute.iter().map(|l| r.lane_busy[l.0 as usize] as f64 / 1e12).sum();
    let links = m.topology.links();
    let link_bytes: f64 = s.network.link_bytes.iter().map(|&b| b as f64).sum();
    let link_peak: f64 = links.iter().map(|l| l.raw_bandwidth_per_s).sum();
    let mut out = BTreeMap::new();
    out.insert("compute", over(at_peak(&m.compute) * m.gpu.share(), devices));
    out.insert("pim_compute", (!m.pim_lane.is_empty()).then(|| over(at_peak(&m.pim_lane), devices)).flatten());
    out.insert("device_busy", over(busy, devices));
    out.insert("memory", over(sum(&m.memory), m.hardware.device.memory.bandwidth.value.per_second() * devices));
    out.insert("links", over(link_bytes, link_peak));
    let pim = m.hardware.device.pim.as_ref().map(|p| p.bandwidth.value.per_second() * devices);
    out.insert("pim_memory", pim.and_then(|p| over(sum(&m.pim_memory), p)));
    let host = m.hardware.host.link.as_ref().map(|l| l.bandwidth.value.per_second() * devices);
    out.insert("host_link", host.and_then(|p| over(sum(&m.host_link), p)));
    out
}

/// Bytes by collective and channel.
pub(super) fn traffic(s: &Ended) -> BTreeMap<&'static str, u128> {
    let (r, m, n) = (&s.totals.served, &s.plan.machine, s.network);
    let sum = |ids: &[SharedId]| ids.iter().map(|c| r.channel_bytes[c.0 as usize]).sum::<u128>();
    let mut out = BTreeMap::from([
        ("dispatch", u128::from(n.dispatch_bytes)),
        ("combine", u128::from(n.combine_bytes)),
        ("cross_node", u128::from(n.cross_node_bytes)),
        ("cross_node_dispatch", u128::from(n.dispatch_cross_node_bytes)),
        ("allreduce", u128::from(n.allreduce_bytes)),
        ("memory", sum(&m.memory)),
        ("pim_memory", sum(&m.pim_memory)),
        ("host_link", sum(&m.host_link)),
    ]);
    if s.replacement.is_some() {
        out.insert("weights", u128::from(n.weight_bytes));
    }
    out
}
