//! `moesim calibrate measure`.

use super::driven;
use crate::cli::force::Force;
use crate::cli::terminal::{Format, interrupted, print};
use crate::output::json;
use crate::registry::Registry;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use moesim_core::diag::Class;
use moesim_core::output::{AtomicFile, Claim};
use moesim_core::{Bytes, Diag, Picos, Result, diag};
use moesim_hwmodels::kernel::MISSING;
use moesim_hwmodels::measure::sample::SampleOutcome;
use moesim_hwmodels::measure::work::Precision;
use moesim_hwmodels::measure::{
    Bench, Facts, Log, MeasuredRow, MeasuredShape, Options, Skew, Summary, Work, cpu, cuda, mock, plan, sample,
};
use moesim_traces::{Model, Trace};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// What is measured: cpu, or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(super) device: String,
    /// Measure what this experiment's batches ask for, first what its time is least sure of: a preset or a file
    #[arg(
        long,
        value_name = "EXPERIMENT",
        conflicts_with_all = ["model", "tokens", "active", "skew", "trace", "precision"]
    )]
    experiment: Option<String>,
    /// Override a key of the experiment
    #[arg(long, value_name = "KEY=VALUE", requires = "experiment")]
    pub(super) set: Vec<String>,
    /// With --experiment: measuring ends where the experiment's interval is at most this part of the experiment's time
    #[arg(long, value_name = "PART", default_value = "0.05", requires = "experiment")]
    pub(super) until: f64,
    /// Models whose layers' shapes are measured: presets or files
    #[arg(
        long,
        value_name = "PRESET|FILE",
        value_delimiter = ',',
        default_value = "qwen3-30b-a3b,olmoe-1b-7b,deepseek-v2-lite,gpt-oss-20b,qwen2-57b-a14b,mixtral-8x7b,deepseek-v3"
    )]
    model: Vec<String>,
    /// Tokens that enter the layer
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128,256,512,1024")]
    tokens: Vec<usize>,
    /// Experts that have tokens; what is more than the model has, or fewer than a token takes, is brought into these bounds
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "8,32")]
    active: Vec<usize>,
    /// How tokens are spread over them: balanced, or zipf-S (the r-th has a share of 1 / r^S)
    #[arg(long, value_name = "SKEW", value_delimiter = ',', default_value = "balanced,zipf-1.2")]
    skew: Vec<String>,
    /// A routing trace: its batches are measured too, on the model of its shape among --model
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// How weights are stored: bf16, f32, int8, fp8 [default: bf16,f32,int8 on processors, bf16,fp8 on CUDA]
    #[arg(long, value_name = "PRECISION", value_delimiter = ',')]
    precision: Vec<String>,
    /// Measuring ends after this long; points are in an order in which any part is a fair one
    #[arg(long, value_name = "TIME", default_value = "120 s")]
    pub(super) time_budget: Picos,
    /// Most bytes of weights at once [default: half of the memory that is free]
    #[arg(long, value_name = "BYTES")]
    pub(super) memory: Option<Bytes>,
    /// Write the times here, a row at a time
    #[arg(long, value_name = "FILE", default_value = "measured.csv")]
    out: PathBuf,
    #[command(flatten)]
    pub(super) force: Force,
    /// Go on with --out: rows that are there are not measured again
    #[arg(long, conflicts_with = "force")]
    resume: bool,
    /// Write a hardware file with the limits that were measured here
    #[arg(long, value_name = "FILE")]
    pub(super) hardware_out: Option<PathBuf>,
    /// A simulated device: times of a roofline, with noise that is the same every time
    #[arg(long)]
    pub(super) mock: bool,
    /// The simulated device fails after so many calls
    #[arg(long, hide = true, value_name = "N")]
    mock_fails_after: Option<u64>,
    /// How to print the summary
    #[arg(long, value_enum, default_value = "table")]
    pub(super) format: Format,
    /// No progress
    #[arg(long)]
    quiet: bool,
}

/// Most of the time budget that the calls of one point may take, as far as can be told before.
const SHARE: f64 = 0.2;
/// Operations a second that a device is thought to reach at least, for [`SHARE`].
const SLOWEST_FLOP_PER_S: f64 = 50e9;
/// Calls of a point, in operations of one.
const CALLS: f64 = 4.0;

pub(super) fn run(a: &Args, registry: &Registry) -> Result<()> {
    if let Some(name) = &a.experiment {
        return driven::run(a, registry, name);
    }
    check(a)?;
    let budget_s = a.time_budget.seconds();
    let _claims = (claim(a)?, a.force.file(a.hardware_out.as_deref())?);
    let options = options(a)?;
    let points = plan(&options);
    let largest = points.iter().map(|p| p.work.bytes() as u64).max().unwrap_or(0) + (1 << 20);
    let mut bench = bench(a, largest, options.most_bytes)?;
    let facts = bench.facts().clone();
    let mut log = open_log(a)?;
    let missing: Vec<_> = points.iter().filter(|p| !log.has(&facts, p)).collect();
    let bar = progress(missing.len() as u64, a.quiet);
    let (mut left, mut cut) = (Vec::new(), None);
    for (done, point) in missing.iter().enumerate() {
        if interrupted() {
            cut = Some((done, "interrupted"));
            break;
        }
        if bench.now_s() > budget_s {
            cut = Some((done, "the time budget is used up"));
            break;
        }
        bar.set_message(point.work.name());
        if let Some(why) = left_for_time(a, &point.work) {
            left.push(format!("{}: {why}", point.work.name()));
            continue;
        }
        match sample(&mut *bench, point, &|| interrupted())? {
            SampleOutcome::Done(s) => log.push(MeasuredRow::new(&facts, point, &s))?,
            SampleOutcome::Left(why) => left.push(format!("{}: {why}", point.work.name())),
            SampleOutcome::Stopped => {
                cut = Some((done, "interrupted"));
                break;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let own: Vec<MeasuredRow> = log.rows.iter().filter(|r| r.text("device") == facts.device).cloned().collect();
    let summary = Summary::new(&own);
    finish(a, &summary, &facts, own.len(), Some(points.len()))?;
    print(&match a.format {
        Format::Json => json(&summary)? + "\n",
        Format::Table => {
            let mut text = summary.text(&facts);
            left.sort();
            left.dedup();
            left.iter().for_each(|l| text += &format!("left out: {l}\n"));
            if let Some((done, why)) = cut {
                text += &format!(
                    "{why} with {} of {} rows; --resume goes on\n",
                    points.len() - missing.len() + done,
                    points.len()
                );
            }
            text + &next(a)
        }
    })
}

/// The device.
pub(super) fn bench(a: &Args, largest: u64, most_bytes: u64) -> Result<Box<dyn Bench>> {
    Ok(match (a.mock, a.device.as_str()) {
        (true, _) => Box::new(mock::Mock::new(1, a.mock_fails_after)),
        (false, "cpu") => Box::new(cpu::Processors::new(largest, most_bytes)?),
        (false, other) => {
            let number = other.strip_prefix("cuda:").and_then(|n| n.parse().ok()).filter(|n| *n < 1024);
            Box::new(cuda::Cuda::new(number.ok_or_else(|| unknown_device(other))?, largest)?)
        }
    })
}

/// The table, gone on with or begun anew.
pub(super) fn open_log(a: &Args) -> Result<Log> {
    let anew = a.force.given() && a.out.exists();
    if anew {
        AtomicFile::write(&a.out, b"")?;
    }
    Log::open(&a.out, a.resume || anew)
}

/// Why a work is not begun: its calls would take too much of the time budget, as far as can be told before.
pub(super) fn left_for_time(a: &Args, work: &Work) -> Option<String> {
    let slowest = if a.device == "cpu" { SLOWEST_FLOP_PER_S } else { f64::INFINITY };
    let is_long = CALLS * work.flop() / slowest > SHARE * a.time_budget.seconds();
    is_long.then(|| format!("some would take more than {:.0} % of the time budget", 100.0 * SHARE))
}

/// What is left to do when measuring has ended with `rows` of `points`, if their number is known: the hardware file,
/// unless the user stopped the measurement.
pub(super) fn finish(a: &Args, summary: &Summary, facts: &Facts, rows: usize, points: Option<usize>) -> Result<()> {
    if interrupted() {
        let of = points.map_or(String::new(), |points| format!(" of {points}"));
        let problem = format!("interrupted with {rows}{of} rows in {}", a.out.display());
        return Err(Diag::run(problem).cure(format!("go on with --resume --out {}", a.out.display())));
    }
    let Some(path) = &a.hardware_out else { return Ok(()) };
    let name = path.file_stem().map_or_else(|| "this-machine".into(), |s| s.to_string_lossy().into_owned());
    AtomicFile::write(path, summary.hardware(facts, &name)?.as_bytes())
}

/// The right to write the table, which grows: it is gone on with, or begun anew.
pub(super) fn claim(a: &Args) -> Result<Claim> {
    let claim = Claim::file(&a.out, a.resume || a.force.given());
    claim.map_err(|d| match a.out.is_file() && d.class == Class::Input {
        true => d.cure("give --resume to go on with it, --force to begin anew, or choose another --out"),
        false => d,
    })
}

/// What to do with the times.
pub(super) fn next(a: &Args) -> String {
    let hardware = a.hardware_out.as_ref().map_or("PRESET|FILE".into(), |p| p.display().to_string());
    format!(
        "{} has {}; next: moesim calibrate fit {} --hardware {hardware} --out mine.toml\n",
        a.out.display(),
        "the times",
        a.out.display()
    )
}

fn unknown_device(name: &str) -> Diag {
    diag::unknown("device", name, &["cpu", "cuda:0"]).place("--device")
}

fn progress(points: u64, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::new(points);
    if quiet || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    } else if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len}, {elapsed} gone, {msg}") {
        bar.set_style(style);
    }
    bar
}

fn is_cuda(a: &Args) -> bool {
    a.device.starts_with("cuda")
}

/// Most bytes of weights at once.
pub(super) fn most_bytes(a: &Args) -> u64 {
    let most = || match (a.mock, is_cuda(a)) {
        (true, _) => 1 << 34,
        // What is more than the device has is left out when it is known.
        (_, true) => 1 << 36,
        _ => cpu::most_bytes(),
    };
    a.memory.map_or_else(most, Bytes::get)
}

/// What any measurement needs of its arguments.
///
/// # Errors
/// No time at all, a device that is not known.
pub(super) fn check(a: &Args) -> Result<()> {
    if a.time_budget == Picos::ZERO {
        let problem = format!("{} is out of range", a.time_budget);
        return Err(Diag::input(problem).place("--time-budget").cure("give a time, as in \"120 s\""));
    }
    let is_number = |n: &str| n.parse::<u32>().is_ok();
    match a.device == "cpu" || a.device.strip_prefix("cuda:").is_some_and(is_number) {
        true => Ok(()),
        false => Err(unknown_device(&a.device)),
    }
}

fn options(a: &Args) -> Result<Options> {
    let shapes = a.model.iter().map(|m| shape(m)).collect::<Result<Vec<_>>>()?;
    let wrong =
        |flag: &str, text: &str, cure: &str| Diag::input(format!("{text} is out of range")).place(flag).cure(cure);
    if let Some(n) = a.tokens.iter().find(|n| !(1..=1 << 20).contains(*n)) {
        return Err(wrong("--tokens", &n.to_string(), "give numbers from 1 to 1048576"));
    }
    if let Some(n) = a.active.iter().find(|n| !(1..=1 << 14).contains(*n)) {
        return Err(wrong("--active", &n.to_string(), "give numbers from 1 to 16384"));
    }
    let skew = |text: &String| {
        let power = text.strip_prefix("zipf-").and_then(|s| s.parse().ok()).filter(|s| (0.0..=10.0).contains(s));
        match (text.as_str(), power) {
            ("balanced", _) => Ok(Skew::Balanced),
            (_, Some(power)) => Ok(Skew::Zipf(power)),
            _ => Err(diag::unknown("skew", text, &["balanced", "zipf-1.2"]).place("--skew")),
        }
    };
    let is_cuda = is_cuda(a);
    let words: Vec<&str> = match (a.precision.is_empty(), is_cuda) {
        (false, _) => a.precision.iter().map(String::as_str).collect(),
        (true, true) => vec!["bf16", "fp8"],
        (true, false) => vec!["bf16", "f32", "int8"],
    };
    let known = Precision::ALL.map(|p| p.1);
    let precision = |word: &&str| {
        let found = Precision::ALL.iter().find(|p| p.1 == *word);
        found.map(|p| p.0).ok_or_else(|| diag::unknown("precision", word, &known).place("--precision"))
    };
    let most_bytes = most_bytes(a);
    let mut o = Options {
        tokens: a.tokens.clone(),
        active: a.active.clone(),
        skews: a.skew.iter().map(skew).collect::<Result<_>>()?,
        precisions: words.iter().map(precision).collect::<Result<_>>()?,
        shapes,
        ..Options::limits(is_cuda, most_bytes)
    };
    if let Some(path) = &a.trace {
        traced(path, &mut o)?;
    }
    Ok(o)
}

/// The shape of a model's layers with experts.
fn shape(name: &str) -> Result<MeasuredShape> {
    let model = Model::load(name)?;
    let moe = model.decoder.iter().find_map(|l| l.moe());
    let moe = moe.ok_or_else(|| {
        Diag::input(format!("{} has no experts", model.name)).place("--model").cure("name a model with experts")
    })?;
    Ok(MeasuredShape {
        hidden: model.hidden as usize,
        intermediate: moe.expert_intermediate as usize,
        experts: moe.experts as usize,
        top_k: moe.top_k as usize,
    })
}

/// Counts of a trace's batches: the middle layer of as many sequences as there are tokens, a row of each, round and round.
fn traced(path: &Path, o: &mut Options) -> Result<()> {
    let trace = Trace::open(path)?;
    let (experts, k) = (trace.experts(), trace.k());
    let shape = o.shapes.iter().find(|s| (s.experts, s.top_k) == (experts, k)).copied().ok_or_else(|| {
        Diag::input(format!("routes over {experts} experts, top-{k}, as none of the models does"))
            .file(path)
            .cure("name its model with --model")
    })?;
    for tokens in &o.tokens {
        let ids = batch(&trace, *tokens).map_err(|d| d.file(path))?;
        let mut counts = vec![0u32; experts];
        ids.iter().filter(|e| **e != MISSING).for_each(|e| counts[usize::from(*e)] += 1);
        if counts.iter().any(|n| *n > 0) {
            o.traced.push((shape, *tokens, counts));
        }
    }
    Ok(())
}

/// What `tokens` tokens of a batch select in the middle layer: a row of each sequence, then the next of each; a trace that is too
/// short begins anew. Ids that have no weights are missing places.
fn batch(trace: &Trace, tokens: usize) -> Result<Vec<u16>> {
    let (width, k) = (trace.width(), trace.k());
    let column = trace.layers() / 2 * k;
    let (mut ids, mut round) = (Vec::with_capacity(tokens * k), 0);
    while ids.len() < tokens * k {
        let before = ids.len();
        for i in 0..trace.sequences() {
            let Some(row) = trace.rows_of(i).chunks_exact(width).nth(round) else { continue };
            if ids.len() == tokens * k {
                break;
            }
            trace.check_sequence(i)?;
            let weighted = |e: &u16| if usize::from(*e) < trace.experts() { *e } else { MISSING };
            ids.extend(row[column..column + k].iter().map(weighted));
        }
        if ids.is_empty() {
            return Err(Diag::input("has no rows").cure("give a trace with sequences"));
        }
        round = if ids.len() == before { 0 } else { round + 1 };
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moesim_hwmodels::kernel::cpu::Cpu;
    use moesim_hwmodels::kernel::{CPU_TOLERANCE, Expert, Layer, Matrix, Selections, reference};
    use moesim_traces::{Meta, OwnedSequence};

    /// Two sequences of two rows, three layers, two of five experts a token; one place is missing.
    fn trace() -> Trace {
        let meta = Meta {
            model: "m".into(),
            layer_numbers: vec![0, 1, 2],
            experts: 5,
            k: 2,
            source: "made up".into(),
            licence: "none".into(),
        };
        let row = |a: u16, b: u16| [0, 1, a, b, 2, 3];
        let sequence =
            |id, rows: [[u16; 6]; 2]| OwnedSequence { id, decode: rows.concat(), ..OwnedSequence::default() };
        let list = vec![sequence(0, [row(4, 1), row(0, 3)]), sequence(1, [row(2, MISSING), row(1, 0)])];
        Trace::from_sequences(meta, list).unwrap()
    }

    #[test]
    fn batches_go_from_sequence_to_sequence() {
        let all = [4, 1, 2, MISSING, 0, 3, 1, 0];
        assert_eq!(batch(&trace(), 1).unwrap(), all[..2]);
        assert_eq!(batch(&trace(), 4).unwrap(), all);
        assert_eq!(batch(&trace(), 6).unwrap(), [&all[..], &all[..4]].concat());
    }

    /// The fast kernel on the rows that a run replays is the reference on them.
    #[test]
    fn the_kernel_takes_rows_of_a_trace() {
        let (hidden, inner, tokens) = (48, 40, 30);
        let ids = batch(&trace(), tokens).unwrap();
        let weights: Vec<f32> = (0..ids.len()).map(|i| 0.3 + (i % 5) as f32 * 0.1).collect();
        let numbers =
            |n: usize, step: usize| -> Vec<f32> { (0..n).map(|i| (i * step % 23) as f32 / 50.0 - 0.2).collect() };
        let matrices: Vec<[Vec<f32>; 2]> =
            (0..5).map(|e| [numbers(2 * inner * hidden, 7 + e), numbers(hidden * inner, 5 + e)]).collect();
        let experts: Vec<Expert> = matrices
            .iter()
            .map(|[a, b]| Expert { intermediate: inner, first: Matrix::F32(a), second: Matrix::F32(b) })
            .collect();
        let layer = Layer { hidden, experts: &experts, shared: &[] };
        let x = numbers(tokens * hidden, 11);
        let s = Selections { top_k: 2, experts: &ids, weights: &weights };
        let mut out = vec![0.0; tokens * hidden];
        Cpu::default().layer(&layer, &x, &s, &mut out);
        let worst = CPU_TOLERANCE.worst(hidden, &reference::layer(&layer, &x, &s), &out);
        assert!(worst <= 1.0, "{worst}");
    }
}
