//! Request arrivals: recorded, drawn, or as fast as the system answers. One file a kind.

mod azure;
mod closed_loop;
mod length;
mod plain;
mod poisson;
mod table;

pub use length::Length;

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
    /// CSV with arrived_at_s, prompt_tokens, output_tokens.
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
}

fn one() -> f64 {
    1.0
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number, from 0 in order of arrival.
    pub id: u64,
    /// When it arrives; 0 in a closed loop, where the simulation decides.
    pub arrival: Picos,
    /// Prompt tokens, at least 1.
    pub prompt_tokens: u32,
    /// Output tokens, at least 1.
    pub output_tokens: u32,
}

/// Requests one after the other; an error is the last item.
pub type Requests = Box<dyn Iterator<Item = Result<Request>> + Send>;

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
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Open(_) => f.write_str("Open"),
            Self::Closed { concurrency, think, .. } => write!(f, "Closed {{ {concurrency} users, think {think} }}"),
        }
    }
}

/// No model takes or gives more tokens.
const TOKENS: u32 = 16 << 20;

impl ArrivalSpec {
    /// Opens the source. Files are streamed; relative paths start at `base_dir`. Draws depend on `seed` only.
    pub fn open(&self, seed: u64, base_dir: &Path) -> Result<Arrivals> {
        if let Self::Azure { limit: Some(0), .. } | Self::Csv { limit: Some(0), .. } = self {
            return Err(out_of_range("limit", "0".into(), "at least 1, or leave it out"));
        }
        let limit = |l: &Option<u64>| usize::try_from(l.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        match self {
            Self::Azure { path, rate_scale, limit: l } => {
                Ok(Arrivals::Open(Box::new(azure::open(&base_dir.join(path), *rate_scale)?.take(limit(l)))))
            }
            Self::Csv { path, rate_scale, limit: l } => {
                Ok(Arrivals::Open(Box::new(plain::open(&base_dir.join(path), *rate_scale)?.take(limit(l)))))
            }
            Self::Poisson { rate_per_s, requests, prompt_tokens, output_tokens } => {
                let lengths = length::Lengths::new(seed, *prompt_tokens, *output_tokens, *requests)?;
                Ok(Arrivals::Open(Box::new(poisson::open(seed, *rate_per_s, lengths)?)))
            }
            Self::ClosedLoop { concurrency, requests, think_time, prompt_tokens, output_tokens } => {
                let lengths = length::Lengths::new(seed, *prompt_tokens, *output_tokens, *requests)?;
                closed_loop::open(*concurrency, *think_time, lengths)
            }
        }
    }
}

fn out_of_range(place: &str, problem: String, rule: &str) -> Diag {
    Diag::input(format!("{problem} is out of range")).place(place).cure(format!("give {rule}"))
}

#[cfg(test)]
mod tests;
