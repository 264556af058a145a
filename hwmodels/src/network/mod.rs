//! The time of a phase: a set of transfers that start together and end when the last one does.
//!
//! [`Bottleneck`] is the fastest of the fidelities: a lower bound, exact when a most loaded link never idles during the
//! phase.

mod bottleneck;
mod ring;

pub use bottleneck::Bottleneck;
pub use ring::Ring;

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
