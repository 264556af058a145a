//! Elements of arrays in other tools' files: little-endian numbers.

use crate::trace::MISSING;

/// How the bytes of an element are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unsigned,
    Signed,
    /// IEEE 754, of 4 or 8 bytes.
    Float,
    /// bfloat16: the upper half of a 4-byte float.
    Brain,
}

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) kind: Kind,
    pub(crate) bytes: usize,
}

impl Element {
    pub(crate) const fn new(kind: Kind, bytes: usize) -> Self {
        Self { kind, bytes }
    }
    pub(crate) fn is_integer(self) -> bool {
        matches!(self.kind, Kind::Unsigned | Kind::Signed)
    }
    /// The element in `raw`, which has its length, as an integer.
    pub(crate) fn integer(self, raw: &[u8]) -> i128 {
        let mut wide = [0u8; 8];
        wide[..self.bytes].copy_from_slice(raw);
        let (value, unused) = (u64::from_le_bytes(wide), 64 - 8 * self.bytes as u32);
        if self.kind == Kind::Signed { i128::from((value << unused) as i64 >> unused) } else { i128::from(value) }
    }
    /// The element in `raw`, which has its length. Integers beyond 2^53 are rounded.
    pub(crate) fn number(self, raw: &[u8]) -> f64 {
        match (self.kind, raw) {
            (Kind::Float, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
            (Kind::Float, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
            (Kind::Brain, &[a, b]) => f32::from_le_bytes([0, 0, a, b]).into(),
            _ => self.integer(raw) as f64,
        }
    }
    /// Decodes the integers `bytes` as expert ids onto `ids`; -1 is missing. An error is (index, value) of the first that
    /// is none.
    pub(crate) fn ids(self, bytes: &[u8], ids: &mut Vec<u16>) -> std::result::Result<(), (usize, i128)> {
        if self == Self::new(Kind::Unsigned, 1) {
            ids.extend(bytes.iter().map(|b| u16::from(*b)));
            return Ok(());
        }
        for (i, raw) in bytes.chunks_exact(self.bytes).enumerate() {
            let value = self.integer(raw);
            ids.push(if value == -1 { MISSING } else { u16::try_from(value).map_err(|_| (i, value))? });
        }
        Ok(())
    }
}
