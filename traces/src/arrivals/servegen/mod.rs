//! Clients of ServeGen (alibaba/ServeGen; Xiang et al., NSDI 2026): for each client, windows with a rate and a fitted
//! renewal process, and distributions of lengths. They are fits, not a log: requests are drawn from them.
//!
//! * Each client and window is a process of its own, with random streams of its own, going on since before the window. The
//!   file's shape gives the distribution of its gaps, the file's rate their mean: the fitted scale is often far from 1 /
//!   rate where a window has few requests, and ServeGen's generator replaces it too. The file's measured cv is not used:
//!   a Gamma's shape is made of it, but half of deepseek-r1's Weibull fits have a cv that is off by more than 20 %.
//! * ServeGen puts rate x window requests into every window; here their number varies around that.
//! * Lengths are drawn independently of each other, because the files hold no joint distribution; ServeGen's generator draws
//!   both with one uniform number, so that long prompts get long outputs. `reason_ratio` is not used.

mod client;
mod files;

use super::{Request, Requests, out_of_range, rate_scale_in_range};
use client::Client;
use moesim_core::{Diag, Picos, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

pub(super) use files::members;

/// Which part of the day, and how much of it.
pub(super) struct Span {
    pub(super) rate_scale: f64,
    pub(super) from: Picos,
    pub(super) to: Option<Picos>,
}

pub(super) fn open(path: &Path, seed: u64, span: &Span) -> Result<Requests> {
    rate_scale_in_range(span.rate_scale)?;
    let to = span.to.unwrap_or(Picos::MAX);
    if to <= span.from {
        return Err(out_of_range("to", to.to_string(), &format!("a time after `from`, which is {}", span.from)));
    }
    let (clients, unfitted) = files::read(path)?;
    let within =
        |c: Client| c.within(seed, span.from.seconds(), to.seconds(), span.rate_scale).map_err(|d| d.file(path));
    let mut clients = clients.into_iter().map(within).collect::<Result<Vec<_>>>()?;
    let first = |(i, c): (usize, &mut Client)| c.next_arrival().map(|t| Reverse((t, i)));
    let due: BinaryHeap<_> = clients.iter_mut().enumerate().filter_map(first).collect();
    if due.is_empty() {
        return Err(Diag::input("none of its clients sends a request in this span")
            .file(path)
            .place("from, to")
            .cure("choose another span, or a higher rate_scale"));
    }
    let all = Superposed { clients, due, id: 0 };
    Ok(Requests::new(all).noting(move || {
        let mut notes = vec!["prompt and output lengths are drawn independently of each other".to_string()];
        if unfitted > 0 {
            notes.push(format!(
                "{unfitted} windows of the clients have a rate but no fitted process, and were left out"
            ));
        }
        notes
    }))
}

/// All clients, in order of time; at one instant, in order of their numbers.
struct Superposed {
    clients: Vec<Client>,
    due: BinaryHeap<Reverse<(Picos, usize)>>,
    id: u64,
}

impl Iterator for Superposed {
    type Item = Result<Request>;
    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((arrival, i)) = self.due.pop()?;
        let (prompt, output) = self.clients[i].lengths();
        self.due.extend(self.clients[i].next_arrival().map(|t| Reverse((t, i))));
        let id = self.id;
        self.id += 1;
        Some(Ok(Request::new(id, arrival, prompt, output)))
    }
}

#[cfg(test)]
mod tests;
