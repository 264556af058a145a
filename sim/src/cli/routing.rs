//! `moesim trace stats` and `moesim trace synth`.

use super::{Format, interrupted, print, progress};
use crate::output::json;
use moesim_core::output::AtomicFile;
use moesim_core::{Diag, Result};
use moesim_plot::{Line, Panel, panels, png};
use moesim_traces::counts::read;
use moesim_traces::stats::{BATCHES, DEVICES, EIGHTHS, Figures, LAGS, Labels, LayerFigures, Phases, Report, Topics};
use moesim_traces::synth::{Comparison, Like, PUBLISHED, PopularFit, Router, SynthSpec, fitted, write};
use moesim_traces::{Meta, Model, Trace};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct StatsArgs {
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
}

#[derive(Debug, clap::Args)]
#[group(id = "kind", required = true, multiple = false)]
pub(super) struct KindArgs {
    /// A trace to take after: fitted on 70 % of its sequences, compared with the rest
    #[arg(long, value_name = "TRACE")]
    like: Option<PathBuf>,
    /// A model to draw routing for: a preset or file. Its routers take after a fitted gpt-oss-20b, an approximation
    #[arg(long)]
    model: Option<String>,
    /// Counts of experts to take after, as `trace counts` reads them; the rest takes after gpt-oss-20b, an approximation
    #[arg(long, value_name = "FILE")]
    counts: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct SynthArgs {
    #[command(flatten)]
    kind: KindArgs,
    /// The container to write [default: none, the comparison alone]
    #[arg(long, value_name = "FILE", required_unless_present_any = ["like", "counts"])]
    out: Option<PathBuf>,
    /// Experts a token, where the counts leave it open
    #[arg(long, requires = "counts")]
    top_k: Option<u32>,
    /// How many sequences [default: as many as the trace has, or 256]
    #[arg(long)]
    sequences: Option<u32>,
    /// Prompt rows of each [default: those of the trace's sequences, or 128]
    #[arg(long)]
    prompt_rows: Option<u32>,
    /// Output rows of each [default: those of the trace's sequences, or 128]
    #[arg(long)]
    decode_rows: Option<u32>,
    /// Seed of all draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print the comparison
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(super) fn stats(a: &StatsArgs) -> Result<()> {
    let trace = Trace::open(&a.trace)?;
    let labels = a.topics.as_deref().map(|p| labels(p, &trace)).transpose()?;
    let started = std::time::Instant::now();
    let report = Report::of(&trace, labels.as_ref(), a.seed)?;
    let seconds = started.elapsed().as_secs_f64();
    let text = json(&report)? + "\n";
    if let Some(dir) = &a.out {
        let svg = picture(&report);
        std::fs::create_dir_all(dir).map_err(|e| Diag::cannot_write(dir, &e))?;
        AtomicFile::write(&dir.join("routing.svg"), svg.as_bytes())?;
        AtomicFile::write(&dir.join("routing.png"), &png(&svg)?)?;
        AtomicFile::write(&dir.join("stats.json"), text.as_bytes())?;
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

/// Reads the topic of every sequence.
fn labels(path: &Path, trace: &Trace) -> Result<Labels> {
    let cure = "give a header `sequence,topic` and one row for every sequence of the trace";
    let wrong = |place: String, problem: String| Diag::input(problem).file(path).place(place).cure(cure);
    let file = moesim_core::input::open(path)?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let header = reader.headers().map_err(|e| wrong("header".into(), e.to_string()))?.clone();
    let column = |name: &str| {
        header.iter().position(|h| h == name).ok_or_else(|| wrong("header".into(), format!("has no column `{name}`")))
    };
    let (sequence, topic) = (column("sequence")?, column("topic")?);
    let places: std::collections::BTreeMap<u32, usize> =
        (0..trace.sequences()).map(|i| (trace.sequence(i).id, i)).collect();
    let mut of: Vec<Option<usize>> = vec![None; trace.sequences()];
    let mut names: Vec<String> = Vec::new();
    let mut numbers = std::collections::BTreeMap::new();
    for (row, record) in reader.records().enumerate() {
        let place = format!("row {}", row + 2);
        let record = record.map_err(|e| wrong(place.clone(), e.to_string()))?;
        let number = record.get(sequence).unwrap_or_default();
        // Labels of sequences that a slice left out do no harm.
        let parsed: u32 = number.parse().map_err(|_| wrong(place, format!("\"{number:.20}\" is not a number")))?;
        if let Some(at) = places.get(&parsed) {
            let name: String = record.get(topic).unwrap_or_default().chars().take(100).collect();
            let next = names.len();
            let number = *numbers.entry(name.clone()).or_insert(next);
            if number == next {
                names.push(name);
            }
            of[*at] = Some(number);
        }
    }
    let missing = of.iter().position(Option::is_none);
    if let Some(i) = missing {
        return Err(wrong("sequence".into(), format!("has no topic for sequence {}", trace.sequence(i).id)));
    }
    Ok(Labels { of: of.into_iter().flatten().collect(), names })
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
        let line = |name: &str, figures| Line { name: name.to_string(), points: f(figures) };
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

pub(super) fn synth(a: &SynthArgs) -> Result<()> {
    let line = progress::Line::new(false);
    line.say("fitting".into());
    let both = (a.prompt_rows, a.decode_rows);
    let (router, meta, sequences, like) = match (&a.kind.like, &a.kind.model) {
        (Some(path), _) => {
            let trace = Trace::open(path)?;
            let (like, comparison) = Like::fit(&trace, both.0.unwrap_or(0), a.seed)?;
            line.done();
            let text = match a.format {
                Format::Json => json(&comparison)? + "\n",
                Format::Table => compared(&comparison),
            };
            print(&text)?;
            let meta = Meta {
                source: format!("synthetic, seed {}, like {} ({})", a.seed, trace.meta().source, trace.hash()),
                licence: format!("generated; fitted to data under {}", trace.meta().licence),
                ..trace.meta().clone()
            };
            (None, meta, a.sequences.unwrap_or(trace.sequences() as u32), Some(like))
        }
        (None, _) if a.kind.counts.is_some() => {
            let path = a.kind.counts.as_deref().unwrap_or(Path::new(""));
            let counts = read(path, None)?;
            let unknown = || {
                let d = Diag::input("does not say how many experts a token selects").file(path).place("k");
                d.cure("give --top-k")
            };
            let k = a.top_k.or(counts.k).ok_or_else(unknown)?;
            let sequences = a.sequences.unwrap_or(256);
            let spec = SynthSpec {
                model: counts.model.clone().unwrap_or_else(|| "unknown".into()),
                layer_numbers: counts.layer_numbers.clone(),
                experts: counts.experts,
                k,
                sequences,
                prompt_rows: both.0.unwrap_or(128),
                decode_rows: both.1.unwrap_or(128),
            };
            let fit = fitted()?;
            let meta = Meta {
                source: format!("synthetic, seed {}, with the counts of {}", a.seed, path.display()),
                ..spec.meta(&fit, a.seed)
            };
            meta.check().map_err(|d| d.file(path))?;
            let (router, report) = Router::popular(&counts, &fit, &spec, a.seed).map_err(|d| d.file(path))?;
            line.done();
            print(&match a.format {
                Format::Json => json(&report)? + "\n",
                Format::Table => popular(&report),
            })?;
            (Some(router), meta, sequences, None)
        }
        (None, model) => {
            let model = Model::load(model.as_deref().unwrap_or_default())?;
            let sequences = a.sequences.unwrap_or(256);
            let spec = SynthSpec::for_model(&model, sequences, both.0.unwrap_or(128), both.1.unwrap_or(128))?;
            let fit = fitted()?;
            let meta = spec.meta(&fit, a.seed);
            meta.check()?;
            (Some(Router::drawn(&fit, &spec, a.seed)), meta, sequences, None)
        }
    };
    let Some(out) = &a.out else { return Ok(()) };
    let length = |id: u32| {
        let (prompt, output) = like.as_ref().map_or((128, 128), |l| l.length(a.seed, id));
        (both.0.unwrap_or(prompt), both.1.unwrap_or(output))
    };
    let router = router.as_ref().or(like.as_ref().map(|l| &l.router)).expect("one of the two was fitted");
    let mut watch = |done: u32| {
        line.say(format!("{done} of {sequences} sequences"));
        !interrupted()
    };
    let summary = write(router, meta, (sequences, &length), a.seed, out, &mut watch)?;
    line.done();
    match a.format {
        Format::Table => super::trace::written(out, &summary, ""),
        Format::Json => Ok(()),
    }
}

fn popular(f: &PopularFit) -> String {
    let mut t = format!("{} tokens, means over layers\n\n", f.tokens);
    t += &format!("{:<58}{:>9}{:>11}{:>13}\n", "", "counted", "synthetic", "independent");
    let mut row = |name: &str, values: [Option<f64>; 3]| {
        let [a, b, c] = values.map(|v| v.map_or_else(|| "-".to_string(), |v| format!("{v:.3}")));
        let _ = writeln!(t, "{name:<58}{a:>9}{b:>11}{c:>13}");
    };
    row("most selected expert over the mean", [Some(f.imbalance[0]), Some(f.imbalance[1]), None]);
    let [a, b] = f.popularity_distance.map(Some);
    row("distance of popularity from the counts (0 to 1)", [Some(0.0), a, b]);
    if let (Some(share), Some([a, b])) = (f.pair_share, f.pair_rank_correlation) {
        row(&format!("share of co-activations of the {:.0} listed pairs", f.pairs), share.map(Some));
        row("rank correlation of the listed pairs", [Some(1.0), Some(a), Some(b)]);
    }
    t + "\nnote: memory of earlier tokens, topics and what a layer says of the next are gpt-oss-20b's\n"
}

fn compared(c: &Comparison) -> String {
    let mut t = format!(
        "fitted to {} sequences, compared with the {} held out\n\n{:<56}{:>9}{:>9}{:>10}{:>8}{:>13}{:>8}\n",
        c.sequences[0], c.sequences[1], "", "held out", "fitted", "synthetic", "", "independent", ""
    );
    let (mut worst, mut within) = (0.0f64, 0);
    for r in &c.rows {
        let size = r.size.map_or(String::new(), |s| format!(" {s}"));
        let off = |x: f64| 100.0 * (x / r.held_out - 1.0);
        worst = worst.max(off(r.synthetic).abs());
        within += usize::from(off(r.synthetic).abs() <= 5.0);
        let _ = writeln!(
            t,
            "{:<56}{:>9.3}{:>9.3}{:>10.3}{:>+7.1}%{:>13.3}{:>+7.1}%",
            format!("{}{size}", r.statistic),
            r.held_out,
            r.fitted,
            r.synthetic,
            off(r.synthetic),
            r.independent,
            off(r.independent)
        );
    }
    let _ =
        writeln!(t, "\n{within} of {} figures within 5 % of the held-out ones, {worst:.1} % off at most", c.rows.len());
    match &c.phases {
        Some([held, synthetic]) => {
            let _ = writeln!(
                t,
                "prompt against output within a sequence: rank correlation {:.2} held out, {:.2} synthetic; top-5, 10, 20 shared {} and {}",
                held.sequence_rank_correlation,
                synthetic.sequence_rank_correlation,
                percents(held.sequence_top_overlap),
                percents(synthetic.sequence_top_overlap)
            );
        }
        None if c.drawn_phases.is_none() => {
            t += "the trace has no prompt rows: prompts are drawn only if --prompt-rows asks for them\n";
        }
        None => {}
    }
    if let Some(p) = &c.drawn_phases {
        let correlation = p.rank_correlation.iter().sum::<f64>() / p.rank_correlation.len() as f64;
        let _ = writeln!(
            t,
            "the trace has no prompt rows: prompts are like those published of other models (arXiv:2510.05497v4, III, insight 1): rank\n\
             correlation with the output {correlation:.2} (published: 0.7 or more in most layers), top-5, 10, 20 shared {} (published:\n\
             about {}); within a sequence {:.2} and {}",
            percents(p.top_overlap),
            percents(PUBLISHED),
            p.sequence_rank_correlation,
            percents(p.sequence_top_overlap)
        );
    }
    t
}

fn percents(shares: [f64; 3]) -> String {
    shares.map(|x| format!("{:.0} %", 100.0 * x)).join(", ")
}
