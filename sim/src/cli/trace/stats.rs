//! `moesim trace stats`.

use crate::cli::force::Force;
use crate::cli::terminal::{Format, note, print};
use crate::output::json;
use moesim_core::output::AtomicDir;
use moesim_core::{Diag, Result};
use moesim_plot::{Panel, PanelLine, panels, png};
use moesim_traces::Trace;
use moesim_traces::stats::{BATCHES, DEVICES, EIGHTHS, Figures, LAGS, Labels, LayerFigures, Phases, Report, Topics};
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A trace in moesim's container
    trace: PathBuf,
    /// A CSV file with the columns `sequence` (its number) and `topic` [default: topics are found in the routing]
    #[arg(long, value_name = "FILE")]
    topics: Option<PathBuf>,
    /// Seed of random samples
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// A folder for stats.json, routing.svg and routing.png
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
}

/// The file of the folder that only this command writes.
const MARKER: &str = "stats.json";

pub(super) fn run(a: &Args) -> Result<()> {
    let _claim = a.force.folder(a.out.as_deref(), MARKER)?;
    let trace = Trace::open(&a.trace)?;
    let labels = a.topics.as_deref().map(|p| Labels::read(p, &trace)).transpose()?;
    let started = std::time::Instant::now();
    let report = Report::of(&trace, labels.as_ref(), a.seed)?;
    let seconds = started.elapsed().as_secs_f64();
    let text = json(&report)? + "\n";
    if let Some(dir) = &a.out {
        let svg = picture(&report);
        let dir = AtomicDir::create(dir, MARKER)?;
        let files = [("routing.svg", svg.as_bytes()), ("routing.png", &png(&svg)?), (MARKER, text.as_bytes())];
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).map_err(|e| Diag::cannot_write(&path, &e))?;
        }
        dir.commit()?.iter().for_each(|n| note(n));
    }
    if a.format == Format::Json {
        return print(&text);
    }
    let selections = report.trace.rows * trace.width() as u64;
    let rate = selections as f64 / 1e6 / seconds.max(1e-9);
    print(
        &(table(&report)
            + &format!("took           {seconds:.1} s, {rate:.0} M selections/s, independent draws included\n")),
    )
}

/// The mean over the layers that have the figure.
fn mean(figures: &Figures, f: impl Fn(&LayerFigures) -> Option<f64>) -> Option<f64> {
    let there: Vec<f64> = figures.layers.iter().flatten().filter_map(f).collect();
    (!there.is_empty()).then(|| there.iter().sum::<f64>() / there.len() as f64)
}

fn table(r: &Report) -> String {
    let (a, b) = (&r.trace, &r.independent);
    let mut t = format!(
        "{}: {} sequences, {} rows, {} MoE layers, {} experts, top-{} (hash {})\n\n{:<70}{:>9}{:>13}\n",
        r.model,
        r.sequences,
        a.rows,
        r.layer_numbers.len(),
        r.experts,
        r.k,
        r.hash,
        "",
        "trace",
        "independent"
    );
    let mut row = |name: String, x: Option<f64>, y: Option<f64>| {
        let text = |v: Option<f64>| v.map_or_else(|| "-".to_string(), |v| format!("{v:.3}"));
        let _ = writeln!(t, "{name:<70}{:>9}{:>13}", text(x), text(y));
    };
    type Figure = (&'static str, fn(&LayerFigures) -> Option<f64>);
    let layers: [Figure; 8] = [
        ("skew: most selected expert over the mean", |l| Some(l.imbalance)),
        ("skew: share of the most popular fifth of the experts", |l| Some(l.top_fifth_share)),
        ("next layer: share of the likeliest fifth of successors", |l| l.next_layer_mass),
        ("next token: share of the likeliest fifth of successors", |l| l.next_token_mass),
        ("next token: overlap of experts", |l| l.next_token_overlap),
        ("co-activation: most frequent pair over the mean pair", |l| l.hottest_pair),
        ("co-activation: highest lift", |l| l.highest_lift),
        ("co-activation: share of the most frequent tenth of pairs", |l| l.top_tenth_pairs_share),
    ];
    for (name, f) in layers {
        row(name.to_string(), mean(a, f), mean(b, f));
    }
    for (what, get) in [
        ("prompt against output", (|f: &Figures| f.phases.clone()) as fn(&Figures) -> Option<Phases>),
        ("first against second half of the output", |f: &Figures| f.halves.clone()),
    ] {
        let (x, y) = (get(a), get(b));
        if x.is_none() {
            continue;
        }
        let middle = |p: &Phases| p.rank_correlation.iter().sum::<f64>() / p.rank_correlation.len() as f64;
        row(format!("{what}: rank correlation"), x.as_ref().map(middle), y.as_ref().map(middle));
        let within = |p: &Phases| p.sequence_rank_correlation;
        row(format!("{what}: the same within a sequence"), x.as_ref().map(within), y.as_ref().map(within));
        for (i, n) in [5, 10, 20].into_iter().enumerate() {
            let (all, within) = (|p: &Phases| p.top_overlap[i], |p: &Phases| p.sequence_top_overlap[i]);
            row(format!("{what}: top-{n} shared"), x.as_ref().map(all), y.as_ref().map(all));
            row(format!("{what}: the same within a sequence"), x.as_ref().map(within), y.as_ref().map(within));
        }
    }
    for (rank, weight) in r.gates.iter().flat_map(|g| g.by_rank.iter().enumerate()) {
        row(format!("gate weight of the expert of rank {}", rank + 1), Some(*weight), None);
    }
    let topic = |f: fn(&Topics) -> f64| (a.topics.as_ref().map(f), b.topics.as_ref().map(f));
    let shared = topic(|t| t.shared_popular);
    row("topics: of 6 popular experts, shared by two topics".into(), shared.0, shared.1);
    let random = topic(|t| t.shared_popular_random);
    row("topics: the same, topics dealt at random".into(), random.0, random.1);
    let within = topic(|t| t.imbalance_within);
    row("topics: most selected expert over the mean, within a topic".into(), within.0, within.1);
    for (i, n) in BATCHES.iter().enumerate().step_by(2) {
        let (x, y) = (a.serving.batch_activated[i], b.serving.batch_activated[i]);
        row(format!("activated experts, {n} random tokens"), Some(x), Some(y));
        let (x, y) = (a.serving.run_activated[i], b.serving.run_activated[i]);
        row(format!("activated experts, {n} consecutive tokens"), x, y);
        let (x, y) = (a.serving.batch_imbalance[i], b.serving.batch_imbalance[i]);
        row(format!("max/mean load, {n} random tokens"), Some(x), Some(y));
    }
    for (i, n) in EIGHTHS.iter().enumerate() {
        let (x, y) = (a.serving.lru_hit_rate[i], b.serving.lru_hit_rate[i]);
        row(format!("hit rate of an LRU cache of {n}/8 of the experts"), Some(x), Some(y));
    }
    for (i, n) in DEVICES.iter().enumerate() {
        let (x, y) = (a.serving.devices_per_token[i], b.serving.devices_per_token[i]);
        row(format!("distinct devices a token, {n} devices"), x, y);
    }
    if let Some(topics) = &a.topics {
        let _ = writeln!(t, "\ntopics         {} ({})", topics.topics.len(), topics.origin);
    }
    t += "note           figures of layers are means over the layers; stats.json has each layer's\n";
    if a.phases.is_none() {
        t +=
            "note           no sequence has both prompt and output rows, so nothing is said of prompt against output\n";
    }
    if a.layers.is_none() {
        t += "note           pairs of experts were not counted: their tables would not fit in memory\n";
    }
    if b.rows < a.rows {
        let _ = writeln!(t, "note           independent draws: {} rows, of some of the sequences", b.rows);
    }
    t
}

/// Trace and independent draws, in small charts.
fn picture(r: &Report) -> String {
    let both = |f: &dyn Fn(&Figures) -> Vec<(f64, f64)>| {
        let line = |name: &str, figures| PanelLine { name: name.to_string(), points: f(figures) };
        vec![line("trace", &r.trace), line("independent draws", &r.independent)]
    };
    let panel = |title: &str, x: &str, y: &str, f: &dyn Fn(&Figures) -> Vec<(f64, f64)>| Panel {
        title: title.into(),
        x: x.into(),
        y: y.into(),
        lines: both(f),
    };
    let sized = |sizes: &[usize], values: &[f64]| sizes.iter().map(|s| *s as f64).zip(values.iter().copied()).collect();
    let some = |v: &[Option<f64>]| v.iter().map(|x| x.unwrap_or(f64::NAN)).collect::<Vec<_>>();
    let layered = |title: &str, y: &str, f: fn(&LayerFigures) -> Option<f64>| {
        panel(title, "layer", y, &|g| {
            let values = g.layers.iter().flatten().map(|l| f(l).unwrap_or(f64::NAN));
            r.layer_numbers.iter().map(|l| f64::from(*l)).zip(values).collect()
        })
    };
    let all = [
        panel("Experts that a batch of random tokens activates", "tokens", "experts", &|g| {
            sized(&BATCHES, &g.serving.batch_activated)
        }),
        panel("Experts that consecutive tokens activate", "tokens", "experts", &|g| {
            sized(&BATCHES, &some(&g.serving.run_activated))
        }),
        panel("Load of the most loaded expert", "tokens", "over the mean", &|g| {
            sized(&BATCHES, &g.serving.batch_imbalance)
        }),
        panel("Least-recently-used cache", "eighths of the experts cached", "hit rate", &|g| {
            sized(&EIGHTHS, &g.serving.lru_hit_rate)
        }),
        panel("Experts shared with an earlier token", "tokens before", "share", &|g| {
            sized(&LAGS, &some(&g.serving.lag_overlap))
        }),
        panel("Devices that a token's experts lie on", "devices", "distinct devices", &|g| {
            sized(&DEVICES, &some(&g.serving.devices_per_token))
        }),
        layered("Most selected expert over the mean", "over the mean", |l| Some(l.imbalance)),
        layered("Experts shared with the token before", "share", |l| l.next_token_overlap),
        layered("Likeliest fifth of next layer's experts", "share of successors", |l| l.next_layer_mass),
        layered("Likeliest fifth of next token's experts", "share of successors", |l| l.next_token_mass),
        layered("Most frequent tenth of pairs", "share of co-activations", |l| l.top_tenth_pairs_share),
        panel("Prompt against output: rank correlation", "layer", "Spearman's", &|g| {
            let values = g.phases.iter().flat_map(|p| p.rank_correlation.iter().copied());
            r.layer_numbers.iter().map(|l| f64::from(*l)).zip(values).collect()
        }),
    ];
    let below = format!("{}: {} sequences, {} tokens; hash {}", r.model, r.sequences, r.trace.rows, r.hash);
    panels("Routing: the trace and independent draws", &below, &all)
}
