//! `moesim calibrate fit`.

use super::cells::cells;
use super::harvest::{Apart, harvest};
use super::input::{Input, Read, read};
use crate::cli::force::Force;
use crate::cli::progress;
use crate::cli::terminal::{Format, print};
use crate::experiment::{self, Resolved};
use crate::output::json;
use crate::registry::Registry;
use moesim_core::output::{AtomicFile, Claim};
use moesim_core::{Diag, Result};
use moesim_hwmodels::calibrate::measured::{Source, fastest_first};
use moesim_hwmodels::calibrate::profile::{Kernel, Profile, TimeTable};
use moesim_hwmodels::measure::Precision;
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    input: Input,
    /// Write the profile here
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// A profile whose kernels are kept, but for those of the same operation, form, family and precision: so that one profile grows
    /// from several tables; may be the file of --out
    #[arg(long, value_name = "FILE")]
    into: Option<String>,
    /// The profile's name [default: that of --into, or the name of --out]
    #[arg(long)]
    name: Option<String>,
    /// A profile that stands in for operations that this one lacks; may be given several times
    #[arg(long, value_name = "PROFILE")]
    donor: Vec<String>,
    /// What the profile gets: constants of forms, or the measured times themselves, which are interpolated by shape (fused-moe and
    /// dense GEMMs) and go first where they reach
    #[arg(long, value_enum, default_value = "form")]
    kind: Kind,
    /// Origin and licence of the data, kept in the profile
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Do not fit once more without some of the rows: no errors on what the fit has not seen
    #[arg(long)]
    no_cross: bool,
    /// Say by how much this experiment's time and its interval move with the profile: a preset or a file
    #[arg(long, value_name = "EXPERIMENT", conflicts_with = "format")]
    experiment: Option<String>,
    /// Override a key of the experiment
    #[arg(long, value_name = "KEY=VALUE", requires = "experiment")]
    set: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Fitted constants.
    Form,
    /// Measured times.
    Table,
}

pub(super) fn run(a: &Args, registry: &Registry) -> Result<()> {
    // What cannot be written is said before the fit, which may take minutes. A profile that grows in place is asked for.
    let grows = a.out.as_deref().zip(a.into.as_deref()).is_some_and(|(out, into)| out == Path::new(into));
    let _claim = a.out.as_deref().map(|out| Claim::file(out, a.force.given() || grows)).transpose()?;
    let into = a.into.as_deref().map(Profile::load).transpose()?;
    let experiment = a.experiment.as_deref().map(|x| experiment::load(x, &a.set)).transpose()?;
    let Read { kernels: measured, files, hardware } = read(&a.input)?;
    let device = measured[0].names()[0].to_string();
    if let Some(other) = measured.iter().find(|m| m.names()[0] != device) {
        let problem = format!("holds two devices, {device:?} and {:?}", other.names()[0]);
        return Err(Diag::input(problem)
            .file(&a.input.data[0])
            .cure("fit one device at a time: split the file by device"));
    }
    let measured = fastest_first(measured);
    let from = Source { files: &files, source: a.source.as_deref(), cross: !a.no_cross };
    let (mut kernels, mut tables) = (Vec::new(), Vec::new());
    match a.kind {
        Kind::Form => {
            let line = progress::ProgressLine::new(false);
            for m in &measured {
                let [_, family, precision] = m.names();
                line.say(format!("fitting {family} {precision} ({} rows)", m.rows()));
                kernels.push(m.fit(&from));
            }
            line.done();
        }
        Kind::Table => {
            tables.extend(measured.iter().filter_map(|m| m.table(&from)));
            if tables.is_empty() {
                return Err(Diag::input(format!("{} has no tables, only forms", measured[0].op()))
                    .place("--kind")
                    .cure("give fused-moe tables or dense GEMMs, or leave --kind out"));
            }
        }
    }
    let stem = a.out.as_deref().and_then(Path::file_stem).map(|s| s.to_string_lossy().into_owned());
    let mut profile = into.unwrap_or_else(|| Profile {
        name: stem.unwrap_or_else(|| "profile".into()),
        device,
        hardware,
        donors: Vec::new(),
        kernels: Vec::new(),
        tables: Vec::new(),
    });
    if let Some(name) = &a.name {
        profile.name.clone_from(name);
    }
    if !a.donor.is_empty() {
        profile.donors.clone_from(&a.donor);
    }
    let same = |a: &Kernel, b: &Kernel| {
        (a.op, a.form().name(), &a.family, &a.precision) == (b.op, b.form().name(), &b.family, &b.precision)
    };
    profile.kernels.retain(|old| !kernels.iter().any(|new| same(old, new)));
    profile.kernels.extend(kernels.iter().cloned());
    let alike = |a: &TimeTable, b: &TimeTable| (a.op, &a.family, &a.precision) == (b.op, &b.family, &b.precision);
    profile.tables.retain(|old| !tables.iter().any(|new| alike(old, new)));
    profile.tables.extend(tables.iter().cloned());
    if let Some(out) = &a.out {
        AtomicFile::write(out, profile.to_text()?.as_bytes())?;
    }
    let moved = experiment.map(|x| moved(x, &profile, registry)).transpose()?.unwrap_or_default();
    print(&match a.input.format {
        Format::Json => json(&profile)? + "\n",
        Format::Table if a.kind == Kind::Table => listed(&profile, &tables) + &moved,
        Format::Table => fitted(&profile, &kernels) + &moved,
    })
}

/// An experiment's time and its interval with the costs that it has, and with the new profile before them.
fn moved(mut resolved: Resolved, profile: &Profile, registry: &Registry) -> Result<String> {
    let mut t = format!("\n{} on {}\n", resolved.label, resolved.hardware.name);
    let mut before = None;
    for name in ["as it is", &profile.name] {
        let found = harvest(&resolved, registry, Precision::Int8)?;
        let time = 1e3 * found.iteration_s;
        let interval: f64 = found.targets.iter().map(|w| w.share * w.before).sum();
        let apart = Apart::sum(&found.apart);
        let change = 100.0 * (time / *before.get_or_insert(time) - 1.0);
        let _ = writeln!(
            t,
            "  {name:<20} iteration {time:>10.4} ms ({change:+.1} %), interval {:.1} % by its kernels, \
             beside it {:.1} % of what is not measured",
            100.0 * interval,
            100.0 * apart
        );
        resolved.profiles.insert(0, profile.clone().into());
    }
    Ok(t)
}

fn listed(p: &Profile, tables: &[TimeTable]) -> String {
    let mut t = format!("{} on {}\n", p.device, p.hardware);
    for x in tables {
        let times: usize = x.shape.iter().map(|s| s.rows.len()).sum();
        let _ = writeln!(t, "{} {}: {}, {times} times of {} shapes", x.family, x.precision, x.op, x.shape.len());
    }
    t + "Times are interpolated between sizes of a shape; where a shape or size is lacking a fitted kernel of the profile stands in.\n"
}

fn fitted(p: &Profile, kernels: &[Kernel]) -> String {
    let mut t = format!("{} on {}, errors in %\n", p.device, p.hardware);
    for k in kernels {
        let _ =
            writeln!(t, "\n{} {} ({} rows, {} shapes): {}", k.family, k.precision, k.data.rows, k.data.shapes, k.op);
        for (name, c) in &k.constants {
            let known = k.form().constants();
            let about = known.iter().find(|x| x.name == name).map_or(("", ""), |x| (x.about, x.unit));
            let bound = if c.at_bound { ", at its bound" } else { "" };
            let [low, high] = c.interval;
            let _ =
                writeln!(t, "  {name:<7}{:>11.4e} [{low:.2e}, {high:.2e}] {}{bound}: {}", c.value, about.1, about.0);
        }
        t += &cells(&k.cell);
        if let Some(e) = k.left_out() {
            let _ = writeln!(
                t,
                "  left out: {}; over all cells mean {:.1}, median {:.1}",
                k.folds.as_deref().unwrap_or("each shape"),
                100.0 * e.mean,
                100.0 * e.median
            );
        }
        for b in &k.beyond {
            let e = &b.errors;
            let _ = writeln!(
                t,
                "  without {}: mean {:.1}, median {:.1} on its {} rows",
                b.without,
                100.0 * e.mean,
                100.0 * e.median,
                e.rows
            );
        }
        k.notes.iter().for_each(|n| t += &format!("  noted: {n}\n"));
    }
    t + "\nrough: mean distance of a row from its neighbours in size. left out: by fits that have not seen what is said.\n\
         nearest: the nearest other shape's time, scaled by the ratio of bare rooflines. Intervals take rows for independent,\n\
         which those of a series are not: they are too narrow.\n"
}
