//! ServeGen's files: `chunk-N-trace.csv` and `chunk-N-dataset.json` of every client N, in a folder, or in a tar archive,
//! plain or gzip.
//!
//! * The trace has no header. A row is a window: start (s), rate (1/s), cv, Gamma or Weibull or nothing, shape, scale. It
//!   ends where the next begins; the last is as long as the one before it.
//! * The dataset is an object of start (s) -> {"input_tokens": "{44: 0.25, 45: 0.75}", "output_tokens": ...}: tables of
//!   length and probability, written in text. 0 tokens count as 1.
//!
//! All clients are held in memory: at most 256 MiB of files. Nothing is unpacked to disk.

use super::super::TOKENS;
use super::super::gaps::Gaps;
use super::client::{Client, Distribution, Drawing, Lengths, Window};
use crate::json;
use flate2::bufread::MultiGzDecoder;
use moesim_core::{Diag, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};

/// Files of one client.
#[derive(Default)]
struct Pair {
    windows: Option<Vec<Window>>,
    lengths: Option<Vec<Lengths>>,
}

/// What has been read of all clients.
struct Pool {
    pairs: BTreeMap<u32, Pair>,
    /// Windows and lengths.
    entries: usize,
    /// Windows with a rate and no process.
    unfitted: u64,
}

/// A file of ServeGen's is about 1 MB.
const MEMBER: u64 = 64 << 20;
const ALL: u64 = 256 << 20;
const ENTRIES: usize = 16 << 20;

/// All clients in order of their numbers, and how many of their windows have a rate but no process.
pub(super) fn read(path: &Path) -> Result<(Vec<Client>, u64)> {
    let mut pool = Pool { pairs: BTreeMap::new(), entries: 0, unfitted: 0 };
    let cannot = |e: std::io::Error| Diag::cannot_read(path, &e);
    if std::fs::metadata(path).map_err(cannot)?.is_dir() {
        folder(path, &mut pool)?;
    } else {
        let mut file = BufReader::with_capacity(1 << 16, moesim_core::input::open(path)?);
        let packed = file.fill_buf().map_err(cannot)?.starts_with(&[0x1f, 0x8b]);
        let bytes: Box<dyn Read> = if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        archive(bytes, &mut pool).map_err(|d| d.file(path))?;
    }
    if pool.pairs.is_empty() {
        return Err(Diag::input("has no chunk-N-trace.csv")
            .file(path)
            .cure("give a folder of ServeGen's data of one model, or a tar archive of it"));
    }
    let clients = pool.pairs.into_iter().map(|(id, pair)| match pair {
        Pair { windows: Some(windows), lengths: Some(lengths) } => {
            Ok(Client { id, windows, lengths, drawing: Drawing::default() })
        }
        Pair { windows, .. } => {
            let lacking = if windows.is_none() { "trace.csv" } else { "dataset.json" };
            Err(Diag::input(format!("lacks chunk-{id}-{lacking}")).file(path).cure("give both files of every client"))
        }
    });
    Ok((clients.collect::<Result<_>>()?, pool.unfitted))
}

/// The files of a folder that are read, in order of name; of an archive, itself.
pub(in super::super) fn members(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let cannot = |e: std::io::Error| Diag::cannot_read(path, &e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if named(&entry.file_name().to_string_lossy()).is_some() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn folder(path: &Path, pool: &mut Pool) -> Result<()> {
    let mut left = ALL;
    for file in members(path)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let opened = moesim_core::input::open(&file)?;
        let bytes = whole(opened, left.min(MEMBER)).map_err(|d| d.file(path).place(&name))?;
        left -= bytes.len() as u64;
        pool.add(&name, &bytes).map_err(|d| d.file(path))?;
    }
    Ok(())
}

fn archive(bytes: Box<dyn Read>, pool: &mut Pool) -> Result<()> {
    let broken = |e: std::io::Error| {
        let words: String = e.to_string().chars().take(200).flat_map(char::escape_default).collect();
        Diag::input(format!("is no whole tar archive: {words}"))
            .place("archive")
            .cure("copy it again, or give a folder")
    };
    let mut archive = tar::Archive::new(Bounded { bytes, left: ALL });
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = path.rsplit('/').next().unwrap_or_default();
        let plain = Path::new(&path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let problem = match () {
            () if !plain => "leads out of the archive",
            () if named(name).is_none() => continue,
            () if !entry.header().entry_type().is_file() => "is a link or no plain file",
            () if entry.size() > MEMBER => "is larger than 64 MiB",
            () => {
                let bytes = whole(entry, MEMBER).map_err(|d| d.place(name))?;
                pool.add(name, &bytes)?;
                continue;
            }
        };
        let shown: String = path.chars().take(80).flat_map(char::escape_default).collect();
        return Err(Diag::input(problem).place(shown).cure("pack the files of ServeGen's data as they are"));
    }
    Ok(())
}

/// Ends with an error before it fills the memory.
struct Bounded<R> {
    bytes: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.left =
            self.left.checked_sub(n as u64).ok_or_else(|| std::io::Error::other("more than 256 MiB unpacked"))?;
        Ok(n)
    }
}

fn whole(from: impl Read, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Diag::input(format!("ends early or is damaged: {e}")).cure("copy it again"))?;
    if bytes.len() as u64 > limit {
        return Err(Diag::input("is larger than 64 MiB, or all files than 256 MiB").cure("give one model's clients"));
    }
    Ok(bytes)
}

/// The client of a file's name, and whether the file is its trace.
fn named(name: &str) -> Option<(u32, bool)> {
    let (id, what) = name.strip_prefix("chunk-")?.split_once('-')?;
    let id = id.bytes().all(|b| b.is_ascii_digit()).then(|| id.parse().ok()).flatten()?;
    match what {
        "trace.csv" => Some((id, true)),
        "dataset.json" => Some((id, false)),
        _ => None,
    }
}

impl Pool {
    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let Some((id, is_trace)) = named(name) else { return Ok(()) };
        let pair = self.pairs.entry(id).or_default();
        let twice = if is_trace { pair.windows.is_some() } else { pair.lengths.is_some() };
        if twice {
            return Err(Diag::input("is there twice").place(name).cure("give one model's clients"));
        }
        let at = |d: Diag| {
            let place = d.place.as_ref().map_or_else(|| name.to_string(), |p| format!("{name}, {p}"));
            Diag { place: Some(place), ..d }
        };
        if is_trace {
            let (windows, unfitted) = trace(bytes).map_err(at)?;
            self.entries += windows.len();
            self.unfitted += unfitted;
            pair.windows = Some(windows);
        } else {
            let lengths = dataset(bytes).map_err(at)?;
            self.entries += lengths.iter().map(|l| l.prompt.tokens.len() + l.output.tokens.len()).sum::<usize>();
            pair.lengths = Some(lengths);
        }
        if self.entries > ENTRIES {
            return Err(Diag::input("has more than 16 Mi windows and lengths so far").place(name).cure("give fewer"));
        }
        Ok(())
    }
}

/// Windows with a process, and how many have a rate without one.
fn trace(bytes: &[u8]) -> Result<(Vec<Window>, u64)> {
    let rule = "write start_s,rate_rps,cv,Gamma or Weibull or nothing,shape,scale";
    let (mut windows, mut unfitted, mut last, mut length) = (Vec::<Window>::new(), 0, None, 600.0);
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let wrong = |problem: String| Diag::input(problem).place(format!("line {}", i + 1)).cure(rule);
        let text = str::from_utf8(line).map_err(|_| wrong("is not UTF-8 text".to_string()))?;
        let fields: Vec<&str> = text.split(',').take(7).collect();
        let &[start, rate, cv, family, shape, scale] = &fields[..] else {
            return Err(wrong(format!("does not have 6 fields: {text:.40}")));
        };
        let number = |name: &str, text: &str, range: std::ops::RangeInclusive<f64>| {
            let n = text.trim().parse::<f64>().ok().filter(|n| range.contains(n));
            n.ok_or_else(|| wrong(format!("{name} \"{text:.40}\" is not from {} to {}", range.start(), range.end())))
        };
        // 208 days: inside of the clock.
        let start = number("start", start, 0.0..=1.8e7)?;
        if start.fract() != 0.0 {
            return Err(wrong(format!("the start {start} s is not whole")));
        }
        if let Some(last) = last {
            if start <= last {
                return Err(wrong(format!("the window at {start} s does not follow the one at {last} s")));
            }
            length = start - last;
            if let Some(w) = windows.last_mut().filter(|w| w.start == last) {
                w.end = start;
            }
        }
        last = Some(start);
        let rate = number("rate", rate, 0.0..=1e6)?;
        number("cv", cv, 0.0..=f64::MAX)?;
        let gaps = match family.trim() {
            "" => {
                unfitted += u64::from(rate > 0.0);
                continue;
            }
            "Gamma" => Gaps::gamma(number("shape", shape, 1e-3..=1e6)?),
            "Weibull" => Gaps::weibull(number("shape", shape, 0.05..=1e3)?),
            other => return Err(wrong(format!("\"{other:.40}\" is not Gamma or Weibull"))),
        };
        number("scale", scale, 0.0..=f64::MAX)?;
        if rate > 0.0 {
            windows.push(Window { start, end: start + length, rate, gaps });
        }
    }
    if last.is_none() {
        return Err(Diag::input("has no windows").place("line 1").cure(rule));
    }
    Ok((windows, unfitted))
}

#[derive(Deserialize)]
struct Fields {
    input_tokens: String,
    output_tokens: String,
}

/// Lengths in order of their starts; empty ones are left out, as ServeGen does.
fn dataset(bytes: &[u8]) -> Result<Vec<Lengths>> {
    let rule = "write {\"0\": {\"input_tokens\": \"{44: 0.25, 45: 0.75}\", \"output_tokens\": \"{...}\"}, ...}";
    let table: BTreeMap<String, Fields> =
        serde_json::from_slice(bytes).map_err(|e| json::broken("table of lengths", &e).cure(rule))?;
    let mut all = Vec::new();
    for (key, fields) in table {
        let Some(start) = key.parse::<u32>().ok().filter(|s| *s <= 18_000_000) else {
            return Err(Diag::input(format!("\"{key:.40}\" is not a start in seconds")).cure(rule));
        };
        let read = |name: &str, text: &str| {
            distribution(text).map_err(|problem| Diag::input(problem).place(format!("{start}.{name}")).cure(rule))
        };
        let prompt = read("input_tokens", &fields.input_tokens)?;
        let output = read("output_tokens", &fields.output_tokens)?;
        if !prompt.tokens.is_empty() && !output.tokens.is_empty() {
            all.push(Lengths { start: f64::from(start), prompt, output });
        }
    }
    all.sort_by(|a, b| a.start.total_cmp(&b.start));
    Ok(all)
}

/// A dictionary of length and probability, as Python prints it.
fn distribution(text: &str) -> std::result::Result<Distribution, String> {
    let inner = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or("is no {length: probability}")?;
    let mut d = Distribution::default();
    let mut sum = 0.0;
    for item in inner.split(',').map(str::trim).filter(|i| !i.is_empty()) {
        let wrong = || format!("\"{item:.40}\" is not a length from 0 to 16777216 and a probability from 0 to 1");
        let (length, p) = item.split_once(':').ok_or_else(wrong)?;
        let length = length.trim().parse::<u32>().ok().filter(|n| *n <= TOKENS).ok_or_else(wrong)?;
        sum += p.trim().parse::<f64>().ok().filter(|p| (0.0..=1.0).contains(p)).ok_or_else(wrong)?;
        d.tokens.push(length.max(1));
        d.sums.push(sum);
    }
    // They are relative frequencies, rounded.
    if !d.tokens.is_empty() && !(0.999..=1.001).contains(&sum) {
        return Err(format!("probabilities sum to {sum}, not 1"));
    }
    Ok(d)
}
