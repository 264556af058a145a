//! What `moesim place` is told.

use crate::cli::force::Force;
use crate::cli::terminal::Format;
use crate::registry::{Entry, Registry};
use clap::ValueEnum;
use moesim_core::{Bytes, Diag, Result, diag};
use moesim_solver::{Objective, Pin, Placement};
use std::path::PathBuf;
use std::time::Duration;

/// What is wanted least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Goal {
    /// What iterations take, experts and exchanges, the busiest device of every batch: needs a trace, a model and hardware; load
    /// alone otherwise.
    Time,
    /// The busiest device of each layer.
    Load,
    /// What tokens cost on their ways.
    Traffic,
    /// The least traffic within --slack of the least load.
    Lexicographic,
}

impl Goal {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Load => "load",
            Self::Traffic => "traffic",
            Self::Lexicographic => "lexicographic",
        }
    }

    pub(super) fn objective(self, slack: f64, rows: bool) -> Objective {
        match self {
            Self::Time if rows => Objective::Time,
            Self::Time | Self::Load => Objective::Load,
            Self::Traffic => Objective::Traffic,
            Self::Lexicographic => Objective::Lexicographic { slack },
        }
    }
}

/// What a token costs its expert's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Unit {
    /// One each.
    Tokens,
    /// What the experts' kernel takes on the hardware.
    Seconds,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// An experiment whose model, hardware, deployment and trace are taken: a file, or a preset's name
    pub(super) experiment: Option<String>,
    /// The trace to place for
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
    /// Counts to place for, where there is no trace: any file that `trace counts` reads
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    pub(super) counts: Option<PathBuf>,
    /// The model: a preset or a file
    #[arg(long, value_name = "PRESET|FILE")]
    pub(super) model: Option<String>,
    /// The hardware: a preset or a file
    #[arg(long, value_name = "PRESET|FILE")]
    pub(super) hardware: Option<String>,
    /// Devices, where there is no hardware
    #[arg(long, value_name = "N", conflicts_with = "hardware")]
    pub(super) devices: Option<usize>,
    /// Nodes of these devices
    #[arg(long, value_name = "N", default_value_t = 1, requires = "devices")]
    pub(super) nodes: usize,
    /// Only the first layers of the counts
    #[arg(long, value_name = "N", requires = "counts")]
    pub(super) layers: Option<usize>,
    /// Override a key of the experiment, as in --set deployment.tokens=token-follows or --set hardware.topology.nodes=4
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// The method (see `moesim list policies`); several, to compare them [default: ilp]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) solver: Vec<String>,
    /// Compare all methods
    #[arg(long, conflicts_with = "solver")]
    pub(super) compare: bool,
    /// What is wanted least
    #[arg(long, value_enum, default_value = "time")]
    pub(super) objective: Goal,
    /// How much more load than the least a lexicographic objective allows
    #[arg(long, value_name = "FRACTION", default_value_t = 0.01)]
    pub(super) slack: f64,
    /// The unit of load [default: seconds with hardware, else tokens]
    #[arg(long, value_enum)]
    pub(super) unit: Option<Unit>,
    /// Place on this part of the trace's sequences, drawn by the seed, and report on the others; 1: on all
    #[arg(long, value_name = "FRACTION", default_value_t = 0.7)]
    pub(super) train: f64,
    /// Place on the first sequences as the trace has them, though it may be sorted by what they are about
    #[arg(long)]
    pub(super) in_order: bool,
    /// What is the default now: the part is drawn
    #[arg(long, hide = true, conflicts_with = "in_order")]
    pub(super) shuffle: bool,
    /// Tokens of an iteration, all devices together [default: 64 a device]
    #[arg(long, value_name = "N")]
    pub(super) batch: Option<u32>,
    /// Replicas of a layer beyond one for each expert
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) redundant: usize,
    /// Most experts of a layer on a device [default: as even as can be]
    #[arg(long, value_name = "N")]
    pub(super) slots: Option<u32>,
    /// Memory of a device for experts, all layers together; one size, or one for each device, as in "60 GiB","60 GiB"
    /// [default: what the hardware leaves]
    #[arg(long, value_name = "SIZE", value_delimiter = ',')]
    pub(super) memory: Vec<Bytes>,
    /// Speed of each device, relative
    #[arg(long, value_name = "X", value_delimiter = ',')]
    pub(super) speed: Vec<f64>,
    /// Groups of consecutive experts that have to be on one node each
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) expert_groups: usize,
    /// An expert that has to be on a device: LAYER:EXPERT:DEVICE, counted from 0
    #[arg(long, value_name = "L:E:D", value_delimiter = ',')]
    pub(super) pin: Vec<String>,
    /// A placement to start from, in any format
    #[arg(long, value_name = "FILE[#ARRAY]", requires = "moves")]
    pub(super) from: Option<String>,
    /// Most replicas that may move from it
    #[arg(long, value_name = "N", requires = "from")]
    pub(super) moves: Option<u64>,
    /// Placements to judge beside, in any format
    #[arg(long, value_name = "FILE[#ARRAY]", value_delimiter = ',')]
    pub(super) judge: Vec<String>,
    /// Wall time of each method; a search that it cuts may end elsewhere another time
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) time_limit: Option<Duration>,
    /// A gap that is good enough
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    pub(super) gap: f64,
    /// Steps of a search, for each layer [default: what takes some tens of seconds of a core, at most 20000]
    #[arg(long, value_name = "N")]
    pub(super) steps: Option<u64>,
    /// Seed of methods that draw
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// No simulated runs on the held-out part, its loads alone
    #[arg(long)]
    pub(super) no_simulation: bool,
    /// Requests of the simulation [default: twice as many as run at once]
    #[arg(long, value_name = "N")]
    pub(super) requests: Option<u64>,
    /// Write the placement (of several methods the one with the least objective) here
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) force: Force,
    /// The format to write: moesim, eplb, vllm, vllm-ascend, sglang, tensorrt-llm or omni-infer
    #[arg(long = "as", value_name = "FORMAT", default_value = "moesim")]
    pub(super) write_as: String,
    /// How to print the results
    #[arg(long, value_enum, default_value = "table")]
    pub(super) format: Format,
    /// No progress on standard error
    #[arg(long)]
    pub(super) quiet: bool,
}

/// `60s`, `1.5 s` or `60`.
fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let number = text.trim().trim_end_matches('s').trim().parse::<f64>();
    let s = number.map_err(|_| "write seconds, as in 60s".to_string())?;
    if (1e-3..=1e6).contains(&s) { Ok(Duration::from_secs_f64(s)) } else { Err("choose 1 ms to 10^6 s".into()) }
}

impl Args {
    /// Placements alone, with nothing to place for.
    pub(super) fn judges_alone(&self) -> bool {
        let none = self.experiment.is_none() && self.trace.is_none() && self.counts.is_none();
        none && !self.judge.is_empty()
    }

    pub(super) fn methods<'a>(&self, registry: &'a Registry) -> Result<Vec<&'a Entry<dyn Placement>>> {
        let all = registry.placements();
        if self.compare {
            return Ok(all.iter().collect());
        }
        let asked: Vec<&str> = self.solver.iter().map(String::as_str).collect();
        let asked = match (asked.is_empty(), self.judge.is_empty()) {
            (true, true) => vec!["ilp"],
            _ => asked,
        };
        let names: Vec<&str> = all.iter().map(|e| e.name).collect();
        let one = |name: &str| {
            // The name of the contract for what is greedy here.
            let name = if name == "greedy" { "longest-first" } else { name };
            all.iter()
                .find(|e| e.name == name)
                .ok_or_else(|| diag::unknown("placement method", name, &names).place("--solver"))
        };
        asked.into_iter().map(one).collect()
    }

    /// Whether the part is drawn.
    pub(super) fn shuffles(&self) -> bool {
        self.shuffle || (!self.in_order && self.holds_out())
    }

    /// Whether there may be a held-out part.
    pub(super) fn holds_out(&self) -> bool {
        self.counts.is_none() && self.train < 1.0
    }

    pub(super) fn pins(&self) -> Result<Vec<Pin>> {
        let one = |text: &String| {
            let mut n = text.split(':').map(|n| n.trim().parse::<usize>());
            match (n.next(), n.next(), n.next(), n.next()) {
                (Some(Ok(layer)), Some(Ok(expert)), Some(Ok(group)), None) => Ok(Pin { layer, expert, group }),
                _ => Err(Diag::input(format!("{text:?} is no pin")).place("--pin").cure("write LAYER:EXPERT:DEVICE")),
            }
        };
        self.pin.iter().map(one).collect()
    }

    /// Refuses numbers that mean nothing.
    pub(super) fn check(&self) -> Result<()> {
        let fraction = |name: &str, x: f64, most: f64| {
            if x.is_finite() && (0.0..=most).contains(&x) {
                return Ok(());
            }
            Err(Diag::input(format!("{x} is out of range")).place(name).cure(format!("choose 0 to {most}")))
        };
        fraction("--train", self.train, 1.0)?;
        fraction("--slack", self.slack, 100.0)?;
        fraction("--gap", self.gap, 100.0)?;
        if self.train == 0.0 {
            return Err(Diag::input("there is nothing to train on").place("--train").cure("choose more than 0"));
        }
        if let Some(n) = self.batch.filter(|n| !(1..=1 << 20).contains(n)) {
            return Err(Diag::input(format!("{n} tokens an iteration")).place("--batch").cure("choose 1 to 2^20"));
        }
        if let Some(n) = self.steps.filter(|n| !(1..=1 << 32).contains(n)) {
            return Err(Diag::input(format!("{n} steps")).place("--steps").cure("choose 1 to 2^32"));
        }
        if let Some(x) = self.speed.iter().find(|x| !(x.is_finite() && **x > 0.0)) {
            return Err(Diag::input(format!("a speed of {x}")).place("--speed").cure("choose more than 0"));
        }
        Ok(())
    }
}

/// A file, and the array in it that `#` names.
pub(super) fn split(name: &str) -> (PathBuf, Option<String>) {
    match name.rsplit_once('#') {
        Some((path, array)) if !std::path::Path::new(name).exists() => (path.into(), Some(array.into())),
        _ => (name.into(), None),
    }
}
