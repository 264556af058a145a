//! Transfers of a collective, one by one.

use moesim_hwmodels::network::Transfer;

/// Writes transfers one after the other, those that stay on their device left out without a branch.
pub(super) struct Crossing<'a> {
    transfers: &'a mut Vec<Transfer>,
    len: usize,
    bytes: u64,
}

impl<'a> Crossing<'a> {
    /// Instead of what is in `transfers`, at most `most` others.
    pub(super) fn new(transfers: &'a mut Vec<Transfer>, most: usize) -> Self {
        transfers.resize(most, Transfer { src: 0, dst: 0, bytes: 0 });
        Self { transfers, len: 0, bytes: 0 }
    }
    #[inline]
    pub(super) fn push(&mut self, src: u32, dst: u32, bytes: u64) {
        self.transfers[self.len] = Transfer { src, dst, bytes };
        self.len += usize::from(src != dst);
        self.bytes += u64::from(src != dst) * bytes;
    }
    /// Bytes of all of them.
    pub(super) fn end(self) -> u64 {
        self.transfers.truncate(self.len);
        self.bytes
    }
}
