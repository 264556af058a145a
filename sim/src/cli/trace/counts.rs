//! `moesim trace counts`.

use crate::cli::terminal::{Format, print};
use crate::output::json;
use moesim_core::Result;
use moesim_traces::counts::{self, ExpertCounts};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;

/// Experts that the table names for each layer.
const TOP: usize = 4;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A file or folder with counts, or a trace in moesim's container
    source: PathBuf,
    /// Its format: trace, imatrix, tensorrt-llm, sglang, coactivation or eplb [default: detected]
    #[arg(long, value_name = "FORMAT")]
    source_format: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report<'a> {
    source: String,
    format: &'static str,
    model: Option<&'a str>,
    experts: u32,
    k: Option<u32>,
    notes: &'a [String],
    layers: Vec<Layer<'a>>,
}

#[derive(Serialize)]
struct Layer<'a> {
    layer: u32,
    total: u64,
    /// The most selected expert over the mean.
    imbalance: f64,
    /// Entropy of the shares over that of equal shares.
    entropy: f64,
    unused: usize,
    counts: &'a [u64],
    /// [expert, expert, tokens], where the source has pairs.
    pairs: Option<&'a [(u32, u32, u64)]>,
}

impl<'a> Report<'a> {
    fn of(source: String, c: &'a ExpertCounts) -> Self {
        let layer = |(l, number): (usize, &u32)| Layer {
            layer: *number,
            total: c.total(l),
            imbalance: c.imbalance(l),
            entropy: c.entropy(l),
            unused: c.layer(l).iter().filter(|n| **n == 0).count(),
            counts: c.layer(l),
            pairs: c.pairs.get(l).map(Vec::as_slice),
        };
        Self {
            source,
            format: c.format,
            model: c.model.as_deref(),
            experts: c.experts,
            k: c.k,
            notes: &c.notes,
            layers: c.layer_numbers.iter().enumerate().map(layer).collect(),
        }
    }
    fn table(&self, c: &ExpertCounts) -> String {
        let mut t = String::new();
        let k = self.k.map_or(String::new(), |k| format!(", k = {k}"));
        let model = self.model.map_or(String::new(), |m| format!(", {m}"));
        let layers = self.layers.len();
        let _ = writeln!(t, "{} ({}{model}): {layers} layers of {} experts{k}", self.source, self.format, self.experts);
        for note in self.notes {
            let _ = writeln!(t, "note: {note}");
        }
        let _ = writeln!(
            t,
            "{:>5} {:>16} {:>9} {:>7} {:>6}  most selected",
            "layer", "total", "imbalance", "entropy", "unused"
        );
        for (i, l) in self.layers.iter().enumerate() {
            let share = |(e, n): (u32, u64)| format!("{e} ({:.1} %)", 100.0 * n as f64 / l.total.max(1) as f64);
            let top: Vec<String> = c.top(i, TOP).into_iter().filter(|t| t.1 > 0).map(share).collect();
            let (total, unused) = (l.total, l.unused);
            let _ = writeln!(
                t,
                "{:>5} {total:>16} {:>9.2} {:>7.3} {unused:>6}  {}",
                l.layer,
                l.imbalance,
                l.entropy,
                top.join(", ")
            );
        }
        t
    }
}

pub(super) fn run(a: &Args) -> Result<()> {
    let c = counts::read(&a.source, a.source_format.as_deref())?;
    let report = Report::of(a.source.display().to_string(), &c);
    match a.format {
        Format::Json => print(&(json(&report)? + "\n")),
        Format::Table => print(&report.table(&c)),
    }
}
