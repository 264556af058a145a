//! Request arrivals: recorded, drawn, or as fast as the system answers. One file a kind.

mod azure;
mod burstgpt;
mod closed_loop;
mod gaps;
mod length;
mod mooncake;
mod plain;
mod real;
mod renewal;
mod request;
mod request_table;
mod servegen;
mod sessions;
mod stamps;

pub use length::{Length, LengthDistribution};
pub use request::{Blocks, Request, Requests, Turn};
pub use sessions::{Session, Sessions, Turns, TurnsDistribution};

use gaps::Gaps;
use moesim_core::{Diag, Picos, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where requests come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ArrivalSpec {
    /// A trace of Azure's public data set: CSV with TIMESTAMP, ContextTokens, GeneratedTokens. The first row arrives at 0.
    Azure {
        /// The file, relative to the file that names it.
        path: PathBuf,
        /// Rate over the recorded rate: 2 halves the gaps.
        #[serde(default = "one")]
        rate_scale: f64,
        /// Only so many requests.
        #[serde(default)]
        limit: Option<u64>,
    },
    /// A trace of BurstGPT: CSV with Timestamp, Model, Request tokens, Response tokens, Log Type. Requests that failed (0
    /// tokens) are left out; the first of the others arrives at 0. Requests that share a second are spread evenly up to the next
    /// one in the log.
    #[serde(rename = "burstgpt")]
    BurstGpt {
        /// The file, relative to the file that names it.
        path: PathBuf,
        /// Rate over the recorded rate: 2 halves the gaps.
        #[serde(default = "one")]
        rate_scale: f64,
        /// Only so many requests.
        #[serde(default)]
        limit: Option<u64>,
        /// If false, requests with one time stamp arrive together.
        #[serde(default = "yes")]
        spread: bool,
        /// Only requests to this Model: ChatGPT or GPT-4.
        #[serde(default)]
        model: Option<String>,
        /// Only requests of this Log Type: "Conversation log" or "API log".
        #[serde(default)]
        log_type: Option<String>,
    },
    /// CSV with arrived_at_s, prompt_tokens, output_tokens. Times since 1970 count from the first row.
    Csv {
        /// The file, relative to the file that names it.
        path: PathBuf,
        /// Rate over the recorded rate: 2 halves the gaps.
        #[serde(default = "one")]
        rate_scale: f64,
        /// Only so many requests.
        #[serde(default)]
        limit: Option<u64>,
    },
    /// A trace of Mooncake: JSON lines with timestamp (ms), input_length, output_length and hash_ids. Requests that share a stamp
    /// are spread evenly up to the next one.
    Mooncake {
        /// The file, relative to the file that names it.
        path: PathBuf,
        /// Rate over the recorded rate: 2 halves the gaps.
        #[serde(default = "one")]
        rate_scale: f64,
        /// Only so many requests.
        #[serde(default)]
        limit: Option<u64>,
        /// If false, requests with one time stamp arrive together.
        #[serde(default = "yes")]
        spread: bool,
        /// Tokens for which one of the hash_ids stands.
        #[serde(default = "mooncake::block_tokens")]
        block_tokens: u32,
    },
    /// A trace of Alibaba's Bailian: JSON lines with timestamp (s), input_length, output_length, hash_ids, chat_id,
    /// parent_chat_id, type and turn. Requests that share a stamp are spread evenly up to the next one.
    Bailian {
        /// The file, relative to the file that names it.
        path: PathBuf,
        /// Rate over the recorded rate: 2 halves the gaps.
        #[serde(default = "one")]
        rate_scale: f64,
        /// Only so many requests.
        #[serde(default)]
        limit: Option<u64>,
        /// If false, requests with one time stamp arrive together.
        #[serde(default = "yes")]
        spread: bool,
        /// Tokens for which one of the hash_ids stands.
        #[serde(default = "mooncake::bailian_block_tokens")]
        block_tokens: u32,
        /// Only requests of this type: text, search, image or file.
        #[serde(default, rename = "type")]
        of_type: Option<String>,
    },
    /// Requests drawn from ServeGen's clients, whose windows have a rate, a fitted Gamma or Weibull process and tables of
    /// lengths: chunk-N-trace.csv and chunk-N-dataset.json.
    #[serde(rename = "servegen")]
    ServeGen {
        /// The folder of these files, or a tar archive (plain or gzip), relative to the file that names it.
        path: PathBuf,
        /// Rate over the clients' rate; windows stay as long as they are.
        #[serde(default = "one")]
        rate_scale: f64,
        /// Only so many requests.
        #[serde(default)]
        limit: Option<u64>,
        /// Where in the day to begin: time 0 of the run.
        #[serde(default)]
        from: Picos,
        /// Where in the day to end; without it, at the end of the last window.
        #[serde(default)]
        to: Option<Picos>,
    },
    /// Independent arrivals at a mean rate.
    Poisson {
        /// Requests a second.
        rate_per_s: f64,
        /// How many.
        requests: u64,
        /// Prompt lengths.
        prompt_tokens: Length,
        /// Output lengths.
        output_tokens: Length,
    },
    /// Independent gaps with a Gamma distribution.
    Gamma {
        /// Requests a second.
        rate_per_s: f64,
        /// Standard deviation of a gap over its mean: 1 is a Poisson process, more comes in bursts; 0.01 to 10.
        cv: f64,
        /// How many.
        requests: u64,
        /// Prompt lengths.
        prompt_tokens: Length,
        /// Output lengths.
        output_tokens: Length,
    },
    /// Independent gaps with a Weibull distribution.
    Weibull {
        /// Requests a second.
        rate_per_s: f64,
        /// Standard deviation of a gap over its mean: 1 is a Poisson process, more comes in bursts; 0.01 to 10.
        cv: f64,
        /// How many.
        requests: u64,
        /// Prompt lengths.
        prompt_tokens: Length,
        /// Output lengths.
        output_tokens: Length,
    },
    /// So many users, each of whom sends a request, waits for the answer, thinks, and sends the next.
    ClosedLoop {
        /// Users.
        concurrency: u32,
        /// How many requests, all users together.
        requests: u64,
        /// From an answer to the next request.
        #[serde(default)]
        think_time: Picos,
        /// Prompt lengths.
        prompt_tokens: Length,
        /// Output lengths.
        output_tokens: Length,
    },
    /// Users who come, hold a session of several turns, and leave. A turn's prompt is the history (all earlier prompts and
    /// answers) and something new; it is sent when its user has read the answer and thought.
    Sessions {
        /// Sessions that begin, a second.
        sessions_per_s: f64,
        /// Coefficient of variation of the gaps between them (a Gamma process): 1 is a Poisson process; 0.01 to 10.
        #[serde(default = "one")]
        cv: f64,
        /// How many sessions.
        sessions: u64,
        /// Turns of a session.
        turns: Turns,
        /// Mean time from the end of an answer to the next turn, which is exponential.
        #[serde(default)]
        think_time: Picos,
        /// New prompt tokens of a turn.
        prompt_tokens: Length,
        /// Output lengths.
        output_tokens: Length,
    },
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

/// An opened source of requests.
pub enum Arrivals {
    /// Requests arrive at their own times, ascending.
    Open(Requests),
    /// A request arrives when a user is free.
    Closed {
        /// Users.
        concurrency: u32,
        /// From an answer to the same user's next request.
        think: Picos,
        /// The requests in order.
        requests: Requests,
    },
    /// Sessions arrive at their own times, ascending; their turns follow the answers.
    Sessions(Sessions),
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Open(_) => f.write_str("Open"),
            Self::Sessions(_) => f.write_str("Sessions"),
            Self::Closed { concurrency, think, .. } => write!(f, "Closed {{ {concurrency} users, think {think} }}"),
        }
    }
}

/// No model takes or gives more tokens.
const TOKENS: u32 = 16 << 20;

impl ArrivalSpec {
    /// Opens the source. Files are streamed; relative paths start at `base_dir`. Draws depend on `seed` only.
    ///
    /// # Errors
    /// A key out of range, or a file that cannot be read or is not what its kind says.
    pub fn open(&self, seed: u64, base_dir: &Path) -> Result<Arrivals> {
        let base = |path: &PathBuf| base_dir.join(path);
        let recorded = |requests: Requests, limit: Option<u64>| match limit {
            Some(0) => Err(out_of_range("limit", "0".into(), "at least 1, or leave it out")),
            _ => Ok(Arrivals::Open(requests.limited(limit))),
        };
        let drawn = |gaps: Gaps, rate: f64, requests: u64, prompt: &Length, output: &Length| {
            let lengths = length::Lengths::new(seed, prompt, output, requests)?;
            Ok(Arrivals::Open(Requests::new(renewal::open(seed, gaps, rate, lengths)?)))
        };
        match self {
            Self::Azure { path, rate_scale, limit } => recorded(azure::open(&base(path), *rate_scale)?, *limit),
            Self::BurstGpt { path, rate_scale, limit, spread, model, log_type } => {
                let only = burstgpt::Only { model: model.as_deref(), log_type: log_type.as_deref() };
                recorded(burstgpt::open(&base(path), *rate_scale, *spread, &only)?, *limit)
            }
            Self::Csv { path, rate_scale, limit } => recorded(plain::open(&base(path), *rate_scale)?, *limit),
            Self::Mooncake { path, rate_scale, limit, spread, block_tokens } => {
                let clock = stamps::Clock { from_first: false, spread: *spread, rate_scale: *rate_scale };
                recorded(mooncake::open(&base(path), clock, mooncake::Form::mooncake(*block_tokens))?, *limit)
            }
            Self::Bailian { path, rate_scale, limit, spread, block_tokens, of_type } => {
                let clock = stamps::Clock { from_first: false, spread: *spread, rate_scale: *rate_scale };
                let form = mooncake::Form::bailian(*block_tokens, of_type.clone());
                recorded(mooncake::open(&base(path), clock, form)?, *limit)
            }
            Self::ServeGen { path, rate_scale, limit, from, to } => {
                let span = servegen::Span { rate_scale: *rate_scale, from: *from, to: *to };
                recorded(servegen::open(&base(path), seed, &span)?, *limit)
            }
            Self::Poisson { rate_per_s, requests, prompt_tokens, output_tokens } => {
                drawn(Gaps::Exponential, *rate_per_s, *requests, prompt_tokens, output_tokens)
            }
            Self::Gamma { rate_per_s, cv, requests, prompt_tokens, output_tokens } => {
                drawn(Gaps::gamma_of(*cv)?, *rate_per_s, *requests, prompt_tokens, output_tokens)
            }
            Self::Weibull { rate_per_s, cv, requests, prompt_tokens, output_tokens } => {
                drawn(Gaps::weibull_of(*cv)?, *rate_per_s, *requests, prompt_tokens, output_tokens)
            }
            Self::ClosedLoop { concurrency, requests, think_time, prompt_tokens, output_tokens } => {
                let lengths = length::Lengths::new(seed, prompt_tokens, output_tokens, *requests)?;
                closed_loop::open(*concurrency, *think_time, lengths)
            }
            Self::Sessions { sessions_per_s, cv, sessions, turns, think_time, prompt_tokens, output_tokens } => {
                let (prompt, output) = (prompt_tokens.check("prompt_tokens")?, output_tokens.check("output_tokens")?);
                let kind = sessions::Kind { turns: *turns, think: *think_time, prompt, output };
                Ok(Arrivals::Sessions(Sessions::new(seed, *sessions_per_s, *cv, *sessions, kind)?))
            }
        }
    }

    /// The files that it reads, in a fixed order.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn files(&self, base_dir: &Path) -> Result<Vec<PathBuf>> {
        let mut copy = self.clone();
        match (self, copy.path_mut()) {
            (Self::ServeGen { .. }, Some(path)) => servegen::members(&base_dir.join(path)),
            (_, path) => Ok(path.map(|p| base_dir.join(p)).into_iter().collect()),
        }
    }

    /// The file or folder that it reads, as the user named it.
    pub fn path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Azure { path, .. }
            | Self::BurstGpt { path, .. }
            | Self::Csv { path, .. }
            | Self::Mooncake { path, .. }
            | Self::Bailian { path, .. }
            | Self::ServeGen { path, .. } => Some(path),
            Self::Poisson { .. }
            | Self::Gamma { .. }
            | Self::Weibull { .. }
            | Self::ClosedLoop { .. }
            | Self::Sessions { .. } => None,
        }
    }
}

fn rate_scale_in_range(rate_scale: f64) -> Result<()> {
    match (1e-6..=1e6).contains(&rate_scale) {
        true => Ok(()),
        false => Err(out_of_range("rate_scale", rate_scale.to_string(), "from 1e-6 to 1e6")),
    }
}

/// Picoseconds of a recorded time at `rate_scale` times the recorded rate; unscaled times are exact.
fn scaled(since: i128, rate_scale: f64) -> i128 {
    if rate_scale == 1.0 { since } else { (since as f64 / rate_scale).round() as i128 }
}

fn out_of_range(place: &str, problem: String, rule: &str) -> Diag {
    Diag::input(format!("{problem} is out of range")).place(place).cure(format!("give {rule}"))
}

#[cfg(test)]
mod tests;
