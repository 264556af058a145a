//! `moesim calibrate check`.

use super::cells::cells;
use super::input::{Input, read};
use crate::cli::force::Force;
use crate::cli::terminal::{Format, note, print};
use crate::output::json;
use moesim_core::output::AtomicDir;
use moesim_core::{Diag, Result};
use moesim_hwmodels::calibrate::cross::{Cell, Errors};
use moesim_hwmodels::calibrate::measured::{Compared, Measured};
use moesim_hwmodels::calibrate::profile::{Kernel, Op, Profile};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A profile: a file, or a name from `moesim list profiles`
    profile: String,
    #[command(flatten)]
    input: Input,
    /// Write every row's prediction and the pictures here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
}

/// The file of the folder that only this command writes.
const MARKER: &str = "predictions.csv";

/// Rows that are listed of those furthest off.
const WORST: usize = 10;

/// A kernel beside new measurements.
#[derive(Clone, Debug, Serialize)]
struct Checked {
    op: Op,
    family: String,
    precision: String,
    /// The profile's kernel, if another stands in.
    donor: Option<String>,
    errors: Errors,
    extrapolated: usize,
    /// Of a table: rows whose shape or size it lacks, which have no prediction.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_in_table: Option<usize>,
    /// Errors by the term that binds.
    regimes: BTreeMap<&'static str, Errors>,
    cells: Vec<Cell>,
    worst: Vec<Compared>,
}

pub(super) fn run(a: &Args) -> Result<()> {
    let _claim = a.force.folder(a.out.as_deref(), MARKER)?;
    let profile = Profile::load(&a.profile)?;
    let measured = read(&a.input)?.kernels;
    let (mut checked, mut all) = (Vec::new(), Vec::new());
    for m in &measured {
        let [_, family, precision] = m.names();
        let table = profile
            .tables
            .iter()
            .find(|t| (t.op, t.family.as_str(), t.precision.as_str()) == (m.op(), family, precision));
        if let Some(found) = table.map(|t| m.compare_table(t))
            && let Some(errors) = found.errors(|_| true)
        {
            checked.push(Checked {
                op: m.op(),
                family: format!("{family} (table)"),
                precision: precision.to_string(),
                donor: None,
                errors,
                extrapolated: 0,
                not_in_table: Some(m.rows() - found.rows.len()),
                regimes: BTreeMap::new(),
                cells: Vec::new(),
                worst: worst(&found.rows),
            });
            all.extend(found.rows);
        }
        if profile.kernels.is_empty() && table.is_some() {
            continue;
        }
        let (kernel, donor) = kernel_for(&profile, &**m).ok_or_else(|| {
            let problem =
                format!("the profile {} has no kernel of {} in the form of the measurements", profile.name, m.op());
            Diag::input(problem).file(&a.profile).cure("fit one first, with --into to keep the others")
        })?;
        let Some(found) = m.compare(kernel)? else { continue };
        let Some(errors) = found.errors(|_| true) else { continue };
        let bounds = found.rows.iter().map(|r| r.bound).collect::<std::collections::BTreeSet<_>>();
        let regimes = bounds.into_iter().filter_map(|b| Some((b, found.errors(|r| r.bound == b)?))).collect();
        checked.push(Checked {
            op: m.op(),
            family: family.to_string(),
            precision: precision.to_string(),
            donor: donor.then(|| format!("{} {}", kernel.family, kernel.precision)),
            errors,
            extrapolated: found.rows.iter().filter(|r| r.extrapolated).count(),
            not_in_table: None,
            regimes,
            cells: found.cells,
            worst: worst(&found.rows),
        });
        all.extend(found.rows);
    }
    if let Some(out) = &a.out {
        let dir = AtomicDir::create(out, MARKER)?;
        let path = dir.path().join(MARKER);
        let mut csv = csv::Writer::from_path(&path).map_err(|e| Diag::run(e.to_string()).file(&path))?;
        all.iter().try_for_each(|r| csv.serialize(r)).map_err(|e| Diag::run(e.to_string()).file(&path))?;
        csv.flush().map_err(|e| Diag::cannot_write(&path, &e))?;
        pictures(dir.path(), &all)?;
        dir.commit()?.iter().for_each(|n| note(n));
    }
    print(&match a.input.format {
        Format::Json => json(&checked)? + "\n",
        Format::Table => report(&profile, &checked, a.out.as_deref()),
    })
}

/// The rows that are furthest off.
fn worst(rows: &[Compared]) -> Vec<Compared> {
    let off = |r: &Compared| (r.predicted_s / r.measured_s - 1.0).abs();
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| off(b).total_cmp(&off(a)));
    rows.truncate(WORST);
    rows
}

/// The kernel of the same operation, family and precision; else of the operation and precision; else the operation's first one,
/// which then is a donor (true). One of another form cannot be asked.
fn kernel_for<'a>(profile: &'a Profile, m: &dyn Measured) -> Option<(&'a Kernel, bool)> {
    let [_, family, precision] = m.names();
    let alike: Vec<&Kernel> =
        profile.kernels.iter().filter(|k| k.op == m.op() && m.compare(k).is_ok_and(|c| c.is_some())).collect();
    let own = alike.iter().find(|k| k.family == family && k.precision == precision);
    let other = || alike.iter().find(|k| k.precision == precision).or_else(|| alike.first());
    own.map(|k| (*k, false)).or_else(|| other().map(|k| (*k, true)))
}

/// Measured against predicted, and what of the peaks is reached.
fn pictures(dir: &Path, rows: &[Compared]) -> Result<()> {
    let mut names: Vec<(&str, &str)> = rows.iter().map(|r| (r.family.as_str(), r.precision.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    let of = |(family, precision): &(&str, &str)| {
        rows.iter().filter(|r| r.family == *family && r.precision == *precision).collect::<Vec<_>>()
    };
    let line = |name: &str, points: Vec<(f64, f64)>| moesim_plot::PanelLine { name: name.into(), points };
    let times = |name: &(&str, &str)| {
        let own = of(name);
        let cloud = |what: &str, y: fn(&Compared) -> f64| {
            line(what, own.iter().map(|r| (r.measured_s * 1e3, y(r) * 1e3)).collect())
        };
        moesim_plot::Panel {
            title: format!("{} {}", name.0, name.1),
            x: "measured, ms".into(),
            y: "ms".into(),
            lines: vec![cloud("predicted", |r| r.predicted_s), cloud("bare roofline", |r| r.roofline_s)],
        }
    };
    let below = "on the diagonal, what is predicted is what was measured; every row is in predictions.csv";
    let panels: Vec<_> = names.iter().map(times).collect();
    draw(dir, "check", &moesim_plot::scatter("Measured and predicted times", below, &panels))?;
    // Kernels without arithmetic have no place under a roof of it.
    let computing: Vec<_> = names.iter().filter(|n| of(n).iter().any(|r| r.flop > 0.0)).collect();
    if computing.is_empty() {
        return Ok(());
    }
    let rates = |name: &(&str, &str)| {
        let own = of(name);
        let cloud = |what: &str, time: fn(&Compared) -> f64| {
            line(what, own.iter().map(|r| (r.flop / r.bytes, r.flop / time(r) / 1e12)).collect())
        };
        moesim_plot::Panel {
            title: format!("{} {}", name.0, name.1),
            x: "arithmetic intensity, FLOP/byte".into(),
            y: "TFLOP/s".into(),
            lines: vec![
                cloud("measured", |r| r.measured_s),
                cloud("predicted", |r| r.predicted_s),
                cloud("bare roofline", |r| r.roofline_s),
            ],
        }
    };
    let below = "operations and bytes that the result needs, each operand once; the bare roofline is the roof of the device's peaks";
    let panels: Vec<_> = computing.into_iter().map(rates).collect();
    draw(dir, "roofline", &moesim_plot::roofline("What of the peaks is reached", below, &panels))
}

fn draw(dir: &Path, name: &str, svg: &str) -> Result<()> {
    crate::output::text(&dir.join(format!("{name}.svg")), svg)?;
    let path = dir.join(format!("{name}.png"));
    std::fs::write(&path, moesim_plot::png(svg)?).map_err(|e| Diag::cannot_write(&path, &e))
}

fn report(p: &Profile, checked: &[Checked], out: Option<&Path>) -> String {
    let mut t = format!("profile {} ({} on {}), errors in %\n", p.name, p.device, p.hardware);
    let of = |e: &Errors| {
        format!(
            "mean {:.1}, median {:.1}, p90 {:.1} over {} rows",
            100.0 * e.mean,
            100.0 * e.median,
            100.0 * e.p90,
            e.rows
        )
    };
    for c in checked {
        let _ = writeln!(t, "\n{} {}: {}", c.family, c.precision, of(&c.errors));
        if let Some(donor) = &c.donor {
            let _ = writeln!(t, "  not in the profile; the constants of {donor} stand in");
        }
        if let Some(n) = c.not_in_table.filter(|n| *n > 0) {
            let _ = writeln!(t, "  {n} rows are of shapes or sizes that the table lacks: not predicted");
        }
        if c.extrapolated > 0 {
            let _ = writeln!(t, "  {} rows are smaller or larger than any row fitted", c.extrapolated);
        }
        if !c.cells.is_empty() {
            t += &cells(&c.cells);
        }
        for (bound, e) in &c.regimes {
            let _ = writeln!(t, "  bound by {bound}: {}", of(e));
        }
        t += "  worst rows\n";
        for r in &c.worst {
            let _ = writeln!(
                t,
                "  {:>+7.1} %  {:>8.3} ms measured, {:>8.3} predicted ({}): {}, {}, size {}",
                100.0 * (r.predicted_s / r.measured_s - 1.0),
                1e3 * r.measured_s,
                1e3 * r.predicted_s,
                r.bound,
                r.cell,
                r.shape,
                r.size
            );
        }
    }
    if let Some(out) = out {
        let _ = writeln!(t, "\nevery row in {}", out.display());
    }
    t
}
