//! The time of a phase: a set of transfers that start together and end when the last one does.
//!
//! Three fidelities: [`Bottleneck`] is the fastest, a lower bound, exact when a most loaded link never idles during the
//! phase; [`Flow`] shares links max-min fairly, event by event; in [`Reserve`] a transfer has all links of its path to
//! itself. What holds for transfers that start together: neither of the two is below the bound, and no transfer ends
//! before its bytes over its slowest link and its latency. Which of the two is longer depends on the transfers.

mod bottleneck;
mod collective;
mod flow;
mod lines;
mod reserve;
mod ring;
mod sums;
mod tree;

pub use bottleneck::Bottleneck;
pub use collective::{Collective, Effort, Relay};
pub use flow::Flow;
pub use reserve::Reserve;
pub use ring::Ring;
pub use sums::{Links, Sums, Way};

use crate::topology::Topology;
use moesim_core::Picos;
use std::sync::Arc;

/// How long transfers take, in one fidelity. Devices of transfers are below [`Topology::devices`]; `link_bytes`, if
/// given, has an entry a link, to which the link's bytes are added.
pub trait TransferModel: Send + std::fmt::Debug {
    /// The topology that transfers run on.
    fn topology(&self) -> &Arc<Topology>;
    /// The time of transfers that start together, to the end of the last.
    fn phase(&mut self, transfers: &[Transfer], link_bytes: Option<&mut [u64]>) -> Phase;
    /// When each of the transfers ends, into `ends` in the same order; one that takes no part ends as it starts.
    fn schedule(&mut self, transfers: &[Timed], ends: &mut Vec<Picos>, link_bytes: Option<&mut [u64]>);
}

/// A transfer with its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timed {
    /// When it is ready to start.
    pub start: Picos,
    /// The highest goes first, where transfers wait for each other.
    pub priority: u8,
    /// The transfer.
    pub transfer: Transfer,
}

/// Whether a transfer takes part.
fn real(t: &Transfer) -> bool {
    t.bytes > 0 && t.src != t.dst
}

/// Picoseconds, rounded up; up to a part in 10^12 is taken for the noise of arithmetic.
fn up(ps: f64) -> u64 {
    (ps * (1.0 - 1e-12)).ceil() as u64
}

/// Bytes from one device to another. Those with no bytes, or within one device, take no part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// The sending device.
    pub src: u32,
    /// The receiving device.
    pub dst: u32,
    /// Payload; the sum over a phase is below 2^63.
    pub bytes: u64,
}

/// How long a phase takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phase {
    /// Seconds; zero if nothing was sent.
    pub time_s: f64,
    /// The id of the link that binds: the most loaded one, or the slowest on the path of the slowest transfer.
    pub link: Option<u32>,
}
