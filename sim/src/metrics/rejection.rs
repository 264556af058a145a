//! Requests that can never be served, and why.

use moesim_core::Bytes;
use moesim_traces::arrivals::Request;
use serde::Serialize;

/// What a request needs more of than there can ever be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Bytes of KV cache on a device.
    KvCache,
    /// Positions beyond the model's context.
    Context,
}

impl Reason {
    /// What to do about it.
    pub const fn cure(self) -> &'static str {
        match self {
            Self::KvCache => {
                "use devices with more memory, more tensor parallelism, narrower weights or keys and values, fewer cached experts \
                 (policy.execution.cache_fraction), or shorter requests"
            }
            Self::Context => "use shorter requests, or a model whose `context` is longer",
        }
    }
}

/// Requests that were rejected for one reason, with the figures of the first of them.
#[derive(Clone, Debug, Serialize)]
pub struct Rejection {
    /// The reason.
    pub reason: Reason,
    /// How many.
    pub count: u64,
    /// Number of the first one.
    pub request: u64,
    /// Its prompt tokens.
    pub prompt_tokens: u32,
    /// Its output tokens.
    pub output_tokens: u32,
    /// What it needs, in the reason's unit.
    pub needed: u64,
    /// What there is at most.
    pub limit: u64,
    /// What lacks.
    pub missing: u64,
    /// The reason's unit.
    pub unit: &'static str,
}

impl Rejection {
    /// Counts a request in `all`.
    pub(crate) fn count(all: &mut Vec<Self>, reason: Reason, request: &Request, needed: u64, limit: u64) {
        if let Some(known) = all.iter_mut().find(|r| r.reason == reason) {
            known.count += 1;
            return;
        }
        let unit = match reason {
            Reason::KvCache => "bytes",
            Reason::Context => "tokens",
        };
        all.push(Self {
            reason,
            count: 1,
            request: request.id,
            prompt_tokens: request.prompt_tokens,
            output_tokens: request.output_tokens,
            needed,
            limit,
            missing: needed.saturating_sub(limit),
            unit,
        });
    }

    /// A sentence.
    pub fn text(&self) -> String {
        let first = format!(
            "{} rejected, the first (number {}) of {} prompt and {} output tokens",
            self.count, self.request, self.prompt_tokens, self.output_tokens
        );
        match self.reason {
            Reason::KvCache => format!(
                "{first} needs {:.3} GiB of KV cache a device of which {:.3} GiB are there: {} bytes are missing",
                Bytes(self.needed).gib(),
                Bytes(self.limit).gib(),
                self.missing
            ),
            Reason::Context => format!("{first} has {} tokens, and the model's context is {}", self.needed, self.limit),
        }
    }
}
