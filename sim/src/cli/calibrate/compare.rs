//! `moesim calibrate compare`.

use super::input::{Input, Read, read};
use crate::cli::cache::routing_cache;
use crate::cli::progress;
use crate::cli::simulate::{Options, simulate};
use crate::cli::terminal::{Format, print};
use crate::experiment::{self, Resolved};
use crate::framework::Use;
use crate::metrics::summary::Summary;
use crate::output::json;
use crate::registry::Registry;
use moesim_core::{Diag, Result};
use moesim_hwmodels::calibrate::data::moe::widths;
use moesim_hwmodels::calibrate::measured::{Compared, Measured, Source};
use moesim_hwmodels::calibrate::profile::{self, Kernel, Op, Profile};
use serde::Serialize;
use std::fmt::Write;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    input: Input,
    /// A profile to compare with beside those that ship, as the reference kernel's that was fitted on this machine; may be given
    /// several times
    #[arg(long, value_name = "PROFILE")]
    reference: Vec<String>,
    /// The experiment that is priced with each kernel
    #[arg(long, value_name = "EXPERIMENT", default_value = "quickstart")]
    experiment: String,
    /// Override a key of the experiment; its hardware is the table's unless set here
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Only compare kernels, without an experiment
    #[arg(long)]
    no_run: bool,
}

/// How many times as long as another kernel the measured one takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Ratio {
    rows: usize,
    p10: f64,
    median: f64,
    p90: f64,
}

/// Another kernel beside the measured one.
#[derive(Clone, Debug, Serialize)]
struct Beside {
    /// Its profile, family and precision; or the roofline.
    name: String,
    /// Whether it was measured on another device; its fractions are taken of this one's peaks.
    donor: bool,
    all: Ratio,
    /// On rows whose roofline is memory's.
    memory: Option<Ratio>,
    /// On rows whose roofline is that of arithmetic.
    compute: Option<Ratio>,
    /// Part of the rows on which it is faster.
    faster: f64,
    /// Rows outside the sizes that it was fitted on.
    extrapolated: usize,
}

/// A kernel of the table.
#[derive(Clone, Debug, Serialize)]
struct Kernels {
    op: Op,
    family: String,
    precision: String,
    rows: usize,
    beside: Vec<Beside>,
    /// The fastest of them but the roofline, if any is faster on the median row.
    fastest: Option<String>,
}

/// An experiment with one choice of kernels.
#[derive(Clone, Debug, Serialize)]
struct Priced {
    kernels: &'static str,
    output_tokens_per_s: f64,
    tpot_ms: Option<f64>,
    /// Output tokens a second over those with the measured kernels.
    gain: f64,
    /// Where the costs of the measured operations came from.
    costs: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    device: String,
    hardware: String,
    kernels: Vec<Kernels>,
    experiment: Option<Vec<Priced>>,
    /// Why there is none.
    not_priced: Option<String>,
}

pub(super) fn run(a: &Args, registry: &Registry) -> Result<()> {
    let references = a.reference.iter().map(|r| Profile::load(r)).collect::<Result<Vec<_>>>()?;
    let shipped = profile::presets().iter().map(|(name, _)| Profile::load(name)).collect::<Result<Vec<_>>>()?;
    let Read { kernels: measured, files, hardware } = read(&a.input)?;
    let device = measured[0].names()[0].to_string();
    let (mut kernels, mut best) = (Vec::new(), Vec::new());
    for m in &measured {
        let (found, fastest) = beside(&**m, &references, &shipped, &hardware)?;
        kernels.push(found);
        best.push(fastest);
    }
    let (mut priced, mut not_priced) = (None, None);
    if !a.no_run {
        let from = Source { files: &files, source: None, cross: false };
        let own: Vec<Kernel> = measured.iter().map(|m| m.fit(&from)).collect();
        let fastest: Vec<Kernel> =
            own.iter().zip(best).map(|(own, b)| b.map_or_else(|| own.clone(), |b| as_own(b, own))).collect();
        match price(a, registry, &device, &hardware, &own, &fastest) {
            Ok(found) => priced = Some(found),
            Err(e) if a.set.is_empty() => not_priced = Some(e.to_string()),
            Err(e) => return Err(e),
        }
    }
    let report = Report { device, hardware, kernels, experiment: priced, not_priced };
    print(&match a.input.format {
        Format::Json => json(&report)? + "\n",
        Format::Table => text(&report, &a.experiment),
    })
}

/// What the rows of a measured kernel would take by others: the report, and the fastest.
fn beside(
    m: &dyn Measured,
    references: &[Profile],
    shipped: &[Profile],
    hardware: &str,
) -> Result<(Kernels, Option<Kernel>)> {
    let [_, family, precision] = m.names();
    let alike = |k: &Kernel| {
        k.op == m.op() && (k.op.counts_bytes() || widths(&k.precision).map(|w| w[0]) == widths(precision).map(|w| w[0]))
    };
    let mut list: Vec<Beside> = Vec::new();
    let mut fastest: Option<(f64, String, Kernel)> = None;
    for profile in references.iter().chain(shipped) {
        for kernel in profile.kernels.iter().filter(|k| alike(k)) {
            let Some(found) = m.compare(kernel)? else { continue };
            let name = format!("{}: {} {}", profile.name, kernel.family, kernel.precision);
            if list.is_empty() {
                list.extend(of("roofline of the peaks".into(), false, &found.rows, |r| r.roofline_s));
            }
            let Some(new) = of(name.clone(), profile.hardware != hardware, &found.rows, |r| r.predicted_s) else {
                continue;
            };
            if new.all.median > 1.0 && fastest.as_ref().is_none_or(|f| new.all.median > f.0) {
                fastest = Some((new.all.median, name, kernel.clone()));
            }
            list.push(new);
        }
    }
    // Without any other kernel its own fit gives the roofline of its rows.
    if list.is_empty() {
        let own = m.fit(&Source { files: &[], source: None, cross: false });
        if let Some(found) = m.compare(&own)? {
            list.extend(of("roofline of the peaks".into(), false, &found.rows, |r| r.roofline_s));
        }
    }
    let from = 1.min(list.len());
    list[from..].sort_by(|a, b| b.all.median.total_cmp(&a.all.median));
    let (name, kernel) = fastest.map(|(_, name, kernel)| (name, kernel)).unzip();
    let kernels = Kernels {
        op: m.op(),
        family: family.to_string(),
        precision: precision.to_string(),
        rows: m.rows(),
        beside: list,
        fastest: name,
    };
    Ok((kernels, kernel))
}

fn of(name: String, donor: bool, rows: &[Compared], other: fn(&Compared) -> f64) -> Option<Beside> {
    let ratio = |keep: &dyn Fn(&Compared) -> bool| {
        let mut all: Vec<f64> = rows.iter().filter(|r| keep(r)).map(|r| r.measured_s / other(r)).collect();
        all.sort_by(f64::total_cmp);
        let at = |q: f64| all[((all.len() - 1) as f64 * q).round() as usize];
        (!all.is_empty()).then(|| Ratio { rows: all.len(), p10: at(0.1), median: at(0.5), p90: at(0.9) })
    };
    // The ridge is where both halves of the roofline are equal: the roofline is memory's below it.
    let computes = |r: &Compared| r.flop > r.bytes * ridge(rows);
    Some(Beside {
        all: ratio(&|_| true)?,
        memory: ratio(&|r| !computes(r)),
        compute: ratio(&computes),
        faster: rows.iter().filter(|r| other(r) < r.measured_s).count() as f64 / rows.len() as f64,
        extrapolated: rows.iter().filter(|r| r.extrapolated).count(),
        name,
        donor,
    })
}

/// Operations a byte at which the rows' roofline changes: the peak rates are the largest that any row's roofline has.
fn ridge(rows: &[Compared]) -> f64 {
    let most = |amount: fn(&Compared) -> f64| rows.iter().map(|r| amount(r) / r.roofline_s).fold(0.0, f64::max);
    most(|r| r.flop) / most(|r| r.bytes).max(1e-300)
}

/// A kernel of another profile in the place of an own one: a run finds it by its operation and precision.
fn as_own(other: Kernel, own: &Kernel) -> Kernel {
    let mut kernel = other;
    kernel.precision.clone_from(&own.precision);
    kernel
}

/// The experiment with the measured kernels, with the fastest others, and with rooflines.
fn price(
    a: &Args,
    registry: &Registry,
    device: &str,
    hardware: &str,
    own: &[Kernel],
    fastest: &[Kernel],
) -> Result<Vec<Priced>> {
    let mut set = a.set.clone();
    if !set.iter().any(|s| s.trim_start().starts_with("hardware=") || s.trim_start().starts_with("hardware ")) {
        set.insert(0, format!("hardware={:?}", a.input.hardware.as_deref().unwrap_or(hardware)));
    }
    let resolved = experiment::load(&a.experiment, &set)?;
    let line = progress::ProgressLine::new(false);
    let cache = routing_cache()?;
    let ops: Vec<Op> = own.iter().map(|k| k.op).collect();
    let uses: Vec<Use> = Use::ALL.into_iter().filter(|of| of.ops().iter().any(|op| ops.contains(op))).collect();
    let families: Vec<&str> = own.iter().chain(fastest).map(|k| k.family.as_str()).collect();
    let mut out: Vec<Priced> = Vec::new();
    for (kernels, list) in [("measured", own), ("the fastest known", fastest), ("rooflines", &[][..])] {
        let mut r: Resolved = resolved.clone();
        // Kernels are those that are compared.
        r.engine.iter_mut().for_each(|e| e.without_kernels(&uses));
        // What was not measured keeps the kernels that it has.
        for p in r.profiles.iter_mut().map(std::sync::Arc::make_mut) {
            p.kernels.retain(|k| !ops.contains(&k.op));
            p.tables.retain(|t| !ops.contains(&t.op));
        }
        if !list.is_empty() {
            let profile = Profile {
                name: kernels.replace(' ', "-"),
                device: device.to_string(),
                hardware: r.hardware.name.clone(),
                donors: Vec::new(),
                kernels: list.to_vec(),
                tables: Vec::new(),
            };
            r.profiles.insert(0, profile.into());
        }
        line.say(format!("{} with {kernels}", r.experiment.name));
        let options = Options { out: None, timeline: false };
        let summary =
            simulate(&r, registry, || cache.open(r.routing(), &|text| line.say(text)), &options, &line)?.summary;
        let costs: Vec<String> = costs(&summary, &ops);
        if kernels == "measured" && !costs.iter().any(|c| families.iter().any(|f| c.contains(f))) {
            let problem = format!("{} uses none of the measured kernels: {}", r.experiment.name, costs.join("; "));
            return Err(Diag::input(problem)
                .cure("choose one in the measured precision, as in --set model.precision.experts=16"));
        }
        let rate = summary.throughput.output_tokens_per_s;
        let first = out.first().map_or(rate, |p| p.output_tokens_per_s);
        out.push(Priced {
            kernels,
            output_tokens_per_s: rate,
            tpot_ms: summary.tpot_ms.as_ref().map(|s| s.p50),
            gain: rate / first,
            costs,
        });
    }
    line.done();
    Ok(out)
}

fn costs(summary: &Summary, ops: &[Op]) -> Vec<String> {
    let what = |op: &Op| match op {
        Op::Experts | Op::GroupedGemm => "experts",
        Op::Gemm => "gemm",
        Op::DecodeAttention | Op::LatentDecodeAttention => "decode attention",
        Op::PrefillAttention | Op::LatentPrefillAttention => "prefill attention",
        Op::Stream => "stream",
        Op::AllGather => "all-gather",
        Op::AllReduce => "all-reduce",
        Op::Dispatch | Op::AllToAll => "dispatch",
        Op::Combine => "combine",
        _ => "",
    };
    let mut names: Vec<&str> = ops.iter().map(what).collect();
    names.sort_unstable();
    names.dedup();
    names.iter().filter_map(|n| summary.costs.get(n).map(|c| format!("{n}: {c}"))).collect()
}

fn text(r: &Report, experiment: &str) -> String {
    let mut t =
        format!("{} on {}: how many times as long as other kernels the measured ones take\n", r.device, r.hardware);
    let median = |x: &Option<Ratio>| x.map_or("-".into(), |x| format!("{:.2}", x.median));
    for k in &r.kernels {
        let _ = writeln!(t, "\n{} {}: {}, {} rows", k.family, k.precision, k.op, k.rows);
        let _ = writeln!(
            t,
            "  {:<58}{:>6}{:>7}{:>7}{:>9}{:>9}{:>9}",
            "beside", "p10", "median", "p90", "memory", "compute", "slower"
        );
        for b in &k.beside {
            let name = if b.donor { format!("{} (donor)", b.name) } else { b.name.clone() };
            let outside =
                if b.extrapolated > 0 { format!("  {} rows beyond its sizes", b.extrapolated) } else { String::new() };
            let _ = writeln!(
                t,
                "  {name:<58}{:>6.2}{:>7.2}{:>7.2}{:>9}{:>9}{:>8.0}%{outside}",
                b.all.p10,
                b.all.median,
                b.all.p90,
                median(&b.memory),
                median(&b.compute),
                100.0 * b.faster
            );
        }
        let _ = match &k.fastest {
            Some(name) => writeln!(t, "  fastest on the median row: {name}"),
            None => writeln!(t, "  no other kernel is faster on the median row"),
        };
    }
    t += "\nmemory, compute: the median where the roofline is memory's, or that of arithmetic. slower: part of the rows on which the\n\
          measured kernel is. donor: fractions that were fitted on another device, of this one's peaks.\n";
    if let Some(list) = &r.experiment {
        let _ = writeln!(t, "\n{experiment} on {}", r.hardware);
        for p in list {
            let tpot = p.tpot_ms.map_or(String::new(), |t| format!(", TPOT {t:.3} ms"));
            let gain = 100.0 * (p.gain - 1.0);
            let _ = writeln!(
                t,
                "  with {:<18} {:>10.1} output tokens/s ({gain:+.1} %){tpot}",
                p.kernels, p.output_tokens_per_s
            );
            p.costs.iter().for_each(|c| t += &format!("    {c}\n"));
        }
    }
    if let Some(why) = &r.not_priced {
        let _ = writeln!(t, "\n{experiment} is not priced: {why}");
    }
    t
}
