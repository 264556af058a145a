//! Logs of JSON lines with the hashes of prompts' blocks, plain or gzip, one request a line:
//!
//! * Mooncake's (kvcache-ai/Mooncake; Qin et al., FAST 2025):
//!   `{"timestamp": 3000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}`. `timestamp` is in ms; the recorded
//!   traces have ticks of 3 s, which up to 28 requests share, the synthetic one has milliseconds. Blocks have 512 tokens.
//! * Bailian's (alibaba-edu/qwen-bailian-usagetraces-anon; Wang et al., USENIX ATC 2025), as its README describes them:
//!   `{"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 521, "output_length": 132, "type": "text",
//!   "turn": 2, "hash_ids": [1089, 1090, 1091]}`. `timestamp` is in seconds; blocks have 16 tokens. A turn of a chat comes when it
//!   was recorded, whatever the answer before it takes.
//!
//! `hash_ids` are kept with the request; nothing uses them yet. See [`super::stamps`] for requests that share a stamp.

use super::stamps::{Clock, StampedRow, requests};
use super::{Blocks, Request, Requests, TOKENS, out_of_range, rate_scale_in_range};
use crate::json;
use crate::text::{self, Text};
use moesim_core::{Diag, Picos, Result};
use serde::{Deserialize, Deserializer};
use serde_json::Number;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

/// What a prompt of 16 Mi tokens in blocks of 512 needs, twice.
const LINE: u64 = 1 << 20;

pub(super) fn block_tokens() -> u32 {
    512
}

pub(super) fn bailian_block_tokens() -> u32 {
    16
}

/// What of the lines differs between logs.
pub(super) struct Form {
    /// Picoseconds of a `timestamp` of 1.
    unit: i128,
    block_tokens: u32,
    /// Whether it has chats.
    chats: bool,
    /// Only requests of this type.
    of_type: Option<String>,
}

impl Form {
    pub(super) fn mooncake(block_tokens: u32) -> Self {
        Self { unit: 1_000_000_000, block_tokens, chats: false, of_type: None }
    }
    pub(super) fn bailian(block_tokens: u32, of_type: Option<String>) -> Self {
        Self { unit: 1_000_000_000_000, block_tokens, chats: true, of_type }
    }
}

/// The log at `path`.
pub(super) fn open(path: &Path, clock: Clock, form: Form) -> Result<Requests> {
    rate_scale_in_range(clock.rate_scale)?;
    if !(1..=TOKENS).contains(&form.block_tokens) {
        return Err(out_of_range("block_tokens", form.block_tokens.to_string(), "from 1 to 16777216 tokens"));
    }
    let chats = form.chats;
    let of_type = form.of_type.clone();
    let mut lines =
        Lines { path: path.to_path_buf(), text: text::open(path)?, number: 0, line: Vec::new(), last: 0, form };
    let mut before = Vec::new();
    // The first request shows whether there are hashes.
    let hashed = loop {
        let Some(row) = lines.next()? else {
            let of = of_type.map_or_else(String::new, |t| format!(" of type \"{t:.40}\""));
            let cure = if of.is_empty() { "give a file with lines" } else { "use a word that `type` has" };
            return Err(Diag::input(format!("has no requests{of}")).file(path).place("line 1").cure(cure));
        };
        let hashed = row.request.as_ref().map(|r| r.blocks.is_some());
        // Rows of other types before it matter to no stamp of its own.
        before.push(row);
        if let Some(hashed) = hashed {
            break hashed;
        }
        before.clear();
    };
    let rest = std::iter::from_fn(move || lines.next().transpose());
    let log = requests(path, before.into_iter().map(Ok).chain(rest), clock)?;
    Ok(log.noting(move || {
        let mut notes = Vec::new();
        if chats {
            notes.push("turns of a chat arrive when they were recorded, whatever the answers before them take".to_string());
        }
        if hashed {
            notes.push("hash_ids (of block_tokens each) are kept with the requests, but no prefix cache uses them yet: every prompt is computed whole".to_string());
        }
        notes
    }))
}

#[derive(Deserialize)]
struct Line {
    chat_id: Option<serde::de::IgnoredAny>,
    timestamp: Number,
    #[serde(deserialize_with = "whole")]
    input_length: u32,
    #[serde(deserialize_with = "whole")]
    output_length: u32,
    #[serde(rename = "type")]
    of_type: Option<String>,
    hash_ids: Option<Vec<u64>>,
}

/// A whole number, perhaps written as `10.0`.
fn whole<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<u32, D::Error> {
    let number = Number::deserialize(d)?;
    let whole = number.as_u64().or_else(|| number.as_f64().filter(|x| *x >= 0.0 && x.fract() == 0.0).map(|x| x as u64));
    let wrong = || serde::de::Error::custom(format_args!("{number} is not a number of tokens"));
    whole.ok_or_else(wrong).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

struct Lines {
    path: PathBuf,
    text: Text,
    number: u64,
    line: Vec<u8>,
    last: i128,
    form: Form,
}

impl Lines {
    fn next(&mut self) -> Result<Option<StampedRow>> {
        loop {
            self.number += 1;
            self.line.clear();
            let at = |d: Diag| d.file(&self.path).place(format!("line {}", self.number));
            let read = (&mut self.text).take(LINE + 1).read_until(b'\n', &mut self.line);
            read.map_err(|e| at(text::damaged(&e)))?;
            if self.line.is_empty() {
                return Ok(None);
            }
            if self.line.len() as u64 > LINE {
                return Err(at(Diag::input("is longer than 1 MiB").cure("write one JSON object a request and line")));
            }
            if !self.line.trim_ascii().is_empty() {
                let row = self.parse().map_err(at)?;
                self.last = row.at;
                return Ok(Some(row));
            }
        }
    }

    fn parse(&self) -> Result<StampedRow> {
        let unit = if self.form.chats { "s" } else { "ms" };
        let line: Line = serde_json::from_slice(&self.line).map_err(|e| {
            Diag::input(format!("column {}: {}", e.column(), json::words(&e))).cure(format!(
                "write {{\"timestamp\": {unit}, \"input_length\": tokens, \"output_length\": tokens, \"hash_ids\": [whole numbers]}}"
            ))
        })?;
        match (line.chat_id.is_some(), self.form.chats) {
            (true, false) => {
                return Err(Diag::input("has chat_id, as Bailian's logs have, whose times are in seconds")
                    .cure("set kind = \"bailian\""));
            }
            (false, true) => {
                return Err(Diag::input("has no chat_id, which Bailian's logs have")
                    .cure("set kind = \"mooncake\" if times are in ms, or add chat_id"));
            }
            _ => {}
        }
        let at = self.picos(&line.timestamp)?;
        if at < self.last {
            let last = self.last as f64 / self.form.unit as f64;
            return Err(Diag::input(format!("timestamp {} is before {last}, the line above", line.timestamp))
                .cure("sort the lines by timestamp"));
        }
        for (key, tokens) in [("input_length", line.input_length), ("output_length", line.output_length)] {
            if !(1..=TOKENS).contains(&tokens) {
                return Err(Diag::input(format!("{key} {tokens} is out of range"))
                    .cure("give whole numbers from 1 to 16777216, or leave the line out"));
            }
        }
        let block = self.form.block_tokens;
        let (whole, all) = (line.input_length / block, line.input_length.div_ceil(block));
        let blocks = match line.hash_ids {
            None => None,
            Some(h) if (whole as usize..=all as usize).contains(&h.len()) => {
                Some(Blocks { hashes: h.into(), block_tokens: block })
            }
            Some(h) => {
                let (n, tokens) = (h.len(), line.input_length);
                return Err(Diag::input(format!("{n} hash_ids are not the blocks of {block} in {tokens} tokens"))
                    .cure("set block_tokens to the tokens of a block of this trace"));
            }
        };
        let request = Request { blocks, ..Request::new(0, Picos::ZERO, line.input_length, line.output_length) };
        let wanted = self.form.of_type.is_none() || line.of_type == self.form.of_type;
        Ok(StampedRow { at, line: self.number, request: wanted.then_some(request) })
    }

    fn picos(&self, timestamp: &Number) -> Result<i128> {
        let wrong = || {
            let span = if self.form.chats { "seconds from 0, as in 61.114" } else { "milliseconds from 0" };
            Diag::input(format!("timestamp {timestamp} is outside of the clock")).cure(format!("give {span}"))
        };
        let at = match (timestamp.as_u64(), timestamp.as_f64()) {
            (Some(n), _) => i128::from(n) * self.form.unit,
            // Apart, because a time since 1970 has more than 53 bits of picoseconds.
            (None, Some(x)) if (0.0..1e15).contains(&x) => {
                x.trunc() as i128 * self.form.unit + (x.fract() * self.form.unit as f64).round() as i128
            }
            _ => return Err(wrong()),
        };
        // 3,000 years.
        if at < 100_000_000_000 * 1_000_000_000_000 { Ok(at) } else { Err(wrong()) }
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

    const MS: u64 = 1_000_000_000;

    #[test]
    fn the_recorded_trace_is_whole() {
        let Some(base) = data("arrivals") else { return };
        let together = requests(&spec("mooncake_conversation_trace.jsonl.gz", false), &base).unwrap();
        let crate::Arrivals::Open(mut log) = spec("mooncake_conversation_trace.jsonl.gz", true).open(8, &base).unwrap()
        else {
            panic!("open")
        };
        let spread: Vec<Request> = log.by_ref().collect::<Result<_>>().unwrap();
        assert_eq!((together.len(), spread.len()), (12_031, 12_031));
        let mean = together.iter().map(|r| f64::from(r.prompt_tokens)).sum::<f64>() / 12_031.0;
        assert!((mean - 12_035.0).abs() < 1.0, "{mean}");
        let mut ticks: Vec<_> = together.iter().map(|r| r.arrival).collect();
        ticks.dedup();
        assert_eq!(ticks.len(), 1180);
        assert!(spread.windows(2).all(|w| w[0].arrival < w[1].arrival && w[1].id == w[0].id + 1));
        let mut moved = 0;
        for tick in together.chunk_by(|a, b| a.arrival == b.arrival) {
            let (n, first) = (tick.len() as u64, tick[0].id as usize);
            let next = together.get(first + tick.len()).map_or(tick[0].arrival.0 + 3000 * MS, |r| r.arrival.0);
            for (i, (a, b)) in tick.iter().zip(&spread[first..]).enumerate() {
                assert_eq!(b.arrival.0, a.arrival.0 + (next - a.arrival.0) * i as u64 / n);
                assert_eq!(
                    (a.prompt_tokens, a.output_tokens, &a.blocks),
                    (b.prompt_tokens, b.output_tokens, &b.blocks)
                );
            }
            moved += n - 1;
        }
        assert_eq!(moved, 12_031 - 1180);
        let first = spread[0].blocks.as_ref().unwrap();
        assert_eq!((first.hashes.len(), first.hashes[13], first.block_tokens), (14, 13, 512));
        assert_eq!(spread.iter().map(|r| r.blocks.as_ref().unwrap().hashes.len()).sum::<usize>(), 288_500);
        let notes = log.notes().join("; ");
        assert!(
            notes.contains("10851 requests share their time stamp") && notes.contains("no prefix cache"),
            "{notes}"
        );
    }

    /// Seconds of arrival, and the notes.
    fn times(spec: &ArrivalSpec, text: &str) -> Result<(Vec<f64>, String)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("m.jsonl"), text).unwrap();
        let crate::Arrivals::Open(mut log) = spec.open(7, dir.path())? else { panic!("open") };
        let all = log.by_ref().map(|r| Ok(r?.arrival.seconds())).collect::<Result<_>>()?;
        Ok((all, log.notes().join("; ")))
    }
    fn at(stamps: &[&str]) -> String {
        let line = |t: &&str| format!("{{\"timestamp\": {t}, \"input_length\": 9.0, \"output_length\": 7}}\n");
        stamps.iter().map(line).collect()
    }

    #[test]
    fn what_shares_a_stamp_is_spread_evenly_up_to_the_next() {
        let mooncake = spec("m.jsonl", true);
        let of = |stamps: &[&str]| times(&mooncake, &at(stamps)).unwrap();
        // Stamps of milliseconds stay.
        let (found, notes) = of(&["0", "1500", "2900", "2950", "10000", "12500"]);
        assert_eq!((found, notes.as_str()), (vec![0.0, 1.5, 2.9, 2.95, 10.0, 12.5], ""));
        // The last ones go over the median gap, which is 3 s.
        let (found, notes) = of(&["0", "0", "0", "3000", "9000", "9000", "12000", "12000"]);
        assert_eq!(found, [0.0, 1.0, 2.0, 3.0, 9.0, 10.5, 12.0, 13.5]);
        let said = "4 requests share their time stamp with one before them and were moved on, evenly up to the next stamp, \
                    by 2 s at most (spread = false leaves them together)";
        assert_eq!(notes, said);
        // Of two gaps the mean is the median.
        assert_eq!(of(&["0", "1000", "4000", "4000"]).0, [0.0, 1.0, 4.0, 5.0]);
        let (found, notes) = of(&["7", "7"]);
        assert_eq!(
            (found, notes.as_str()),
            (vec![0.007; 2], "all 2 requests have the same time stamp and arrive together")
        );
        let (found, notes) = times(&spec("m.jsonl", false), &at(&["0", "0", "3000"])).unwrap();
        assert_eq!((found, notes.as_str()), (vec![0.0, 0.0, 3.0], ""));
        // Milliseconds since 1970, and fractions of them.
        let (found, notes) = of(&["1700000000000", "1700000000000.5", "1700000001000"]);
        assert_eq!(found, [0.0, 0.0005, 1.0]);
        assert!(notes.contains("count from the first one, which is 1700000000 s in the file"), "{notes}");
        // Half the gaps, of the requests that were moved too.
        let fast = ArrivalSpec::Mooncake {
            path: "m.jsonl".into(),
            rate_scale: 2.0,
            limit: Some(2),
            spread: true,
            block_tokens: 512,
        };
        assert_eq!(times(&fast, &at(&["0", "0", "3000"])).unwrap().0, [0.0, 0.75]);
    }

    #[test]
    fn bailian_counts_seconds_and_chats() {
        let line = |t: f64, of_type: &str, tokens: u32| {
            let hashes: Vec<String> = (0..tokens.div_ceil(16)).map(|h| h.to_string()).collect();
            format!(
                "{{\"chat_id\": 159, \"parent_chat_id\": -1, \"timestamp\": {t}, \"input_length\": {tokens}, \"output_length\": 132, \
                 \"type\": \"{of_type}\", \"turn\": 1, \"hash_ids\": [{}]}}\n",
                hashes.join(", ")
            )
        };
        let text = line(61.114, "text", 521) + &line(61.114, "search", 40) + &line(61.5, "text", 16);
        let bailian = |of_type: Option<&str>| ArrivalSpec::Bailian {
            path: "m.jsonl".into(),
            rate_scale: 1.0,
            limit: None,
            spread: true,
            block_tokens: 16,
            of_type: of_type.map(str::to_string),
        };
        let (found, notes) = times(&bailian(None), &text).unwrap();
        assert_eq!(found, [61.114, 61.307, 61.5]);
        for part in ["whatever the answers before them take", "hash_ids (of block_tokens each)", "1 requests share"] {
            assert!(notes.contains(part), "{notes}");
        }
        assert_eq!(times(&bailian(Some("text")), &text).unwrap().0, [61.114, 61.5]);
        assert_eq!(times(&bailian(Some("search")), &text).unwrap().0, [61.114]);
        let e = failure(times(&bailian(Some("file")), &text));
        assert!(e.contains("has no requests of type \"file\""), "{e}");
        let e = failure(times(&spec("m.jsonl", true), &text));
        assert!(e.contains("line 1: has chat_id") && e.contains("kind = \"bailian\""), "{e}");
        let e = failure(times(&bailian(None), &at(&["0"])));
        assert!(e.contains("line 1: has no chat_id") && e.contains("kind = \"mooncake\""), "{e}");
        let written: ArrivalSpec =
            moesim_core::config::from_toml("kind = \"bailian\"\npath = \"m.jsonl\"\ntype = \"text\"", "e.toml")
                .unwrap();
        assert_eq!(written, bailian(Some("text")));
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
        wrong(&line(5, 512, "1").replace("7", "7.5"), &["7.5 is not a number of tokens"]);
        wrong(&line(5, 512, "\"x\""), &["invalid type", "whole numbers"]);
        wrong(&line(5, 512, "-1"), &["invalid value", "whole numbers"]);
        wrong(&line(5, 512, "1, 2"), &["2 hash_ids", "block_tokens"]);
        wrong(&line(5, 5120, "1"), &["1 hash_ids", "block_tokens"]);
        wrong("{\"timestamp\": -3}", &["missing field"]);
        wrong(
            "{\"timestamp\": -3, \"input_length\": 4, \"output_length\": 4}",
            &["timestamp -3 is outside of the clock"],
        );
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
