//! Traces of Mooncake (kvcache-ai/Mooncake; Qin et al., FAST 2025): JSON lines, plain or gzip, one request a line:
//! `{"timestamp": 3000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}`.
//!
//! * `timestamp`, in ms, is the start of the tick of 3 s in which the request came: up to 28 share one. They are spread
//!   over their tick, uniformly at random, in the order of the file: as a Poisson process would have brought them, given
//!   their number. The last of them stays before the next tick.
//! * `hash_ids` stand for the blocks of 512 tokens of the prompt. They are kept with the request; nothing uses them yet.

use super::{Blocks, Request, Requests, TOKENS, out_of_range, rate_scale_in_range, scaled};
use crate::json;
use flate2::bufread::MultiGzDecoder;
use moesim_core::rng::{draw, purpose_key};
use moesim_core::{Diag, Picos, Result};
use serde::Deserialize;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// What a prompt of 16 Mi tokens in blocks of 512 needs, twice.
const LINE: u64 = 1 << 20;
/// A tick is held in memory whole.
const TICK_REQUESTS: usize = 1 << 16;
const TICK_HASHES: usize = 16 << 20;
const TICK_MS: u64 = 3000;
/// 213 days, the end of the clock.
const MOST_MS: u64 = u64::MAX / MS;
/// Picoseconds.
const MS: u64 = 1_000_000_000;

pub(super) fn block_tokens() -> u32 {
    512
}

/// The trace at `path`; its ticks are spread by draws from the seed `spread`, or not at all.
pub(super) fn open(path: &Path, rate_scale: f64, spread: Option<u64>, block_tokens: u32) -> Result<Requests> {
    rate_scale_in_range(rate_scale)?;
    if !(1..=TOKENS).contains(&block_tokens) {
        return Err(out_of_range("block_tokens", block_tokens.to_string(), "from 1 to 16777216 tokens"));
    }
    let wrong = |e: std::io::Error| Diag::cannot_read(path, &e);
    let file = moesim_core::input::open(path)?;
    let mut file = BufReader::with_capacity(1 << 16, file);
    let packed = file.fill_buf().map_err(wrong)?.starts_with(&[0x1f, 0x8b]);
    let text: Box<dyn BufRead + Send> = match packed {
        true => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))),
        false => Box::new(file),
    };
    let lines = Lines { path: path.to_path_buf(), text, number: 0, line: Vec::new(), last: 0, block_tokens };
    let mut trace = Trace { lines, rate_scale, spread, ahead: None, ready: VecDeque::new(), id: 0, over: false };
    let mut hashed = false;
    trace.ahead = trace.lines.next()?;
    match &trace.ahead {
        Some((_, first)) => hashed |= first.blocks.is_some(),
        None => return Err(Diag::input("has no requests").file(path).place("line 1").cure("give a file with lines")),
    }
    Ok(Requests::new(trace).noting(move || {
        let note =
            "hash_ids (of block_tokens each) are kept with the requests, but no prefix cache uses them yet: every prompt is computed whole";
        if hashed { vec![note.to_string()] } else { Vec::new() }
    }))
}

#[derive(Deserialize)]
struct Line {
    timestamp: u64,
    input_length: u32,
    output_length: u32,
    hash_ids: Option<Vec<u64>>,
}

struct Lines {
    path: PathBuf,
    text: Box<dyn BufRead + Send>,
    number: u64,
    line: Vec<u8>,
    last: u64,
    block_tokens: u32,
}

impl Lines {
    /// The next request and its time in ms.
    fn next(&mut self) -> Result<Option<(u64, Request)>> {
        loop {
            self.number += 1;
            self.line.clear();
            let at = |d: Diag| d.file(&self.path).place(format!("line {}", self.number));
            (&mut self.text)
                .take(LINE + 1)
                .read_until(b'\n', &mut self.line)
                .map_err(|e| at(Diag::input(format!("ends early or is damaged: {e}")).cure("copy the file again")))?;
            if self.line.is_empty() {
                return Ok(None);
            }
            if self.line.len() as u64 > LINE {
                return Err(at(Diag::input("is longer than 1 MiB").cure("write one JSON object a request and line")));
            }
            if !self.line.trim_ascii().is_empty() {
                let (time, request) = self.parse().map_err(at)?;
                self.last = time;
                return Ok(Some((time, request)));
            }
        }
    }

    fn parse(&self) -> Result<(u64, Request)> {
        let line: Line = serde_json::from_slice(&self.line).map_err(|e| {
            Diag::input(format!("column {}: {}", e.column(), json::words(&e))).cure(
                "write {\"timestamp\": ms, \"input_length\": tokens, \"output_length\": tokens, \"hash_ids\": [whole numbers]}",
            )
        })?;
        if line.timestamp < self.last {
            return Err(Diag::input(format!("timestamp {} is before {}, the line above", line.timestamp, self.last))
                .cure("sort the lines by timestamp"));
        }
        if line.timestamp > MOST_MS {
            return Err(Diag::input(format!("timestamp {} is outside of the clock", line.timestamp))
                .cure("give milliseconds from 0 to 213 days"));
        }
        for (key, tokens) in [("input_length", line.input_length), ("output_length", line.output_length)] {
            if !(1..=TOKENS).contains(&tokens) {
                return Err(Diag::input(format!("{key} {tokens} is out of range"))
                    .cure("give whole numbers from 1 to 16777216, or leave the line out"));
            }
        }
        let (whole, all) = (line.input_length / self.block_tokens, line.input_length.div_ceil(self.block_tokens));
        let blocks = match line.hash_ids {
            None => None,
            Some(h) if (whole as usize..=all as usize).contains(&h.len()) => {
                Some(Blocks { hashes: h.into(), block_tokens: self.block_tokens })
            }
            Some(h) => {
                let (n, tokens, block) = (h.len(), line.input_length, self.block_tokens);
                return Err(Diag::input(format!("{n} hash_ids are not the blocks of {block} in {tokens} tokens"))
                    .cure("set block_tokens to the tokens of a block of this trace"));
            }
        };
        let request = Request { blocks, ..Request::new(0, Picos::ZERO, line.input_length, line.output_length) };
        Ok((line.timestamp, request))
    }
}

struct Trace {
    lines: Lines,
    rate_scale: f64,
    spread: Option<u64>,
    /// The first request of the next tick.
    ahead: Option<(u64, Request)>,
    /// The rest of this one.
    ready: VecDeque<Request>,
    id: u64,
    over: bool,
}

impl Trace {
    /// Reads a tick, and the request behind it.
    fn tick(&mut self) -> Result<()> {
        let Some((time, first)) = self.ahead.take() else { return Ok(()) };
        let mut hashes = 0;
        let mut push = |r: Request, ready: &mut VecDeque<Request>| {
            hashes += r.blocks.as_ref().map_or(0, |b| b.hashes.len());
            ready.push_back(r);
            hashes <= TICK_HASHES && ready.len() <= TICK_REQUESTS
        };
        push(first, &mut self.ready);
        loop {
            self.ahead = self.lines.next()?;
            match &mut self.ahead {
                Some((t, _)) if *t == time => {
                    let same = self.ahead.take().is_none_or(|(_, r)| push(r, &mut self.ready));
                    if !same {
                        return Err(Diag::input("more than 65536 requests, or 16 Mi hash_ids, have one timestamp")
                            .file(&self.lines.path)
                            .place(format!("line {}", self.lines.number))
                            .cure("give times in milliseconds"));
                    }
                }
                _ => break,
            }
        }
        let n = self.ready.len();
        let next = self.ahead.as_ref().map_or(u64::MAX, |(t, _)| *t);
        let span = (next - time).min(TICK_MS) * MS;
        let mut inside = vec![0; n];
        if let Some(seed) = self.spread {
            let key = purpose_key("mooncake-tick");
            let uniform = |i: usize| ((u128::from(draw(seed, key, time, i as u64)) * u128::from(span)) >> 64) as u64;
            inside.iter_mut().enumerate().for_each(|(i, at)| *at = uniform(i));
            inside.sort_unstable();
        }
        for (request, inside) in self.ready.iter_mut().zip(inside) {
            let at = scaled(i128::from(time * MS) + i128::from(inside), self.rate_scale);
            request.arrival = Picos(u64::try_from(at).map_err(|_| {
                Diag::input(format!("timestamp {time} at this rate_scale is outside of the clock"))
                    .file(&self.lines.path)
                    .cure("give a higher rate_scale, or less of the trace")
            })?);
            request.id = self.id;
            self.id += 1;
        }
        Ok(())
    }
}

impl Iterator for Trace {
    type Item = Result<Request>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        if self.ready.is_empty()
            && let Err(e) = self.tick()
        {
            self.over = true;
            return Some(Err(e));
        }
        self.ready.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{data, failure, requests};
    use super::*;
    use crate::ArrivalSpec;
    use std::io::Write;

    fn spec(path: &str, spread: bool) -> ArrivalSpec {
        ArrivalSpec::Mooncake { path: path.into(), rate_scale: 1.0, limit: None, spread, block_tokens: 512 }
    }
    fn line(time: u64, input: u32, hashes: &str) -> String {
        format!(
            "{{\"timestamp\": {time}, \"input_length\": {input}, \"output_length\": 7, \"hash_ids\": [{hashes}]}}\n"
        )
    }
    fn read(text: &[u8]) -> Result<Vec<Request>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("m.jsonl"), text).unwrap();
        requests(&spec("m.jsonl", true), dir.path())
    }

    #[test]
    fn the_recorded_trace_is_whole() {
        let Some(base) = data("arrivals") else { return };
        let together = requests(&spec("mooncake_conversation_trace.jsonl.gz", false), &base).unwrap();
        let spread = requests(&spec("mooncake_conversation_trace.jsonl.gz", true), &base).unwrap();
        assert_eq!((together.len(), spread.len()), (12_031, 12_031));
        let mean = together.iter().map(|r| f64::from(r.prompt_tokens)).sum::<f64>() / 12_031.0;
        assert!((mean - 12_035.0).abs() < 1.0, "{mean}");
        let mut ticks: Vec<_> = together.iter().map(|r| r.arrival).collect();
        ticks.dedup();
        assert_eq!(ticks.len(), 1180);
        assert!(spread.windows(2).all(|w| w[0].arrival <= w[1].arrival && w[1].id == w[0].id + 1));
        for (i, (a, b)) in together.iter().zip(&spread).enumerate() {
            assert!(b.arrival >= a.arrival && b.arrival.since(a.arrival).0 < TICK_MS * MS);
            let later = together[i..].iter().find(|r| r.arrival > a.arrival);
            assert!(later.is_none_or(|l| b.arrival < l.arrival));
            assert_eq!((a.prompt_tokens, a.output_tokens, &a.blocks), (b.prompt_tokens, b.output_tokens, &b.blocks));
        }
        // Uniform over a tick: mean half of it, within five standard errors (0.29 / sqrt n).
        let inside = together.iter().zip(&spread).map(|(a, b)| b.arrival.since(a.arrival).seconds() / 3.0);
        let mean = inside.sum::<f64>() / 12_031.0;
        assert!((mean - 0.5).abs() < 5.0 * 0.2887 / 109.7, "{mean}");
        let first = spread[0].blocks.as_ref().unwrap();
        assert_eq!((first.hashes.len(), first.hashes[13], first.block_tokens), (14, 13, 512));
        assert_eq!(spread.iter().map(|r| r.blocks.as_ref().unwrap().hashes.len()).sum::<usize>(), 288_500);
        let other = spec("mooncake_conversation_trace.jsonl.gz", true).open(8, &base).unwrap();
        let crate::Arrivals::Open(mut other) = other else { panic!("open") };
        assert_ne!(other.next().unwrap().unwrap().arrival, spread[0].arrival);
        assert!(other.notes()[0].contains("no prefix cache"));
    }

    #[test]
    fn gzip_is_known_by_its_content() {
        let text = line(0, 600, "1, 2") + "\n" + &line(0, 512, "18446744073709551615") + &line(9000, 511, "");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(text.as_bytes()).unwrap();
        let packed = gz.finish().unwrap();
        let all = read(text.as_bytes()).unwrap();
        assert_eq!(all, read(&packed).unwrap());
        assert_eq!(all.len(), 3);
        assert_eq!(*all[1].blocks.as_ref().unwrap().hashes, [u64::MAX]);
        let e = failure(read(&packed[..packed.len() / 2]));
        assert!(e.contains("m.jsonl: line ") && e.contains("ends early or is damaged"), "{e}");
    }

    #[test]
    fn hostile_lines() {
        let good = line(5, 512, "1");
        let wrong = |text: &str, words: &[&str]| {
            let e = failure(read(format!("{good}{text}").as_bytes()));
            assert!(e.contains("m.jsonl: line 2: ") && words.iter().all(|w| e.contains(w)), "{e}");
        };
        wrong(&line(4, 512, "1"), &["timestamp 4 is before 5", "sort"]);
        wrong(&line(u64::MAX, 512, "1"), &["outside of the clock"]);
        wrong(&line(5, 0, ""), &["input_length 0", "from 1"]);
        wrong(&line(5, 1 << 30, ""), &["input_length 1073741824"]);
        wrong(&line(5, 512, "1").replace("7", "0"), &["output_length 0"]);
        wrong(&line(5, 512, "\"x\""), &["invalid type", "whole numbers"]);
        wrong(&line(5, 512, "-1"), &["invalid value", "whole numbers"]);
        wrong(&line(5, 512, "1, 2"), &["2 hash_ids", "block_tokens"]);
        wrong(&line(5, 5120, "1"), &["1 hash_ids", "block_tokens"]);
        wrong("{\"timestamp\": -3}", &["timestamp"]);
        wrong("{\"timestamp\": NaN}", &["column"]);
        wrong("{\"timestamp\": 9, \"input_length\": 4}", &["missing field `output_length`"]);
        wrong(&format!("{{\"x\": {}", "[".repeat(100_000)), &["EOF while parsing a list"]);
        wrong(&line(5, 512, &"[".repeat(100_000)), &["whole numbers"]);
        wrong(&" ".repeat(2 << 20), &["longer than 1 MiB"]);
        wrong("[1]\n", &["column"]);
        assert!(failure(read(b"")).contains("has no requests"));
        assert!(failure(read(b"\x1f\x8b")).contains("damaged"));
        assert!(failure(read(line(9, 4, "").repeat(70_000).as_bytes())).contains("65536 requests"));
        let block =
            ArrivalSpec::Mooncake { path: "m".into(), rate_scale: 1.0, limit: None, spread: true, block_tokens: 0 };
        assert!(failure(requests(&block, Path::new("/"))).contains("block_tokens"));
    }
}
