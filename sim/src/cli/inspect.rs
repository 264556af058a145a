//! `moesim list`, `show`, `schema`, `plot` and `completions`.

use super::force::Force;
use super::terminal::print;
use crate::experiment::{Experiment, PRESETS};
use crate::output::json;
use crate::registry::Registry;
use clap::ValueEnum;
use moesim_core::output::{AtomicFile, Manifest};
use moesim_core::{Diag, Result, config, diag};
use moesim_hwmodels::calibrate::profile::{self, Op, Profile};
use moesim_hwmodels::{Hardware, hardware};
use moesim_traces::model;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Hardware,
    Profiles,
    Models,
    Policies,
    Experiments,
    Plots,
    Importers,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// What to list [default: all]
    what: Option<What>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// A hardware, profile, model or experiment preset, a policy, or a hardware file
    preset: String,
    /// Draw the topology of the hardware
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Experiment,
    Sweep,
    Hardware,
    Model,
}

#[derive(Debug, clap::Args)]
pub(super) struct SchemaArgs {
    /// The kind of file
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Picture {
    Svg,
    Png,
}

#[derive(Debug, clap::Args)]
pub(super) struct PlotArgs {
    /// A run directory
    dir: PathBuf,
    /// Which plots [default: all]
    kinds: Vec<String>,
    /// Only this format [default: both]
    #[arg(long, value_enum)]
    format: Option<Picture>,
    #[command(flatten)]
    force: Force,
}

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn list(args: &ListArgs, registry: &Registry) -> Result<()> {
    let all: [What; 7] =
        [What::Hardware, What::Profiles, What::Models, What::Policies, What::Experiments, What::Plots, What::Importers];
    let asked = args.what.map_or(all.to_vec(), |w| vec![w]);
    let mut out = String::new();
    let key = |text: &str, label: &str, key: &str| {
        config::table(text, label).ok().and_then(|t| t.get(key)?.as_str().map(str::to_string)).unwrap_or_default()
    };
    for what in asked {
        let rows: Vec<(String, String)> = match what {
            What::Hardware => {
                hardware::presets().iter().map(|p| (p.name.into(), key(p.text, p.name, "description"))).collect()
            }
            What::Profiles => {
                profile::presets().iter().map(|p| Ok((p.0.into(), profile(p.0)?))).collect::<Result<_>>()?
            }
            What::Models => model::presets().iter().map(|p| (p.name.into(), key(p.text, p.name, "source"))).collect(),
            What::Policies => {
                registry.list()?.iter().map(|p| (format!("{} = \"{}\"", p.seam, p.name), p.about.into())).collect()
            }
            What::Experiments => PRESETS
                .iter()
                .chain(crate::sweep::PRESETS)
                .map(|p| {
                    let about = p.1.lines().next().unwrap_or_default().trim_start_matches(['#', ' ']);
                    (p.0.to_string(), about.to_string())
                })
                .collect(),
            What::Plots => moesim_plot::builtin().iter().map(|p| (p.name().into(), p.about().to_string())).collect(),
            What::Importers => moesim_traces::import::importers()
                .iter()
                .map(|i| (i.name().into(), i.description().to_string()))
                .collect(),
        };
        out += &format!("{}\n", format!("{what:?}").to_lowercase());
        for (name, about) in rows {
            out += &format!("  {name:<34} {about}\n");
        }
    }
    print(&out)
}

/// What a profile holds, in a line.
fn profile(name: &str) -> Result<String> {
    let p = Profile::load(name)?;
    Ok(format!("{}: {}", p.device, ops(&p).into_iter().map(|o| o.to_string()).collect::<Vec<_>>().join(", ")))
}

/// The operations of a profile, each once.
fn ops(p: &Profile) -> std::collections::BTreeSet<Op> {
    p.kernels.iter().map(|k| k.op).chain(p.tables.iter().map(|t| t.op)).collect()
}

/// Which operations of a device are calibrated, as comments behind its file: by its own profile, or by donors.
fn calibrated(hardware: &Hardware) -> Result<String> {
    let Some(name) = &hardware.device.profile else {
        return Ok("# no profile: operations are rooflines with the fractions of device.achievable\n".into());
    };
    // A file's profile lies beside it and is read by runs.
    let Ok(own) = Profile::load(name) else { return Ok(format!("# profile {name}\n")) };
    let mut known = ops(&own);
    let line = |what: &str, ops: &mut dyn Iterator<Item = &Op>| {
        format!("# {what}: {}\n", ops.map(ToString::to_string).collect::<Vec<_>>().join(", "))
    };
    let mut text = line(&format!("profile {} (measured on {})", own.name, own.device), &mut known.iter());
    for donor in &own.donors {
        let donor = Profile::load(donor)?;
        let given: Vec<Op> = ops(&donor).into_iter().filter(|o| !known.contains(o)).collect();
        text += &line(
            &format!("donor {} (measured on {}), fractions of peaks and fixed times", donor.name, donor.device),
            &mut given.iter(),
        );
        known.extend(given);
    }
    Ok(text + "# all others: rooflines with the fractions of device.achievable\n")
}

/// What a policy does and can be told; a name may be that of several.
fn policy(name: &str, registry: &Registry) -> Result<Option<String>> {
    let mut text = String::new();
    for p in registry.list()?.iter().filter(|p| p.name == name) {
        text += &format!("# {}\n[policy.{}]\nkind = \"{}\"\n", p.about, p.seam, p.name);
        for s in &p.settings {
            text += &format!("# {}: {}\n{} = {}\n", s.about, s.range(), s.key, s.default);
        }
        // A placement is named without a table: it has no settings in a run.
        if p.seam == "placement" {
            text = text
                .replace(&format!("[policy.placement]\nkind = \"{name}\""), &format!("policy.placement = \"{name}\""));
        }
    }
    Ok((!text.is_empty()).then_some(text))
}

pub(super) fn show(args: &ShowArgs, registry: &Registry) -> Result<()> {
    let experiments: Vec<(&str, &str)> = PRESETS.iter().chain(crate::sweep::PRESETS).copied().collect();
    let all = hardware::presets()
        .iter()
        .map(|p| (p.name, p.text))
        .chain(profile::presets().iter().copied())
        .chain(model::presets().iter().map(|p| (p.name, p.text)))
        .chain(experiments);
    let all: Vec<(&str, &str)> = all.collect();
    let preset = all.iter().find(|p| p.0 == args.preset).map(|p| p.1.to_string());
    let preset = if preset.is_some() { preset } else { policy(&args.preset, registry)? };
    let is_hardware = hardware::preset_text(&args.preset).is_some();
    let is_file = preset.is_none() && Path::new(&args.preset).is_file();
    if !is_hardware && !is_file {
        if let (Some(_), Some(_)) = (&preset, &args.svg) {
            let problem = format!("\"{}\" has no topology to draw", args.preset);
            return Err(Diag::input(problem).place("--svg").cure("name hardware: see `moesim list hardware`"));
        }
        return match preset {
            Some(text) => print(&text),
            None => {
                let policies = registry.list()?;
                let names: Vec<&str> = all.iter().map(|p| p.0).chain(policies.iter().map(|p| p.name)).collect();
                Err(diag::unknown("preset or policy", &args.preset, &names))
            }
        };
    }
    let hardware = Hardware::load(&args.preset)?;
    let topology = hardware.build_topology()?;
    let text = match preset {
        Some(text) => text,
        None => crate::experiment::read(&args.preset, &[])?.0,
    };
    let _claim = args.force.file(args.svg.as_deref())?;
    if let Some(path) = &args.svg {
        AtomicFile::write(path, topology.svg(&hardware.name, &hardware.topology).as_bytes())?;
    }
    let facts: String = topology.facts().to_string().lines().map(|l| format!("# {l}\n")).collect();
    print(&format!("{}\n\n{facts}{}", text.trim_end(), calibrated(&hardware)?))
}

pub(super) fn schema(args: &SchemaArgs, registry: &Registry) -> Result<()> {
    let schema = match args.kind {
        Kind::Experiment => registry.schema(schemars::schema_for!(Experiment))?,
        Kind::Sweep => schemars::schema_for!(crate::sweep::SweepFile),
        Kind::Hardware => schemars::schema_for!(hardware::Hardware),
        Kind::Model => schemars::schema_for!(model::ModelFile),
    };
    print(&(json(&schema)? + "\n"))
}

pub(super) fn plot(args: &PlotArgs) -> Result<()> {
    let formats = match args.format {
        None => vec![moesim_plot::Format::Svg, moesim_plot::Format::Png],
        Some(Picture::Svg) => vec![moesim_plot::Format::Svg],
        Some(Picture::Png) => vec![moesim_plot::Format::Png],
    };
    let manifest = Manifest::read(&args.dir)?;
    let asked = |name: &str| args.kinds.is_empty() || args.kinds.iter().any(|k| k == name);
    for plot in moesim_plot::builtin().iter().filter(|p| asked(p.name()) && !args.force.given()) {
        for name in formats.iter().map(|f| format!("plots/{}.{}", plot.name(), f.extension())) {
            let path = args.dir.join(&name);
            let own = manifest.as_ref().is_some_and(|m| m.owns(&args.dir, &name));
            if path.symlink_metadata().is_ok() && !own {
                return Err(Diag::input("was changed, or is not moesim's")
                    .file(path)
                    .cure("give --force to replace it, or move it away"));
            }
        }
    }
    let written = moesim_plot::write(&args.dir, &args.kinds, &formats)?;
    if let Some(mut manifest) = manifest {
        for path in written.iter().filter_map(|p| p.strip_prefix(&args.dir).ok()?.to_str()) {
            manifest.add_file(&args.dir, path)?;
        }
        manifest.write(&args.dir)?;
    }
    print(&written.iter().map(|p| format!("{}\n", p.display())).collect::<String>())
}

/// Completions of `command`, which is all of the command line.
pub(super) fn completions(args: &CompletionsArgs, command: &mut clap::Command) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, command, "moesim", &mut text);
    print(&String::from_utf8_lossy(&text))
}
