//! CSV with arrived_at_s, prompt_tokens, output_tokens.

use super::table::{Layout, Table};
use moesim_core::Diag;
use std::path::Path;

pub(super) fn open(path: &Path, rate_scale: f64) -> Result<Table, Diag> {
    let layout = Layout {
        names: ["arrived_at_s", "prompt_tokens", "output_tokens"],
        clock: seconds,
        from_first: false,
        only: Vec::new(),
        failures: false,
    };
    Table::open(path, layout, rate_scale)
}

fn seconds(text: &str) -> Result<i128, &'static str> {
    let rule = "give seconds since the start, from 0 to 213 days, as in 12.5";
    let seconds: f64 = text.parse().map_err(|_| rule)?;
    if (0.0..1.8e7).contains(&seconds) { Ok((seconds * 1e12).round() as i128) } else { Err(rule) }
}
