//! One experiment from its input to its directory: what `run`, `sweep`, `validate` and `calibrate compare` share.

use super::progress;
use super::terminal::{interrupted, note};
use crate::experiment::Resolved;
use crate::metrics::Summary;
use crate::metrics::tables::Tables;
use crate::metrics::timeline::Timeline;
use crate::output::{self, MARKER};
use crate::registry::Registry;
use crate::routing::{Opened, Origin};
use crate::simulation::Simulation;
use moesim_core::Result;
use moesim_core::output::AtomicDir;
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Wall time and memory: what differs from host to host.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Timing {
    /// Of the simulation alone.
    wall_s: f64,
    /// Of opening or drawing the routing.
    routing_s: f64,
    /// Where the routing came from.
    routing_from: &'static str,
    simulated_s_per_wall_s: f64,
    iterations_per_s: f64,
    operations_per_s: f64,
    selections_per_s: f64,
    /// Operations advanced by the linear pass, over all.
    linear_share: f64,
    threads: usize,
    host: String,
    peak_anonymous_bytes: Option<u64>,
    peak_resident_bytes: Option<u64>,
}

/// Between looks at progress and memory.
const LOOK: Duration = Duration::from_millis(20);

/// Operations in a timeline: some tens of megabytes.
const TIMELINE_OPERATIONS: usize = 200_000;

/// Whether it was said how settings were read.
static NOTED: AtomicBool = AtomicBool::new(false);

/// What became of a run.
pub(super) struct Ran {
    pub(super) summary: Summary,
    pub(super) timing: Timing,
    /// Whether its directory was written, with what the user should know of it; what was found is there anyway.
    pub(super) written: Result<Vec<String>>,
}

/// Where a run is written, and how much of it.
pub(super) struct Options<'a> {
    pub(super) out: Option<&'a Path>,
    pub(super) timeline: bool,
}

/// Files of a run that differ from host to host.
const VOLATILE: &[&str] = &["timing.json"];

/// Runs one experiment with the trace that `open` gives; its directory appears whole or not at all.
pub(super) fn simulate(
    resolved: &Resolved,
    registry: &Registry,
    open: impl FnOnce() -> Result<Opened>,
    options: &Options,
    line: &progress::ProgressLine,
) -> Result<Ran> {
    let begin = Instant::now();
    let output = resolved.experiment.output;
    let dir = options.out.map(|out| Ok(AtomicDir::create(out, MARKER)?.volatile(VOLATILE))).transpose()?;
    let tables = match &dir {
        Some(d) => Tables::create(d.path(), output.iterations)?,
        None => Tables::default(),
    };
    let label = |d: moesim_core::Diag| match d.file {
        Some(_) => d,
        None => d.file(&resolved.label),
    };
    let mut routing = (Duration::ZERO, Origin::None);
    let timed = || {
        let begin = Instant::now();
        let Opened { trace, from } = open()?;
        routing = (begin.elapsed(), from);
        Ok(trace)
    };
    let mut s = Simulation::new(resolved, registry, timed, tables).map_err(label)?;
    // Points of a sweep have the same to say.
    if !NOTED.swap(true, Ordering::Relaxed) {
        s.notes().iter().for_each(|n| note(n));
    }
    if options.timeline {
        s.recorder.keep_timeline(Timeline::new(TIMELINE_OPERATIONS));
    }
    let mut memory = Memory::default();
    let mut next = begin;
    s.run(&mut |p| {
        let now = Instant::now();
        if now >= next {
            next = now + LOOK;
            line.at(p);
            memory.sample();
        }
        !interrupted()
    })
    .map_err(label)?;
    memory.sample();
    let ended = s.ended();
    let summary = Summary::new(&ended);
    let wall_s = (begin.elapsed() - routing.0).as_secs_f64();
    let timing = Timing {
        wall_s,
        routing_s: routing.0.as_secs_f64(),
        routing_from: routing.1.word(),
        simulated_s_per_wall_s: summary.simulated_s / wall_s,
        iterations_per_s: summary.iterations as f64 / wall_s,
        operations_per_s: summary.events as f64 / wall_s,
        selections_per_s: ended.provenance.total() as f64 / wall_s,
        linear_share: s.executor.linear_operations() as f64 / summary.events.max(1) as f64,
        threads: rayon::current_num_threads(),
        host: host(),
        peak_anonymous_bytes: memory.anonymous,
        peak_resident_bytes: status("VmHWM:"),
    };
    let write = |dir: AtomicDir| {
        s.recorder.unwritten().map_or(Ok(()), Err)?;
        output::write(dir.path(), resolved, &ended, &summary)?;
        output::text(&dir.path().join(VOLATILE[0]), &(output::json(&timing)? + "\n"))?;
        if output.plots {
            moesim_plot::write(dir.path(), &[], &[moesim_plot::Format::Svg, moesim_plot::Format::Png])?;
        }
        dir.commit()
    };
    let written = dir.map_or(Ok(Vec::new()), write);
    Ok(Ran { summary, timing, written })
}

impl Timing {
    pub(super) fn line(&self) -> String {
        let memory = self
            .peak_anonymous_bytes
            .map_or(String::new(), |b| format!(", {:.0} MiB of anonymous memory", b as f64 / f64::from(1 << 20)));
        format!(
            "{:.2} s on {} threads: {:.0} iterations/s, {:.1} M selections/s{memory}; routing {:.2} s ({})",
            self.wall_s,
            self.threads,
            self.iterations_per_s,
            self.selections_per_s / 1e6,
            self.routing_s,
            self.routing_from
        )
    }
}

/// The most anonymous memory seen; sampled, since the kernel keeps no peak of it.
#[derive(Default)]
struct Memory {
    anonymous: Option<u64>,
}

impl Memory {
    fn sample(&mut self) {
        self.anonymous = self.anonymous.max(status("RssAnon:"));
    }
}

/// A line of /proc/self/status in bytes; none where there is no such file.
fn status(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn host() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).map(|l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{} ({cores} cores)", model.unwrap_or(std::env::consts::ARCH))
}
