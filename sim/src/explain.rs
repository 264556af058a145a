//! Where the time of one iteration goes, and what binds: by operation, by layer, by link.
//!
//! The experiment runs as always, up to the iteration that is asked for; what is said of it is read from its operations and
//! their critical path. Times of the path sum to the iteration.

use crate::engine::critical;
use crate::engine::{Bound, Graph, NO_DEVICE, OpKind};
use crate::experiment::Fidelity;
use crate::simulation::Simulation;
use moesim_core::{Diag, Picos, Result};
use serde::Serialize;
use std::collections::BTreeMap;

/// One iteration, explained.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Its number, from 1.
    pub iteration: u64,
    /// Whether the run ended before the one that was asked for.
    pub last: bool,
    /// When it began.
    pub begin_s: f64,
    /// How long it took.
    pub time_s: f64,
    /// Sequences of its batch.
    pub sequences: u64,
    /// Prompt tokens of its batch.
    pub prefill_tokens: u64,
    /// Output tokens of its batch.
    pub decode_tokens: u64,
    /// The model.
    pub model: String,
    /// The hardware.
    pub hardware: String,
    /// How finely was simulated.
    pub fidelity: Fidelity,
    /// Where costs come from.
    pub costs: BTreeMap<&'static str, String>,
    /// Seconds of the critical path by what bound it.
    pub bound_by: BTreeMap<&'static str, f64>,
    /// By kind of operation, the most time on the critical path first.
    pub operations: Vec<ByKind>,
    /// By model layer.
    pub layers: Vec<ByLayer>,
    /// Links that carried anything, the busiest first.
    pub links: Vec<ByLink>,
    /// Every operation of the layer that was asked for.
    pub layer_operations: Option<Vec<Operation>>,
}

/// All operations of a kind.
#[derive(Clone, Debug, Serialize)]
pub struct ByKind {
    /// The kind.
    pub kind: &'static str,
    /// Seconds on the critical path.
    pub path_s: f64,
    /// The same by what bound it.
    pub path_bound_by: BTreeMap<&'static str, f64>,
    /// Operations, on or off the path.
    pub count: usize,
    /// Their mean time.
    pub mean_s: f64,
    /// The longest of them.
    pub longest: Operation,
}

/// One layer.
#[derive(Clone, Debug, Serialize)]
pub struct ByLayer {
    /// Its number in the model.
    pub layer: u16,
    /// Seconds on the critical path.
    pub path_s: f64,
    /// The same by kind of operation.
    pub path: BTreeMap<&'static str, f64>,
    /// What bound most of it.
    pub bound_by: Option<&'static str>,
    /// Its routed experts.
    pub experts: Option<Straggling>,
    /// The link that bound the longest of its collectives.
    pub link: Option<String>,
}

/// How uneven the devices are.
#[derive(Clone, Debug, Serialize)]
pub struct Straggling {
    /// Mean time over the devices that compute any.
    pub mean_s: f64,
    /// Time of the slowest device.
    pub longest_s: f64,
    /// Which that is.
    pub device: u32,
}

/// One link.
#[derive(Clone, Debug, Serialize)]
pub struct ByLink {
    /// Its name.
    pub link: String,
    /// Bytes of the iteration.
    pub bytes: u64,
    /// The same by kind of operation.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// What they take at the achievable rate, over the iteration's time.
    pub busy: f64,
    /// Collectives that it bound.
    pub binds: usize,
}

/// One operation.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// Its kind.
    pub kind: &'static str,
    /// Its layer.
    pub layer: u16,
    /// Its device; none for what several share.
    pub device: Option<u32>,
    /// Start, from the iteration's.
    pub start_s: f64,
    /// Time from start to end.
    pub time_s: f64,
    /// The term that bound it.
    pub bound_by: &'static str,
    /// The link, where one bound it.
    pub link: Option<String>,
    /// Whether it is on the critical path.
    pub critical: bool,
}

/// Runs `s` up to iteration `number` (from 1), or to its end if that comes before; `watch` is called after each iteration, false
/// stops. `layer`: the model layer whose operations are listed.
///
/// # Errors
/// A layer that the model lacks, a run without an iteration, and all that a run can fail with.
pub fn explain(
    s: &mut Simulation,
    number: u64,
    layer: Option<u16>,
    watch: &mut dyn FnMut() -> bool,
) -> Result<Explanation> {
    let layers = s.plan.model.decoder.len();
    if let Some(l) = layer.filter(|l| usize::from(*l) >= layers) {
        let problem = format!("{} has no layer {l}", s.plan.model.name);
        return Err(Diag::input(problem).place("--layer").cure(format!("choose 0 to {}", layers - 1)));
    }
    s.network.keep_log();
    let mut now = Picos::ZERO;
    while s.recorder.iterations() < number && s.step(&mut now)? {
        if !watch() {
            return Err(Diag::run("interrupted").cure("run it again"));
        }
    }
    if s.recorder.iterations() == 0 {
        return Err(Diag::input("no request runs, so that there is no iteration")
            .place("workload.arrivals")
            .cure("give requests that fit the machine"));
    }
    Ok(read(s, number, layer, now))
}

/// What bound an operation, links by themselves.
fn bound(graph: &Graph, i: usize) -> &'static str {
    match (graph.kind(i), graph.bound(i)) {
        (OpKind::Host, _) => "host",
        (OpKind::Load, Bound::Memory) => "host-link",
        (_, bound) => bound.name(),
    }
}

/// Whether a kind belongs to the iteration as a whole and to no layer.
fn outside(kind: OpKind) -> bool {
    matches!(kind, OpKind::Host | OpKind::Embed | OpKind::Head | OpKind::Join)
}

fn read(s: &Simulation, number: u64, layer: Option<u16>, end: Picos) -> Explanation {
    let g = &s.executor.graph;
    let (size, begin) = (s.last.size, s.last.begin);
    let links = s.plan.machine.topology.links();
    let mut on_path = vec![0u64; g.len()];
    critical::path(g, begin, |i, took| on_path[i] += took.0);
    let seconds = |ps: u64| Picos(ps).seconds();
    // The log has an entry for every operation that a link bound, in order.
    let mut log = s.network.log().iter();
    let sent: Vec<_> = (0..g.len()).map(|i| if g.bound(i) == Bound::Link { log.next() } else { None }).collect();
    let link_of = |i: usize| sent[i].and_then(|e| e.link).map(|l| links[l as usize].name.clone());
    let operation = |i: usize| Operation {
        kind: g.kind(i).name(),
        layer: g.layer(i),
        device: Some(g.device(i)).filter(|d| *d != NO_DEVICE),
        start_s: g.start(i).since(begin).seconds(),
        time_s: g.end(i).unwrap_or_default().since(g.start(i)).seconds(),
        bound_by: bound(g, i),
        link: link_of(i),
        critical: on_path[i] > 0,
    };
    let time = |i: usize| g.end(i).unwrap_or_default().since(g.start(i)).0;
    let real: Vec<usize> = (0..g.len()).filter(|&i| g.kind(i) != OpKind::Join).collect();
    let by_bound = |of: &mut dyn Iterator<Item = usize>| {
        let mut out: BTreeMap<&'static str, f64> = BTreeMap::new();
        of.filter(|&i| on_path[i] > 0).for_each(|i| *out.entry(bound(g, i)).or_default() += seconds(on_path[i]));
        out
    };
    let mut operations: Vec<ByKind> = Vec::new();
    for kind in OpKind::ALL {
        let own: Vec<usize> = real.iter().copied().filter(|&i| g.kind(i) == kind).collect();
        // The first among equals.
        let Some(longest) = own.iter().copied().reduce(|a, b| if time(b) > time(a) { b } else { a }) else { continue };
        operations.push(ByKind {
            kind: kind.name(),
            path_s: own.iter().map(|&i| seconds(on_path[i])).sum(),
            path_bound_by: by_bound(&mut own.iter().copied()),
            count: own.len(),
            mean_s: own.iter().map(|&i| seconds(time(i))).sum::<f64>() / own.len() as f64,
            longest: operation(longest),
        });
    }
    operations.sort_by(|a, b| b.path_s.total_cmp(&a.path_s));
    let one = |l: u16| {
        let own: Vec<usize> = real.iter().copied().filter(|&i| g.layer(i) == l && !outside(g.kind(i))).collect();
        let mut path: BTreeMap<&'static str, f64> = BTreeMap::new();
        own.iter()
            .filter(|&&i| on_path[i] > 0)
            .for_each(|&i| *path.entry(g.kind(i).name()).or_default() += seconds(on_path[i]));
        let collectives = own.iter().copied().filter(|&i| g.bound(i) == Bound::Link);
        let slowest = collectives.reduce(|a, b| if time(b) > time(a) { b } else { a });
        ByLayer {
            layer: l,
            path_s: path.values().sum(),
            path,
            bound_by: by_bound(&mut own.iter().copied())
                .into_iter()
                .reduce(|a, b| if b.1 > a.1 { b } else { a })
                .map(|b| b.0),
            experts: straggling(g, &own),
            link: slowest.and_then(link_of),
        }
    };
    let time_s = end.since(begin).seconds();
    Explanation {
        iteration: s.recorder.iterations(),
        last: s.recorder.iterations() < number,
        begin_s: begin.seconds(),
        time_s,
        sequences: size.sequences,
        prefill_tokens: size.prefill_tokens,
        decode_tokens: size.decode_tokens,
        model: s.plan.model.name.clone(),
        hardware: s.plan.machine.hardware.name.clone(),
        fidelity: s.experiment.fidelity,
        costs: s.costs.clone(),
        bound_by: by_bound(&mut real.iter().copied()),
        operations,
        layers: (0..s.plan.model.decoder.len() as u16).map(one).collect(),
        links: by_link(s, g, &sent, time_s),
        layer_operations: layer
            .map(|l| real.iter().copied().filter(|&i| g.layer(i) == l && !outside(g.kind(i))).map(operation).collect()),
    }
}

/// Of the routed experts among the operations of a layer.
fn straggling(g: &Graph, own: &[usize]) -> Option<Straggling> {
    let mut devices: BTreeMap<u32, u64> = BTreeMap::new();
    for &i in own.iter().filter(|&&i| g.kind(i) == OpKind::Experts) {
        *devices.entry(g.device(i)).or_default() += g.end(i).unwrap_or_default().since(g.start(i)).0;
    }
    let (&device, &longest) = devices.iter().reduce(|a, b| if b.1 > a.1 { b } else { a })?;
    let mean_s = devices.values().map(|t| Picos(*t).seconds()).sum::<f64>() / devices.len() as f64;
    Some(Straggling { mean_s, longest_s: Picos(longest).seconds(), device })
}

fn by_link(s: &Simulation, g: &Graph, sent: &[Option<&crate::network::Sent>], time_s: f64) -> Vec<ByLink> {
    let links = s.plan.machine.topology.links();
    let mut found: BTreeMap<u32, ByLink> = BTreeMap::new();
    let new = |link: u32| ByLink {
        link: links[link as usize].name.clone(),
        bytes: 0,
        by_kind: BTreeMap::new(),
        busy: 0.0,
        binds: 0,
    };
    for (i, entry) in sent.iter().enumerate().filter_map(|(i, e)| e.map(|e| (i, e))) {
        for &(link, bytes) in &entry.bytes {
            let on = found.entry(link).or_insert_with(|| new(link));
            on.bytes += bytes;
            *on.by_kind.entry(g.kind(i).name()).or_default() += bytes;
        }
        if let Some(link) = entry.link {
            found.entry(link).or_insert_with(|| new(link)).binds += 1;
        }
    }
    let busy = |(link, on): (u32, ByLink)| ByLink {
        busy: on.bytes as f64 / links[link as usize].bandwidth_per_s / time_s.max(1e-300),
        ..on
    };
    let mut out: Vec<ByLink> = found.into_iter().map(busy).collect();
    out.sort_by(|a, b| b.busy.total_cmp(&a.busy));
    out
}
