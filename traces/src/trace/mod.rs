//! Expert-selection traces: which experts the router chose, row by row (a row is one token of one sequence).
//!
//! * [`Trace`]: a trace, mapped from a file or built in memory; a sequence is found in O(1), without decoding.
//! * [`Writer`]: writes the container, one record batch in memory at a time.
//! * [`Meta`], [`Sequence`], [`OwnedSequence`]: what is in it.
//!
//! The container is an Arrow IPC file that any Arrow reader opens: columns `sequence` u32, `phase` u8 (0 prefill, 1 decode),
//! `position` u32, `experts` `FixedSizeList<u16>[MoE layers x k]` (layer by layer, in gate order, 0xFFFF for missing, no other id twice
//! in a layer of a row) and,
//! optionally, `weights` `FixedSizeList<f32>` of the same length. Rows are sorted by sequence, phase and position; positions
//! within a phase are consecutive; no sequence straddles a record batch; no compression, no nulls, buffers aligned to 64 bytes.
//! The schema's metadata has `moesim.format` ("1"), `moesim.model`, `moesim.layers` ("3,4,5"), `moesim.experts`, `moesim.k`,
//! `moesim.source`, `moesim.licence`; the footer's has `moesim.hash`.

mod hash;
mod index;
mod ipc;
mod meta;
mod read;
mod write;

pub(crate) use meta::LAYERS;
pub use meta::{MISSING, Meta, OwnedSequence};
pub(crate) use read::check_rows;
pub use read::{Sequence, Trace};
pub use write::{Summary, Writer};

#[cfg(test)]
mod tests;
