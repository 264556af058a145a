//! `moesim validate --points`: measured servers beside their simulation.

use super::{Args, points_table};
use crate::cli::cache::routing_cache;
use crate::cli::progress::ProgressLine;
use crate::cli::terminal::{Format, interrupted, print};
use crate::experiment::Profiles;
use crate::output::json;
use crate::registry::Registry;
use crate::routing::{Opened, Origin};
use crate::validate::points::express::{Expressed, PointRouting, express};
use crate::validate::points::outcome::PointOutcome;
use crate::validate::points::{self, Point, rounds};
use clap::ValueEnum;
use moesim_core::{Diag, Result};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What goes with `--points`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Only so many points, spread over models, devices, frameworks and clients; the same ones each time
    #[arg(long, value_name = "N", requires = "points")]
    sample: Option<usize>,
    /// Which points, by their role; constants may be fitted to those for calibration
    #[arg(long, value_enum, default_value = "figure", requires = "points")]
    role: Role,
    /// How experts are chosen: as in a measured trace (drawn once, then kept), or uniformly
    #[arg(long, value_enum, default_value = "synthetic", requires = "points")]
    routing: RoutingKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Those for judging
    Figure,
    /// Those that constants may be fitted to
    Calibration,
    /// Both
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoutingKind {
    /// As in a measured trace
    Synthetic,
    /// Independent uniform draws
    Uniform,
}

pub(super) fn run(file: &Path, args: &Args, registry: &Registry) -> Result<()> {
    let points = chosen(file, &args.of_points)?;
    let line = ProgressLine::new(args.quiet);
    let routing = match args.of_points.routing {
        RoutingKind::Synthetic => PointRouting::Synthetic,
        RoutingKind::Uniform => PointRouting::Uniform,
    };
    let profiles = Profiles::default();
    let opened = open(&points, &|p| express(p, routing, &profiles), &line)?;
    let done = AtomicUsize::new(0);
    let simulate = |point: &Point| {
        let expressed = express(point, routing, &profiles);
        let simulated = expressed.as_ref().map_err(Clone::clone).and_then(|e| {
            let trace = || opened.get(&e.resolved.model.name).cloned().ok_or_else(|| Diag::run("interrupted"));
            rounds::simulate(e, registry, &trace, &|| !interrupted())
        });
        let n = done.fetch_add(1, Ordering::Relaxed) + 1;
        line.say(format!("{n} of {} points", points.len()));
        PointOutcome::new(point, &expressed, simulated)
    };
    let outcomes: Vec<PointOutcome> = points.par_iter().with_max_len(1).map(simulate).collect();
    line.done();
    if interrupted() {
        return Err(Diag::run("interrupted").cure("run it again, perhaps with a smaller --sample; nothing was written"));
    }
    print(&match args.format {
        Format::Json => json(&outcomes)? + "\n",
        Format::Table => points_table::table(&outcomes),
    })
}

/// The points that are asked for.
fn chosen(file: &Path, options: &Options) -> Result<Vec<Point>> {
    let role = match options.role {
        Role::Figure => Some("figure"),
        Role::Calibration => Some("calibration"),
        Role::All => None,
    };
    let mut points = points::read(file)?;
    points.retain(|p| role.is_none_or(|r| p.role == r));
    match options.sample {
        _ if points.is_empty() => {
            let problem = format!("has no point of the role {}", role.unwrap_or("figure or calibration"));
            Err(Diag::input(problem).file(file).place("--role").cure("choose another --role: figure, calibration, all"))
        }
        Some(0) => Err(Diag::input("a sample of 0 points").place("--sample").cure("ask for at least 1")),
        Some(n) => Ok(points::sample::sample(&points, n).into_iter().map(|i| points[i].clone()).collect()),
        None => Ok(points),
    }
}

/// The routing of every model, by its name: it does not depend on precisions, devices or ranks, so that points share it.
fn open(
    points: &[Point],
    express: &dyn Fn(&Point) -> Result<Expressed>,
    line: &ProgressLine,
) -> Result<BTreeMap<String, Opened>> {
    let (cache, mut opened, mut seen) = (routing_cache()?, BTreeMap::new(), BTreeSet::new());
    for point in points.iter().take_while(|_| !interrupted()) {
        if seen.contains(&point.model) {
            continue;
        }
        // Another point of the model may be one that can be expressed.
        let Ok(Expressed { resolved, .. }) = express(point) else { continue };
        seen.insert(&point.model);
        let Opened { trace, .. } = cache.open(resolved.routing(), &|text| line.say(text))?;
        opened.insert(resolved.model.name.clone(), Opened { trace, from: Origin::Shared });
    }
    Ok(opened)
}
