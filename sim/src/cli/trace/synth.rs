//! `moesim trace synth`.

use super::written::written;
use crate::cli::force::Force;
use crate::cli::progress;
use crate::cli::terminal::{Format, interrupted, print};
use crate::output::json;
use moesim_core::{Diag, Result};
use moesim_traces::counts::read;
use moesim_traces::import::Phase;
use moesim_traces::synth::{Comparison, Like, PUBLISHED, PopularFit, Router, Subjects, SynthSpec, fitted, write};
use moesim_traces::{Meta, Model, Trace};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// What counts are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CountsOf {
    /// Prompt tokens.
    Prompt,
    /// Output tokens.
    Output,
}

/// Sequences, and rows of each phase, where nothing says how many.
const SEQUENCES: u32 = 256;
const ROWS: u32 = 128;

#[derive(Clone, Debug, clap::Args)]
#[group(id = "kind", required = true, multiple = false)]
pub(super) struct KindArgs {
    /// A trace to take after: fitted on 70 % of its sequences, compared with the rest
    #[arg(long, value_name = "TRACE")]
    like: Option<PathBuf>,
    /// A model to draw routing for: a preset or file. Its routers take after a fitted gpt-oss-20b or, from 64 experts
    /// on, counts of such models, an approximation
    #[arg(long)]
    model: Option<String>,
    /// Counts of experts to take after, as `trace counts` reads them; the rest takes after what is
    /// fitted for --model, an approximation
    #[arg(long, value_name = "FILE")]
    counts: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    kind: KindArgs,
    /// The container to write [default: none, the comparison alone]
    #[arg(long, value_name = "FILE", required_unless_present_any = ["like", "counts"])]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// Which tokens were counted; the others are drawn as alike as prompts and outputs were published to be [default: output]
    #[arg(long, value_enum, requires = "counts")]
    counts_of: Option<CountsOf>,
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

/// What was fitted, and the trace to draw from it.
struct Fitted {
    router: Router,
    meta: Meta,
    sequences: u32,
    /// Recorded lengths of sequences, if there are any.
    like: Option<Like>,
    /// How alike it is.
    text: String,
}

pub(super) fn run(a: &Args) -> Result<()> {
    let _claim = a.force.file(a.out.as_deref())?;
    let line = progress::ProgressLine::new(false);
    line.say("fitting".into());
    let wanted = a.clone();
    let Fitted { router, meta, sequences, like, text } = unless_interrupted(move || fit(&wanted))?;
    line.done();
    print(&text)?;
    let Some(out) = &a.out else { return Ok(()) };
    let length = |id: u32| {
        let (prompt, output) = like.as_ref().map_or((ROWS, ROWS), |l| l.length(a.seed, id));
        (a.prompt_rows.unwrap_or(prompt), a.decode_rows.unwrap_or(output))
    };
    let mut watch = |done: u32| {
        line.say(format!("{done} of {sequences} sequences"));
        !interrupted()
    };
    let summary = write(&router, meta, (sequences, &length), a.seed, out, &mut watch)?;
    line.done();
    match a.format {
        Format::Table => written(out, &summary, ""),
        Format::Json => Ok(()),
    }
}

/// The result of `work`, which writes nothing, or an error as soon as the user interrupts it: it is then left to end with
/// the process.
fn unless_interrupted<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    loop {
        match receiver.recv_timeout(Duration::from_millis(20)) {
            Ok(done) => return done,
            Err(mpsc::RecvTimeoutError::Timeout) if interrupted() => {
                return Err(Diag::run("interrupted").cure("run it again; nothing was written"));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Diag::run("fitting ended without a result").cure("report this, with the command"));
            }
        }
    }
}

fn fit(a: &Args) -> Result<Fitted> {
    match (&a.kind.like, &a.kind.counts, &a.kind.model) {
        (Some(path), ..) => like(path, a),
        (None, Some(path), _) => counted(path, a),
        (None, None, model) => {
            let model = Model::load(model.as_deref().unwrap_or_default())?;
            let sequences = a.sequences.unwrap_or(SEQUENCES);
            let (prompt, output) = (a.prompt_rows.unwrap_or(ROWS), a.decode_rows.unwrap_or(ROWS));
            let spec = SynthSpec::for_model(&model, sequences, prompt, output)?;
            let fit = fitted(spec.experts)?;
            let meta = spec.meta(&fit, a.seed);
            meta.check()?;
            Ok(Fitted { router: Router::drawn(&fit, &spec, a.seed), meta, sequences, like: None, text: String::new() })
        }
    }
}

fn like(path: &Path, a: &Args) -> Result<Fitted> {
    let trace = Trace::open(path)?;
    let (like, comparison) = Like::fit(&trace, a.prompt_rows.unwrap_or(0), a.seed)?;
    let text = match a.format {
        Format::Json => json(&comparison)? + "\n",
        Format::Table => compared(&comparison),
    };
    let meta = Meta {
        source: format!("synthetic, seed {}, like {} ({})", a.seed, trace.meta().source, trace.hash()),
        licence: format!("generated; fitted to data under {}", trace.meta().licence),
        ..trace.meta().clone()
    };
    let sequences = a.sequences.unwrap_or(trace.sequences() as u32);
    Ok(Fitted { router: like.router.clone(), meta, sequences, like: Some(like), text })
}

fn counted(path: &Path, a: &Args) -> Result<Fitted> {
    let counts = read(path, None)?;
    let lacks = |what: &str, cure: &str| Diag::input(format!("does not say {what}")).file(path).cure(cure);
    let k = a.top_k.or(counts.k);
    let k = k.ok_or_else(|| lacks("how many experts a token selects", "give --top-k").place("k"))?;
    let sequences = a.sequences.unwrap_or(SEQUENCES);
    let spec = SynthSpec {
        model: counts.model.clone().unwrap_or_else(|| "unknown".into()),
        layer_numbers: counts.layer_numbers.clone(),
        experts: counts.experts,
        k,
        sequences,
        prompt_rows: a.prompt_rows.unwrap_or(ROWS),
        decode_rows: a.decode_rows.unwrap_or(ROWS),
        subjects: Subjects::Many,
    };
    let of = match a.counts_of {
        Some(CountsOf::Prompt) => Phase::Prefill,
        Some(CountsOf::Output) => Phase::Decode,
        // Prompts alone, out of counts that may be theirs or not.
        None if spec.decode_rows == 0 => {
            return Err(lacks("whether prompt or output tokens were counted", "give --counts-of prompt, or output"));
        }
        None => Phase::Decode,
    };
    let fit = fitted(spec.experts)?;
    let what = if of == Phase::Prefill { "prompts" } else { "output" };
    let meta = Meta {
        source: format!("synthetic, seed {}, with the counts of {} as those of {what}", a.seed, path.display()),
        ..spec.meta(&fit, a.seed)
    };
    meta.check().map_err(|d| d.file(path))?;
    let (router, report) = Router::popular((&counts, of), &fit, &spec, a.seed).map_err(|d| d.file(path))?;
    let text = match a.format {
        Format::Json => json(&report)? + "\n",
        Format::Table => popular(&report),
    };
    Ok(Fitted { router, meta, sequences, like: None, text })
}

fn popular(f: &PopularFit) -> String {
    let mut t = format!("{} tokens as they are written, means over layers\n\n", f.tokens);
    t += &format!("{:<58}{:>9}{:>11}{:>13}\n", "", "counted", "synthetic", "independent");
    let mut row = |name: &str, values: [Option<f64>; 3]| {
        let [a, b, c] = values.map(|v| v.map_or_else(|| "-".to_string(), |v| format!("{v:.3}")));
        let _ = writeln!(t, "{name:<58}{a:>9}{b:>11}{c:>13}");
    };
    row("most selected expert over the mean", [Some(f.imbalance[0]), Some(f.imbalance[1]), None]);
    let [a, b] = f.popularity_distance.map(Some);
    row("distance of popularity from the counts (0 to 1)", [Some(0.0), a, b]);
    for p in f.phases.iter().filter(|_| f.phases.len() > 1) {
        let what = if p.phase == Phase::Prefill { "prompt" } else { "output" };
        row(&format!("the same of {what} tokens"), [Some(0.0), Some(p.popularity_distance), None]);
    }
    if let (Some(share), Some([a, b])) = (f.pair_share, f.pair_rank_correlation) {
        row(&format!("share of co-activations of the {:.0} listed pairs", f.pairs), share.map(Some));
        row("rank correlation of the listed pairs", [Some(1.0), Some(a), Some(b)]);
    }
    let (counted, other) = match f.counted {
        Phase::Prefill => ("prompt", "output"),
        Phase::Decode => ("output", "prompt"),
    };
    let _ = writeln!(
        t,
        "\nnote: the counts are taken for those of {counted} tokens (--counts-of); {other} tokens differ as published of other models"
    );
    t + "note: memory of earlier tokens, topics and what a layer says of the next are gpt-oss-20b's\n"
}

fn compared(c: &Comparison) -> String {
    let mut t = format!(
        "fitted to {} sequences, compared with {} of the {} held out\n\n{:<56}{:>9}{:>9}{:>10}{:>8}{:>13}{:>8}\n",
        c.sequences[0], c.compared, c.sequences[1], "", "held out", "fitted", "synthetic", "", "independent", ""
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
