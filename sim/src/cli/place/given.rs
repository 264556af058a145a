//! What there is to place, read from what the user named.

use super::args::{Args, Goal, Unit, split};
use super::found::{MethodRow, Report};
use crate::cli::cache::routing_cache;
use crate::cli::progress;
use crate::experiment::{self, Resolved};
use crate::placing::{self, Loads, Site};
use crate::registry::Registry;
use crate::routing::Routing;
use crate::simulation::check_trace;
use moesim_core::{Diag, Result, config, rng};
use moesim_solver::file::{self, ReadOptions};
use moesim_solver::{Effort, Homes, Objective, Problem};
use moesim_traces::{Trace, counts};
use rand::Rng;
use std::ops::Range;
use std::sync::Arc;

/// The problem, and what it was made of.
pub(super) struct Given {
    pub(super) problem: Problem,
    pub(super) site: Option<Site>,
    pub(super) resolved: Option<Resolved>,
    pub(super) trace: Option<Arc<Trace>>,
    /// Sequences that were not trained on.
    pub(super) held_out: Range<usize>,
    pub(super) model: Option<String>,
    pub(super) layer_numbers: Vec<u32>,
    pub(super) trained_on: String,
    pub(super) iteration_tokens: f64,
    in_seconds: bool,
    notes: Vec<String>,
}

impl Given {
    pub(super) fn read(a: &Args, registry: &Registry, line: &progress::ProgressLine) -> Result<Self> {
        a.check()?;
        let resolved = resolve(a)?;
        let site = resolved.as_ref().map(|r| Site::new(r, registry)).transpose()?;
        if let Some(site) = &site {
            site.check()?;
        }
        line.say("reading".into());
        let mut given = match (&a.counts, resolved) {
            (Some(path), resolved) => Self::from_counts(a, path, site, resolved)?,
            (None, Some(resolved)) => Self::from_trace(a, site, resolved, line)?,
            (None, None) => {
                return Err(Diag::input("there is nothing to place for").place("place").cure(
                    "name --trace with --model and --hardware, --counts, an experiment, or --judge a placement",
                ));
            }
        };
        given.limit(a)?;
        Ok(given)
    }

    fn from_counts(a: &Args, path: &std::path::Path, site: Option<Site>, resolved: Option<Resolved>) -> Result<Self> {
        let counts = counts::read(path, None)?;
        let at = |d: Diag| d.file(path);
        let all = counts.layer_numbers.len();
        let layers = a.layers.unwrap_or(all);
        if layers == 0 || layers > all {
            return Err(at(Diag::input(format!("has {all} layers, not {layers}"))
                .place("--layers")
                .cure("ask for fewer")));
        }
        let experts = counts.experts as usize;
        if let Some(s) = &site
            && (s.experts() != experts || s.plan.moe_layers.len() != layers)
        {
            let problem = format!(
                "has {layers} layers of {experts} experts, {} has {} of {}",
                s.plan.model.name,
                s.plan.moe_layers.len(),
                s.experts()
            );
            return Err(at(Diag::input(problem)
                .place("--model")
                .cure("name the model that was counted, or --devices alone")));
        }
        let groups = match (&site, a.devices) {
            (Some(s), _) => s.plan.ranks.ep,
            (None, Some(n)) if n > 0 && n <= 65_536 => n,
            (None, n) => {
                let problem = n.map_or("says not how many devices there are".into(), |n| format!("{n} devices"));
                return Err(Diag::input(problem)
                    .place("--devices")
                    .cure("name --hardware with --model, or 1 to 65536 --devices"));
            }
        };
        let k = counts.k.map(|k| k as usize).or(site.as_ref().map(|s| s.plan.moe(0).top_k as usize)).unwrap_or(1);
        let loads = Loads::of_counts(&counts, layers, k);
        redundant(a, experts, groups)?;
        let iteration_tokens = f64::from(a.batch.unwrap_or(64 * groups as u32));
        let in_seconds = a.unit.map_or(site.is_some(), |u| u == Unit::Seconds);
        need_site(in_seconds, site.as_ref())?;
        let priced = site.as_ref().filter(|_| in_seconds);
        let mut problem = placing::problem(priced, experts, groups, a.redundant, &loads, iteration_tokens);
        problem.node_of = nodes(site.as_ref(), groups, a.nodes)?;
        problem.objective = a.objective.objective(a.slack, false);
        let mut notes = counts.notes.clone();
        if counts.k.is_none() && site.is_none() {
            notes.push(
                "the counts do not say how many experts a token selects: one is taken, which scales all loads alike"
                    .into(),
            );
        }
        Ok(Self {
            problem,
            site,
            resolved,
            trace: None,
            held_out: 0..0,
            model: counts.model.clone(),
            layer_numbers: counts.layer_numbers[..layers].to_vec(),
            trained_on: format!("counts of {} ({})", path.display(), counts.format),
            iteration_tokens,
            in_seconds,
            notes,
        })
    }

    fn from_trace(a: &Args, site: Option<Site>, resolved: Resolved, line: &progress::ProgressLine) -> Result<Self> {
        let site = site.ok_or_else(|| Diag::run("no site").cure("report this"))?;
        let mut trace = routing_cache()?.open(resolved.routing(), &|text| line.say(text))?.trace;
        check_trace(&site.plan, &trace)?;
        let hash = trace.hash().to_string();
        if a.shuffles() {
            trace = Arc::new(shuffled(&trace, a.seed)?);
        }
        let all = trace.sequences();
        let split = if a.train >= 1.0 { all } else { ((all as f64 * a.train) as usize).clamp(1, all) };
        let (experts, groups) = (site.experts(), site.plan.ranks.ep);
        redundant(a, experts, groups)?;
        let loads = Loads::of_trace(&trace, 0..split, experts)?;
        let iteration_tokens = f64::from(a.batch.unwrap_or(64 * site.plan.machine.devices() as u32));
        let in_seconds = a.unit.is_none_or(|u| u == Unit::Seconds);
        let priced = Some(&site).filter(|_| in_seconds);
        let mut problem = placing::problem(priced, experts, groups, a.redundant, &loads, iteration_tokens);
        problem.node_of = site.node_of();
        problem.traffic = Some(placing::sample(&site, &trace, 0..split, iteration_tokens)?);
        // Seconds and tokens do not add up.
        problem.objective = a.objective.objective(a.slack, in_seconds);
        if problem.objective == Objective::Time {
            let slots = problem.slots[0][0] as usize;
            problem.batches = Some(placing::batches(&site, &trace, 0..split, iteration_tokens, slots, 1)?);
        }
        let rows = problem.traffic.as_ref().map_or(0, |t| t.rows.tokens());
        let mut notes = Vec::new();
        if let Some(b) = &problem.batches {
            let each = b.traffic.rows.tokens() / b.batches;
            notes.push(format!("time is that of {} batches of {each} rows of different sequences", b.batches));
        }
        if rows < loads.rows as usize {
            notes.push(format!("traffic is that of {rows} of {} rows, spread evenly over them", loads.rows as u64));
        }
        if split == all && a.train < 1.0 {
            notes.push("the trace has too few sequences to hold any out".into());
        }
        Ok(Self {
            held_out: split..all,
            model: Some(site.plan.model.name.clone()),
            layer_numbers: site.plan.moe_layers.iter().map(|l| *l as u32).collect(),
            trained_on: format!(
                "{split} of {all} sequences{}, {} rows, trace {}",
                if a.shuffles() { " in a shuffled order" } else { "" },
                loads.rows as u64,
                hash
            ),
            iteration_tokens,
            trace: Some(trace),
            site: Some(site),
            resolved: Some(resolved),
            in_seconds,
            problem,
            notes,
        })
    }

    /// Slots, memory, speeds, pins and the placement to start from.
    fn limit(&mut self, a: &Args) -> Result<()> {
        let p = &mut self.problem;
        if let Some(n) = a.slots {
            p.slots.iter_mut().for_each(|l| l.fill(n));
        }
        if !a.speed.is_empty() {
            p.speed = each("--speed", &a.speed, p.groups)?;
        }
        (p.expert_groups, p.pins, p.seed) = (a.expert_groups, a.pins()?, a.seed);
        p.effort = Effort { gap: a.gap, ..p.effort };
        let room = match (a.memory.is_empty(), &self.site) {
            (false, _) => {
                Some(each("--memory", &a.memory, p.groups)?.into_iter().map(moesim_core::Bytes::get).collect())
            }
            (true, Some(site)) => Some(vec![site.expert_room(); p.groups]),
            (true, None) => None,
        };
        if let Some(room) = room {
            let Some(site) = &self.site else {
                return Err(Diag::input("the size of an expert is not known")
                    .place("--memory")
                    .cure("name --model and --hardware"));
            };
            let bytes: Vec<u64> = site.expert_bytes().into_iter().take(p.layers).collect();
            *p = p.clone().within_memory(&bytes, &room)?;
        }
        if let Some(from) = &a.from {
            let homes = self.homes_of(from)?;
            self.problem.from = Some((Arc::new(homes), a.moves.unwrap_or(0)));
        }
        let p = &mut self.problem;
        p.effort.steps = a.steps.unwrap_or_else(|| p.affordable_steps());
        if a.steps.is_none() && p.effort.steps < Effort::default().steps {
            let n = p.effort.steps;
            self.notes
                .push(format!("a search takes {n} steps a layer, counted so that it ends soon; --steps 20000 goes on"));
        }
        self.problem.check()
    }

    /// The placement in a file, which has to be of this problem.
    pub(super) fn homes_of(&self, name: &str) -> Result<Homes> {
        let (path, array) = split(name);
        let options = ReadOptions {
            devices: Some(self.problem.groups),
            experts: Some(self.problem.experts),
            layer_numbers: Some(&self.layer_numbers),
            array,
            ..ReadOptions::default()
        };
        Ok(file::read(&path, &options)?.placed.homes())
    }

    pub(super) fn unit(&self) -> &'static str {
        if self.in_seconds { "seconds an iteration" } else { "tokens an iteration" }
    }

    /// What is wanted least, in a word: without rows and seconds, time is load alone.
    pub(super) fn objective(&self, a: &Args) -> &'static str {
        match (a.objective, self.problem.objective) {
            (Goal::Time, Objective::Load) => Goal::Load.name(),
            (goal, _) => goal.name(),
        }
    }

    pub(super) fn report(self, a: &Args, methods: Vec<MethodRow>) -> Report {
        let p = &self.problem;
        let mut notes = self.notes.clone();
        if let Some(site) = self.site.as_ref().filter(|_| self.in_seconds) {
            notes.extend(site.costs.get("experts").map(|c| format!("experts cost: {c}")));
        }
        let held = self.held_out.len();
        Report {
            objective: self.objective(a).into(),
            unit: self.unit(),
            layers: p.layers,
            experts: p.experts,
            devices: p.groups,
            nodes: p.nodes(),
            redundant: p.redundant,
            iteration_tokens: self.iteration_tokens,
            held_out_on: (held > 0).then(|| format!("{held} sequences")),
            trained_on: self.trained_on,
            notes,
            methods,
        }
    }
}

/// The sequences in another order.
fn shuffled(trace: &Trace, seed: u64) -> Result<Trace> {
    let mut order: Vec<usize> = (0..trace.sequences()).collect();
    let mut draws = rng::stream(seed, "placement-split", 0);
    for i in (1..order.len()).rev() {
        order.swap(i, rng::below(draws.next_u64(), i as u64 + 1) as usize);
    }
    trace.reordered(&order)
}

/// Refuses more replicas than there are places, before anything is made for them.
fn redundant(a: &Args, experts: usize, groups: usize) -> Result<()> {
    let most = experts * (groups - 1);
    if a.redundant <= most {
        return Ok(());
    }
    Err(Diag::input(format!("{} redundant experts, but {most} put every expert everywhere", a.redundant))
        .place("--redundant")
        .cure("ask for fewer"))
}

fn need_site(in_seconds: bool, site: Option<&Site>) -> Result<()> {
    if in_seconds && site.is_none() {
        return Err(Diag::input("seconds need a model and hardware")
            .place("--unit")
            .cure("name --model and --hardware"));
    }
    Ok(())
}

fn nodes(site: Option<&Site>, groups: usize, nodes: usize) -> Result<Vec<u32>> {
    if let Some(site) = site {
        return Ok(site.node_of());
    }
    if nodes == 0 || !groups.is_multiple_of(nodes) {
        return Err(Diag::input(format!("{groups} devices on {nodes} nodes"))
            .place("--nodes")
            .cure("choose a divisor"));
    }
    Ok((0..groups).map(|g| (g * nodes / groups) as u32).collect())
}

/// One for all, or one for each group.
fn each<T: Copy>(name: &str, values: &[T], groups: usize) -> Result<Vec<T>> {
    match values.len() {
        1 => Ok(vec![values[0]; groups]),
        n if n == groups => Ok(values.to_vec()),
        n => Err(Diag::input(format!("{n} values for {groups} devices")).place(name).cure("give one, or one for each")),
    }
}

/// The experiment that the options make; `None` without a model and hardware.
fn resolve(a: &Args) -> Result<Option<Resolved>> {
    let (label, mut table, base) = match &a.experiment {
        Some(name) => experiment::tree(name)?,
        None if a.model.is_none() && a.hardware.is_none() && a.trace.is_none() => return Ok(None),
        None => {
            let text = "name = \"place\"\n[workload.arrivals]\nkind = \"closed-loop\"\nconcurrency = 1\nrequests = 1\n\
                        prompt_tokens = { mean = 1 }\noutput_tokens = { mean = 128 }\n\
                        [workload.routing]\nkind = \"synthetic\"\nsequences = 1\ndecode_rows = 1\n";
            ("moesim place".to_string(), config::table(text, "place")?, std::path::PathBuf::new())
        }
    };
    let mut set: Vec<experiment::Assignment> = Vec::new();
    let mut put = |key: &str, value: toml::Value| set.push((key.split('.').map(str::to_string).collect(), value));
    for (key, value) in [("model", &a.model), ("hardware", &a.hardware)] {
        match value {
            Some(v) => put(key, absolute(v).into()),
            None if table.contains_key(key) => {}
            None => {
                return Err(Diag::input(format!("no {key} is named")).place(format!("--{key}")).cure(format!(
                    "name --{key}, a preset (see `moesim list {}`) or a file",
                    if key == "model" { "models" } else { key }
                )));
            }
        }
    }
    if let Some(path) = &a.trace {
        let mut routing = toml::Table::new();
        routing.insert("kind".into(), "trace".into());
        let path = std::path::absolute(path).map_err(|e| Diag::cannot_read(path, &e))?;
        routing.insert("path".into(), path.display().to_string().into());
        put("workload.routing", routing.into());
    } else if a.experiment.is_none() && a.counts.is_none() {
        return Err(Diag::input("no trace is named").place("--trace").cure("name --trace, --counts, or an experiment"));
    }
    for s in &a.set {
        set.push(config::split_assignment(s)?);
    }
    experiment::anchored(&mut set, std::path::Path::new("."), &base)?;
    // Names first, so that their tables can be changed.
    for (path, value) in set.iter().filter(|s| s.0.len() == 1) {
        table.insert(path[0].clone(), value.clone());
    }
    let rest: Vec<_> = set.into_iter().filter(|s| s.0.len() > 1).collect();
    let resolved = experiment::resolve(&label, table, base, &rest)?;
    if let (Routing::Synthetic { .. } | Routing::Uniform { .. }, None, None) =
        (&resolved.experiment.workload.routing, &a.experiment, &a.counts)
    {
        return Err(Diag::input("no trace is named").place("--trace").cure("name --trace or --counts"));
    }
    Ok(Some(resolved))
}

/// Paths of the command line are relative to where it was typed, names stay.
fn absolute(name: &str) -> String {
    let path = std::path::Path::new(name);
    match std::path::absolute(path) {
        Ok(full) if path.exists() => full.display().to_string(),
        _ => name.to_string(),
    }
}
