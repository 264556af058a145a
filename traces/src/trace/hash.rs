//! The hash of a trace's rows, the same however they are batched.

use super::Sequence;

/// BLAKE3 over the sequences: (id, first position, prefill selections, decode first position, decode selections) as
/// little-endian u64, then the ids and the gate weights, little-endian.
pub(super) struct RowHasher {
    inner: blake3::Hasher,
    bytes: Vec<u8>,
}

impl RowHasher {
    pub(super) fn new() -> Self {
        Self { inner: blake3::Hasher::new(), bytes: Vec::new() }
    }
    pub(super) fn push(&mut self, s: &Sequence) {
        let first = if s.prefill.is_empty() { 0 } else { s.first_position };
        let decode_first = if s.decode.is_empty() { 0 } else { s.decode_first_position };
        let head = [s.id.into(), first.into(), s.prefill.len() as u64, decode_first.into(), s.decode.len() as u64];
        self.update(&head, |x: &u64| x.to_le_bytes());
        self.update(s.prefill, |x| x.to_le_bytes());
        self.update(s.decode, |x| x.to_le_bytes());
        self.update(s.prefill_weights.unwrap_or_default(), |x| x.to_le_bytes());
        self.update(s.decode_weights.unwrap_or_default(), |x| x.to_le_bytes());
    }
    fn update<T, const N: usize>(&mut self, values: &[T], bytes: impl Fn(&T) -> [u8; N]) {
        for part in values.chunks(8192) {
            self.bytes.clear();
            self.bytes.extend(part.iter().flat_map(&bytes));
            self.inner.update(&self.bytes);
        }
    }
    /// 16 hexadecimal digits, as the hashes of all other inputs.
    pub(super) fn finish(&self) -> String {
        self.inner.finalize().to_hex()[..16].to_string()
    }
}
