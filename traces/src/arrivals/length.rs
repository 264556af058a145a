//! Drawn token counts.

use super::{Request, TOKENS, out_of_range};
use moesim_core::rng::{Stream, below, stream};
use moesim_core::{Picos, Result};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number of tokens: constant, or uniform in mean x (1 - spread) .. mean x (1 + spread), at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Length {
    /// The mean.
    pub mean: u32,
    /// Half the width of the range over the mean: 0 (constant) to 1.
    #[serde(default)]
    pub spread: f64,
}

impl Length {
    pub(super) fn check(self, place: &str) -> Result<()> {
        if !(1..=TOKENS).contains(&self.mean) {
            return Err(out_of_range(&format!("{place}.mean"), self.mean.to_string(), "from 1 to 16777216 tokens"));
        }
        if !(0.0..=1.0).contains(&self.spread) {
            return Err(out_of_range(&format!("{place}.spread"), self.spread.to_string(), "from 0 (constant) to 1"));
        }
        Ok(())
    }
    pub(super) fn draw(self, r: &mut Stream) -> u32 {
        let half = (f64::from(self.mean) * self.spread) as u32;
        let low = (self.mean - half).max(1);
        let high = (self.mean + half).min(TOKENS);
        low + below(r.next_u64(), u64::from(high - low) + 1) as u32
    }
}

/// Requests with drawn lengths and no arrival yet.
pub(super) struct Lengths {
    prompt: Length,
    output: Length,
    stream: Stream,
    next: u64,
    requests: u64,
}

impl Lengths {
    pub(super) fn new(seed: u64, prompt: Length, output: Length, requests: u64) -> Result<Self> {
        prompt.check("prompt_tokens")?;
        output.check("output_tokens")?;
        if requests == 0 {
            return Err(out_of_range("requests", "0".into(), "at least 1"));
        }
        Ok(Self { prompt, output, stream: stream(seed, "arrivals", 1), next: 0, requests })
    }
}

impl Iterator for Lengths {
    type Item = Request;
    fn next(&mut self) -> Option<Request> {
        let id = self.next;
        self.next += 1;
        (id < self.requests).then(|| {
            let prompt = self.prompt.draw(&mut self.stream);
            Request::new(id, Picos::ZERO, prompt, self.output.draw(&mut self.stream))
        })
    }
}
