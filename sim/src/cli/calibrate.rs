//! `moesim calibrate`: profiles from measurements, and how far they are off.

use super::{Format, print, progress};
use crate::output::json;
use moesim_core::output::{AtomicDir, AtomicFile};
use moesim_core::{Diag, Result, diag};
use moesim_hwmodels::Hardware;
use moesim_hwmodels::calibrate::cross::{self, Cell, Errors};
use moesim_hwmodels::calibrate::data::{self, Group, SCHEMAS, Table};
use moesim_hwmodels::calibrate::device;
use moesim_hwmodels::calibrate::fit::{self, Source};
use moesim_hwmodels::calibrate::profile::{DataFile, Kernel, KernelForm, Profile};
use moesim_hwmodels::form::{Form, FusedMoe, MoeRow};
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Fit the constants of cost forms to measured times, and write a hardware profile
    Fit(FitArgs),
    /// Compare a profile with measured times: errors, worst rows, pictures
    Check(CheckArgs),
}

/// What both read.
#[derive(Debug, clap::Args)]
struct Input {
    /// Measurements: CSV, plain or gzip
    data: PathBuf,
    /// What the file holds [default: fused-moe]
    #[arg(long, value_name = "NAME", default_value = "fused-moe")]
    schema: String,
    /// Columns of another name, as in --map gpu=device,ms=latency_ms
    #[arg(long, value_name = "THEIRS=OURS", value_delimiter = ',')]
    map: Vec<String>,
    /// The hardware with the device's peaks: a preset or a file [default: by the device's name in the data]
    #[arg(long, value_name = "PRESET|FILE")]
    hardware: Option<String>,
    /// Only kernel families with this in their name
    #[arg(long, value_name = "TEXT")]
    family: Option<String>,
    /// How to print the errors
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct FitArgs {
    #[command(flatten)]
    input: Input,
    /// Write the profile here
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The profile's name [default: the name of --out]
    #[arg(long)]
    name: Option<String>,
    /// Origin and licence of the data, kept in the profile
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Do not fit once more without each shape: no errors on shapes that the fit has not seen
    #[arg(long)]
    no_cross: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// A profile: a file, or a name from `moesim list profiles`
    profile: String,
    #[command(flatten)]
    input: Input,
    /// Write every row's prediction and the pictures here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Fit(a) => fit(a),
        Command::Check(a) => check(a),
    }
}

/// Reads the groups of a file; hash of the file; the hardware that peaks were taken from.
fn read(a: &Input) -> Result<(Vec<Group<MoeRow>>, String, Vec<String>)> {
    let names: Vec<&str> = SCHEMAS.iter().map(|s| s.0).collect();
    if !names.contains(&a.schema.as_str()) {
        return Err(diag::unknown("schema", &a.schema, &names));
    }
    if a.schema != "fused-moe" {
        let problem =
            format!("{} is read by the library (moesim_hwmodels::calibrate::data), not by this command yet", a.schema);
        return Err(Diag::input(problem).place("--schema").cure("give a table of fused MoE layers"));
    }
    let split = |m: &String| {
        let pair = m.split_once('=').map(|(theirs, ours)| (theirs.trim().to_string(), ours.trim().to_string()));
        pair.ok_or_else(|| Diag::input(format!("--map {m} has no =")).cure("write THEIRS=OURS"))
    };
    let map = a.map.iter().map(split).collect::<Result<Vec<_>>>()?;
    let table = Table::read(&a.data, &map)?;
    let given = a.hardware.as_deref().map(Hardware::load).transpose()?;
    let used = std::cell::RefCell::new(Vec::<Hardware>::new());
    let hardware_of = std::cell::RefCell::new(Vec::<(String, usize)>::new());
    let peaks = |name: &str, precision: &str| {
        if let Some(h) = &given {
            return device::peaks(&h.device, precision);
        }
        let known = hardware_of.borrow().iter().find(|(n, _)| n == name).map(|(_, i)| *i);
        let at = match known {
            Some(at) => at,
            None => {
                let hardware = device::hardware(name).map_err(|d| d.file(&a.data))?;
                used.borrow_mut().push(hardware);
                hardware_of.borrow_mut().push((name.to_string(), used.borrow().len() - 1));
                used.borrow().len() - 1
            }
        };
        device::peaks(&used.borrow()[at].device, precision)
    };
    let mut groups = data::read_moe(&table, &peaks)?;
    if let Some(text) = &a.family {
        groups.retain(|g| g.family.contains(text.as_str()));
        if groups.is_empty() {
            let d = Diag::input(format!("no kernel family has {text:?} in its name")).file(&a.data);
            return Err(d.cure("leave --family out to see all"));
        }
    }
    let hardware = groups.iter().map(|g| match &given {
        Some(h) => h.name.clone(),
        None => {
            let at = hardware_of.borrow().iter().find(|(n, _)| *n == g.device).map_or(0, |(_, i)| *i);
            used.borrow()[at].name.clone()
        }
    });
    let hardware = hardware.collect();
    Ok((groups, table.hash, hardware))
}

fn fit(a: &FitArgs) -> Result<()> {
    let (groups, hash, hardware) = read(&a.input)?;
    if let Some(other) = groups.iter().find(|g| g.device != groups[0].device) {
        let problem = format!("holds two devices, {:?} and {:?}", groups[0].device, other.device);
        return Err(Diag::input(problem)
            .file(&a.input.data)
            .cure("fit one device at a time: split the file by device"));
    }
    let files = [DataFile { name: file_name(&a.input.data), hash }];
    let line = progress::Line::new(false);
    let mut kernels = Vec::new();
    for g in &groups {
        line.say(format!("fitting {} {} ({} rows)", g.family, g.precision, g.rows.len()));
        let from = Source { files: &files, source: a.source.as_deref(), cross: !a.no_cross };
        kernels.push(fit::fused_moe(g, &from));
    }
    line.done();
    let stem = a.out.as_deref().and_then(Path::file_stem).map(|s| s.to_string_lossy().into_owned());
    let profile = Profile {
        name: a.name.clone().or(stem).unwrap_or_else(|| "profile".into()),
        device: groups[0].device.clone(),
        hardware: hardware[0].clone(),
        donors: Vec::new(),
        kernels,
    };
    if let Some(out) = &a.out {
        AtomicFile::write(out, profile.to_text()?.as_bytes())?;
    }
    print(&match a.input.format {
        Format::Json => json(&profile)? + "\n",
        Format::Table => fitted(&profile, &groups),
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

const HEAD: &str = "shapes  rows  rough  | left out: mean  med   p90 | all rows  roofline  nearest";

fn fitted(p: &Profile, groups: &[Group<MoeRow>]) -> String {
    let mut t = format!("{} on {}, errors in %\n", p.device, p.hardware);
    for (k, g) in p.kernels.iter().zip(groups) {
        let _ = writeln!(t, "\n{} {} ({} rows, {} shapes)", k.family, k.precision, k.data.rows, k.data.shapes);
        for (name, c) in &k.constants {
            let about =
                k.form().constants().into_iter().find(|x| x.name == name).map_or(("", ""), |x| (x.about, x.unit));
            let bound = if c.at_bound { ", at its bound" } else { "" };
            let [low, high] = c.interval;
            let _ =
                writeln!(t, "  {name:<6}{:>11.4e} [{low:.2e}, {high:.2e}] {}{bound}: {}", c.value, about.1, about.0);
        }
        t += &cells(&k.cell);
        g.notes.iter().for_each(|n| t += &format!("  assumed: {n}\n"));
    }
    t + "\nrough: mean distance of a row from its neighbours in size. left out: by fits that have not seen the row's shape.\n\
         nearest: the nearest other shape's time, scaled by the ratio of bare rooflines. Intervals take rows for independent,\n\
         which those of a series are not: they are too narrow.\n"
}

fn cells(cells: &[Cell]) -> String {
    let percent = |x: Option<f64>| x.map_or("-".into(), |x| format!("{:.1}", 100.0 * x));
    let mut t = format!("  {:<20}{HEAD}\n", "cell");
    for c in cells {
        let out = |f: fn(&Errors) -> f64| percent(c.left_out.as_ref().map(f));
        let _ = writeln!(
            t,
            "  {:<20}{:>6}{:>6}{:>7}  | {:>14}{:>6}{:>6} |{:>9}{:>10}{:>9}",
            c.cell,
            c.shapes,
            c.fitted.rows,
            percent(c.roughness),
            out(|e| e.mean),
            out(|e| e.median),
            out(|e| e.p90),
            percent(Some(c.fitted.mean)),
            percent(Some(c.roofline.mean)),
            percent(c.nearest.map(|e| e.mean)),
        );
    }
    t
}

/// A row's prediction.
#[derive(Clone, Debug, Serialize)]
struct Predicted {
    family: String,
    precision: String,
    cell: String,
    shape: String,
    tokens: f64,
    measured_s: f64,
    predicted_s: f64,
    roofline_s: f64,
    bound: &'static str,
    extrapolated: bool,
}

/// A kernel beside new measurements.
#[derive(Clone, Debug, Serialize)]
struct Checked {
    family: String,
    precision: String,
    /// The profile's kernel, if another stands in.
    donor: Option<String>,
    errors: Errors,
    extrapolated: usize,
    cells: Vec<Cell>,
    worst: Vec<Predicted>,
}

fn check(a: &CheckArgs) -> Result<()> {
    let profile = Profile::load(&a.profile)?;
    let (groups, _, _) = read(&a.input)?;
    let (mut checked, mut all) = (Vec::new(), Vec::new());
    for g in &groups {
        let (kernel, donor) = kernel_for(&profile, &g.family, &g.precision).ok_or_else(|| {
            Diag::input(format!("the profile {} has no kernels of experts", profile.name)).cure("fit one first")
        })?;
        let KernelForm::FusedMoe { tiling, .. } = kernel.form() else { continue };
        let (form, values) = (FusedMoe { tiling: *tiling }, kernel.values()?);
        let mut rows: Vec<Predicted> = Vec::new();
        for (i, row) in g.rows.iter().enumerate() {
            let time = form.time(&values, row);
            let [least, most] = kernel.data.sizes;
            rows.push(Predicted {
                family: g.family.clone(),
                precision: g.precision.clone(),
                cell: g.cells[g.cell[i] as usize].clone(),
                shape: g.shapes[g.shape[i] as usize].clone(),
                tokens: g.size[i],
                measured_s: g.seconds[i],
                predicted_s: time.seconds(),
                roofline_s: form.roofline(row),
                bound: time.bound(),
                extrapolated: g.size[i] < least || g.size[i] > most,
            });
        }
        let off = |r: &Predicted| (r.predicted_s / r.measured_s - 1.0).abs();
        let Some(errors) = Errors::of(rows.iter().map(off).collect()) else { continue };
        let mut worst = rows.clone();
        worst.sort_by(|a, b| off(b).total_cmp(&off(a)));
        worst.truncate(10);
        checked.push(Checked {
            family: g.family.clone(),
            precision: g.precision.clone(),
            donor: donor.then(|| format!("{} {}", kernel.family, kernel.precision)),
            errors,
            extrapolated: rows.iter().filter(|r| r.extrapolated).count(),
            cells: cross::cells(&form, g, &values, None),
            worst,
        });
        all.extend(rows);
    }
    if let Some(out) = &a.out {
        let dir = AtomicDir::create(out, "predictions.csv")?;
        let path = dir.path().join("predictions.csv");
        let mut csv = csv::Writer::from_path(&path).map_err(|e| Diag::run(e.to_string()).file(&path))?;
        all.iter().try_for_each(|r| csv.serialize(r)).map_err(|e| Diag::run(e.to_string()).file(&path))?;
        csv.flush().map_err(|e| Diag::cannot_write(&path, &e))?;
        pictures(dir.path(), &all)?;
        dir.commit()?;
    }
    print(&match a.input.format {
        Format::Json => json(&checked)? + "\n",
        Format::Table => report(&profile, &checked, a.out.as_deref()),
    })
}

/// The kernel of a family and precision; else of the precision; else the first one, which then is a donor (true).
fn kernel_for<'a>(profile: &'a Profile, family: &str, precision: &str) -> Option<(&'a Kernel, bool)> {
    let fused = || profile.kernels.iter().filter(|k| matches!(k.form(), KernelForm::FusedMoe { .. }));
    let own = fused().find(|k| k.family == family && k.precision == precision);
    own.map(|k| (k, false)).or_else(|| {
        let alike = fused().find(|k| k.precision == precision);
        alike.or_else(|| fused().next()).map(|k| (k, true))
    })
}

/// Measured against predicted, and what of the peak is reached.
fn pictures(dir: &Path, rows: &[Predicted]) -> Result<()> {
    let mut names: Vec<(String, String)> = rows.iter().map(|r| (r.family.clone(), r.precision.clone())).collect();
    names.sort();
    names.dedup();
    let panels: Vec<moesim_plot::Panel> = names
        .iter()
        .map(|(family, precision)| {
            let own = || rows.iter().filter(|r| r.family == *family && r.precision == *precision);
            let line = |name: &str, y: fn(&Predicted) -> f64| moesim_plot::Line {
                name: name.into(),
                points: own().map(|r| (r.measured_s * 1e3, y(r) * 1e3)).collect(),
            };
            moesim_plot::Panel {
                title: format!("{family} {precision}"),
                x: "measured, ms".into(),
                y: "ms".into(),
                lines: vec![line("predicted", |r| r.predicted_s), line("bare roofline", |r| r.roofline_s)],
            }
        })
        .collect();
    let below = "on the diagonal, what is predicted is what was measured; every row is in predictions.csv";
    let text = moesim_plot::scatter("Measured and predicted times", below, &panels);
    crate::output::text(&dir.join("check.svg"), &text)?;
    let png = moesim_plot::png(&text)?;
    std::fs::write(dir.join("check.png"), png).map_err(|e| Diag::cannot_write(dir.join("check.png"), &e))
}

fn report(p: &Profile, checked: &[Checked], out: Option<&Path>) -> String {
    let mut t = format!("profile {} ({} on {}), errors in %\n", p.name, p.device, p.hardware);
    for c in checked {
        let e = &c.errors;
        let _ = writeln!(
            t,
            "\n{} {}: mean {:.1}, median {:.1}, p90 {:.1} over {} rows",
            c.family,
            c.precision,
            100.0 * e.mean,
            100.0 * e.median,
            100.0 * e.p90,
            e.rows
        );
        if let Some(donor) = &c.donor {
            let _ = writeln!(t, "  not in the profile; the constants of {donor} stand in");
        }
        if c.extrapolated > 0 {
            let _ = writeln!(t, "  {} rows have fewer or more tokens than any row fitted", c.extrapolated);
        }
        t += &cells(&c.cells);
        t += "  worst rows\n";
        for r in &c.worst {
            let _ = writeln!(
                t,
                "  {:>+7.1} %  {:>8.3} ms measured, {:>8.3} predicted ({}): {}, {}, {} tokens",
                100.0 * (r.predicted_s / r.measured_s - 1.0),
                1e3 * r.measured_s,
                1e3 * r.predicted_s,
                r.bound,
                r.cell,
                r.shape,
                r.tokens
            );
        }
    }
    if let Some(out) = out {
        let _ = writeln!(t, "\nevery row in {}", out.display());
    }
    t
}
