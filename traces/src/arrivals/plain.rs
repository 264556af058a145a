//! CSV with arrived_at_s, prompt_tokens, output_tokens.

use super::Requests;
use super::request_table::{Layout, RequestTable, seconds};
use super::stamps::{Clock, requests};
use moesim_core::Result;
use std::path::Path;

pub(super) fn open(path: &Path, rate_scale: f64) -> Result<Requests> {
    let layout = Layout {
        names: ["arrived_at_s", "prompt_tokens", "output_tokens"],
        clock: |text| {
            seconds(text).ok_or("give seconds since the start, from 0 to 213 days, as in 12.5, or since 1970")
        },
        only: Vec::new(),
        failures: false,
    };
    requests(path, RequestTable::open(path, layout)?, Clock { from_first: false, spread: false, rate_scale })
}
