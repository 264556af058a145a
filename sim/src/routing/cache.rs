//! Drawn routing, kept for the next run.
//!
//! A file's trace is opened. Drawn routing is a pure function of its key; it comes from the user's folder, from what ships
//! inside the binary, or from the generator, and is the same bytes each time, so that results do not tell which. An entry of the folder
//! is a trace in the container, `KEY-CONTENT.arrow`: one whose content is not what its name says is removed and drawn anew. Nothing
//! here fails: without a folder, or with one that cannot be written, routing is drawn. Processes that draw the same at once
//! write the same bytes, each under a name of its own that is exchanged for the final one. Files that were used longest ago leave.

use super::shipped;
use super::spec::{Routing, Wanted};
use moesim_core::output::content_hash;
use moesim_core::{Bytes, Diag, Result};
use moesim_traces::synth::{self, Fit, GroupLimit, SynthSpec, fitted, synthesize, uniform};
use moesim_traces::trace::Writer;
use moesim_traces::{Meta, OwnedSequence, Trace};
use serde::Serialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The environment variable that names the folder; empty for none.
pub const FOLDER: &str = "MOESIM_CACHE";
/// The environment variable that says how much the folder may hold.
pub const SIZE: &str = "MOESIM_CACHE_SIZE";
/// What it may hold unless told: 2 GiB.
const MOST: u64 = 2 << 30;
/// A file half written and left for so long is nobody's any more.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Where a run's routing came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A trace file.
    File,
    /// What ships inside the binary.
    Shipped,
    /// Drawn by an earlier run.
    Cache,
    /// The generator.
    Drawn,
    /// Another point of the sweep.
    Shared,
    /// The model has no MoE layer.
    None,
}

impl Origin {
    /// Its word, as in `timing.json`.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Shipped => "shipped",
            Self::Cache => "cache",
            Self::Drawn => "drawn",
            Self::Shared => "shared",
            Self::None => "none",
        }
    }
}

/// A trace, and where it came from.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The trace.
    pub trace: Arc<Trace>,
    /// Its origin.
    pub from: Origin,
}

/// Where drawn routing is kept.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    folder: Option<PathBuf>,
    /// Bytes that the folder may hold.
    most: u64,
    /// Whether what ships inside the binary is used.
    shipped: bool,
}

impl Cache {
    /// No cache: routing is drawn, even what ships.
    pub fn none() -> Self {
        Self::default()
    }

    /// The cache in `folder`, of `most` bytes.
    pub fn at(folder: &Path, most: u64) -> Self {
        Self { folder: Some(folder.to_path_buf()), most, shipped: true }
    }

    /// The user's: `$MOESIM_CACHE` or `moesim/routing` in the system's folder for caches, of `$MOESIM_CACHE_SIZE` or 2 GiB.
    ///
    /// # Errors
    /// A size that is none.
    pub fn of_user() -> Result<Self> {
        let most = match std::env::var(SIZE) {
            Ok(text) if !text.trim().is_empty() => text.trim().parse::<Bytes>().map(Bytes::get).map_err(|_| {
                Diag::input(format!("{text:?} is no size")).place(SIZE).cure("write it as \"2 GiB\", or unset it")
            })?,
            _ => MOST,
        };
        let folder = match std::env::var_os(FOLDER) {
            Some(folder) => Some(PathBuf::from(folder)).filter(|f| !f.as_os_str().is_empty()),
            None => caches().map(|c| c.join("moesim").join("routing")),
        };
        Ok(Self { folder, most, shipped: true })
    }

    /// The routing of an experiment: opened, taken from the cache, or drawn and kept. `say` is told before something is drawn.
    ///
    /// # Errors
    /// As the container's reader says; a shape that cannot be drawn.
    pub fn open(&self, wanted: Wanted, say: &dyn Fn(String)) -> Result<Opened> {
        let opened = |trace: Trace, from| Ok(Opened { trace: Arc::new(trace), from });
        if wanted.model.moe_layers().is_empty() {
            return opened(unrouted(&wanted.model.name)?, Origin::None);
        }
        if let Routing::Trace { path, .. } = wanted.spec {
            return opened(Trace::open(&wanted.base.join(path))?, Origin::File);
        }
        let Some(drawing) = Drawing::of(wanted)? else {
            return Err(Diag::input(format!("{} has MoE layers and nothing says what they route", wanted.model.name))
                .place("workload.routing")
                .cure("add kind = \"synthetic\" with sequences and decode_rows, or kind = \"trace\" with its path"));
        };
        let draw = || {
            let s = &drawing.spec;
            say(format!("drawing routing for {} x {} experts", s.layer_numbers.len(), s.experts));
            drawing.draw()
        };
        if !self.shipped && self.folder.is_none() {
            return opened(draw()?, Origin::Drawn);
        }
        let fit = fitted(drawing.spec.experts)?;
        let key = drawing.key(&fit);
        if let Some(trace) = self.folder.as_deref().and_then(|f| kept(f, &key)) {
            return opened(trace, Origin::Cache);
        }
        // The quickstart's sequences are drawn from the router that ships: some tenths of a second, once.
        let shipped = shipped::quickstart(&key, &drawing, &fit).filter(|_| self.shipped);
        let (trace, from) = match shipped {
            Some(trace) => (trace, Origin::Shipped),
            None => (draw()?, Origin::Drawn),
        };
        if let Some(folder) = &self.folder {
            // A folder that cannot be written is as good as none.
            let _ = self.keep(folder, &key, &trace);
        }
        opened(trace, from)
    }

    fn keep(&self, folder: &Path, key: &str, trace: &Trace) -> Result<()> {
        // Threads of a process would write under one name.
        static WRITING: Mutex<()> = Mutex::new(());
        let _one = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let target = folder.join(format!("{key}-{}.arrow", content(trace)));
        if bytes(trace) > self.most || target.exists() {
            return Ok(());
        }
        fs::create_dir_all(folder).map_err(|e| Diag::cannot_write(folder, &e))?;
        let mut writer = Writer::create(&target, trace.meta().clone())?;
        for i in 0..trace.sequences() {
            writer.push_sequence(&trace.sequence(i).to_owned())?;
        }
        writer.finish()?;
        self.shrink(folder, &target);
        Ok(())
    }

    /// Removes what was used longest ago until the rest is within the limit, and what was left half written.
    fn shrink(&self, folder: &Path, new: &Path) {
        let now = SystemTime::now();
        let mut entries: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, Ok(info)) = (entry.path(), entry.metadata()) else { continue };
            let used = info.modified().unwrap_or(now);
            match path.extension().and_then(|e| e.to_str()) {
                Some("arrow") if info.is_file() && path != new => entries.push((used, path, info.len())),
                Some("partial") if now.duration_since(used).is_ok_and(|age| age > STALE) => {
                    let _ = fs::remove_file(path);
                }
                _ => {}
            }
        }
        entries.sort();
        let mut all: u64 = entries.iter().map(|e| e.2).sum::<u64>() + new.metadata().map_or(0, |m| m.len());
        for (_, path, size) in entries {
            if all <= self.most {
                return;
            }
            // Whoever has it mapped keeps what is mapped.
            if fs::remove_file(path).is_ok() {
                all -= size;
            }
        }
    }
}

/// The entry of a key, if there is one and it is whole.
fn kept(folder: &Path, key: &str) -> Option<Trace> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        let name = path.file_stem().and_then(|n| n.to_str()).and_then(|n| n.split_once('-'));
        let Some((_, expected)) = name.filter(|(own, _)| *own == key) else { continue };
        if path.extension().is_none_or(|e| e != "arrow") {
            continue;
        }
        match Trace::open(&path) {
            Ok(trace) if content(&trace) == expected && trace.verify().is_ok() => {
                // Files that were used last stay longest.
                let _ = File::options().write(true).open(&path).and_then(|f| f.set_modified(SystemTime::now()));
                return Some(trace);
            }
            _ => {
                let _ = fs::remove_file(&path);
            }
        }
    }
    None
}

/// A hash of what a trace says of itself and of its rows.
fn content(trace: &Trace) -> String {
    content_hash(format!("{:?} {}", trace.meta(), trace.hash()).as_bytes())
}

/// Bytes of a trace without gate weights, but for the head of its file.
fn bytes(trace: &Trace) -> u64 {
    trace.rows() * (2 * trace.width() as u64 + 9)
}

/// The system's folder for the caches of a user.
fn caches() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if cfg!(windows) {
        return named("LOCALAPPDATA");
    }
    named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")))
}

/// Routing that is drawn, and everything that its bytes depend on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Drawing {
    pub(crate) spec: SynthSpec,
    /// Uniform draws with this limit, instead of ones like a recorded trace.
    uniform: Option<GroupLimit>,
    pub(crate) seed: u64,
}

impl Drawing {
    /// What an experiment draws; `None` if it draws nothing.
    pub(crate) fn of(wanted: Wanted) -> Result<Option<Self>> {
        let spec = |n: &u32, prompt: &u32, decode: &u32| SynthSpec::for_model(wanted.model, *n, *prompt, *decode);
        let (spec, uniform) = match wanted.spec {
            Routing::None | Routing::Trace { .. } => return Ok(None),
            Routing::Synthetic { sequences, prompt_rows, decode_rows, subjects, .. } => {
                let spec = spec(sequences, prompt_rows, decode_rows)?;
                (SynthSpec { subjects: *subjects, ..spec }, None)
            }
            Routing::Uniform { sequences, prompt_rows, decode_rows, groups, top_groups, .. } => {
                let limit = GroupLimit { groups: *groups, top: *top_groups };
                (spec(sequences, prompt_rows, decode_rows)?, Some(limit))
            }
        };
        Ok(Some(Self { spec, uniform, seed: wanted.seed }))
    }

    pub(crate) fn draw(&self) -> Result<Trace> {
        let drawn = match self.uniform {
            None => synthesize(&self.spec, self.seed),
            Some(limit) => uniform(&self.spec, Some(limit), self.seed),
        };
        drawn.map_err(|d| Diag { file: None, place: Some("workload.routing".to_string()), ..d })
    }

    /// A name for the bytes that are drawn: 16 hexadecimal digits.
    pub(crate) fn key(&self, fit: &Fit) -> String {
        self.keyed(fit, synth::VERSION)
    }

    fn keyed(&self, fit: &Fit, version: u32) -> String {
        // Many subjects go without saying: what was drawn before there was a choice keeps its name.
        let drawing = format!("{self:?}").replace(", subjects: Many }", " }");
        content_hash(format!("{version} {} {drawing} {fit:?}", env!("CARGO_PKG_VERSION")).as_bytes())
    }
}

/// What a model without MoE layers replays: nothing. The one row is never read.
fn unrouted(model: &str) -> Result<Trace> {
    let meta = Meta {
        model: model.to_string(),
        layer_numbers: vec![0],
        experts: 1,
        k: 1,
        source: "none: the model has no MoE layer".into(),
        licence: "none".into(),
    };
    let row = OwnedSequence { decode: vec![0], ..OwnedSequence::default() };
    Trace::from_sequences(meta, vec![row])
}

#[cfg(test)]
mod tests;
