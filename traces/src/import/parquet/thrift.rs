//! Structures in Thrift's compact protocol (thrift/doc/specs/thrift-compact-protocol.md), walked over before the decoder
//! reads them. It believes the length of a list, and elements may take it no byte: a few bytes keep it busy for hours.

/// The lists of Parquet's structures have integers, strings and structures (parquet.thrift); each takes at least a byte.
const ELEMENTS: [u8; 7] = [BYTE, I16, I32, I64, BINARY, LIST, STRUCT];
const BOOLEAN: u8 = 1;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;
/// Structures and lists in each other; Parquet's are some ten deep.
const DEPTH: u8 = 32;

/// Fields that the decoder knows: (id, kind, what it knows of a structure in it). It reads them as of this kind, whatever
/// kind the bytes say, and would find lists where none were walked over.
pub(super) type Known = &'static [Field];
/// See [`Known`]; a structure of which nothing is said has no fields here.
pub(super) struct Field(i64, u8, Known);

/// `PageHeader` and what is in it (parquet.thrift).
pub(super) const PAGE_HEADER: Known = &[
    Field(1, I32, &[]),
    Field(2, I32, &[]),
    Field(3, I32, &[]),
    Field(4, I32, &[]),
    Field(5, STRUCT, DATA_PAGE),
    Field(6, STRUCT, &[]),
    Field(7, STRUCT, DICTIONARY_PAGE),
    Field(8, STRUCT, DATA_PAGE_V2),
];
const DATA_PAGE: Known =
    &[Field(1, I32, &[]), Field(2, I32, &[]), Field(3, I32, &[]), Field(4, I32, &[]), Field(5, STRUCT, STATISTICS)];
const DICTIONARY_PAGE: Known = &[Field(1, I32, &[]), Field(2, I32, &[]), Field(3, BOOLEAN, &[])];
const DATA_PAGE_V2: Known = &[
    Field(1, I32, &[]),
    Field(2, I32, &[]),
    Field(3, I32, &[]),
    Field(4, I32, &[]),
    Field(5, I32, &[]),
    Field(6, I32, &[]),
    Field(7, BOOLEAN, &[]),
    Field(8, STRUCT, STATISTICS),
];
const STATISTICS: Known = &[
    Field(1, BINARY, &[]),
    Field(2, BINARY, &[]),
    Field(3, I64, &[]),
    Field(4, I64, &[]),
    Field(5, BINARY, &[]),
    Field(6, BINARY, &[]),
    Field(7, BOOLEAN, &[]),
    Field(8, BOOLEAN, &[]),
];

/// The integer in a field of the structure that `bytes` begin with, `Some(None)` if it has no such field. `None`: the
/// structure is not whole, has what no structure of Parquet has, or a field of another kind than is `known`.
pub(super) fn field(bytes: &[u8], id: i64, known: Known) -> Option<Option<i64>> {
    let mut found = None;
    Walk { rest: bytes }.structure(DEPTH, known, &mut |i, value| {
        if i == id {
            found = Some(value);
        }
    })?;
    Some(found)
}

struct Walk<'a> {
    rest: &'a [u8],
}

impl Walk<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }
    fn skip(&mut self, n: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(n).ok()?..)?;
        Some(())
    }
    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    /// Odd numbers are negative.
    fn zigzag(&mut self) -> Option<i64> {
        self.number().map(|n| (n >> 1) as i64 ^ -((n & 1) as i64))
    }
    /// Gives the integers of the structure itself, by field, to `each`.
    fn structure(&mut self, depth: u8, known: Known, each: &mut dyn FnMut(i64, i64)) -> Option<()> {
        let mut id = 0;
        loop {
            let head = self.byte()?;
            let (delta, kind) = (i64::from(head >> 4), head & 0xf);
            if kind == 0 {
                return Some(());
            }
            id = if delta == 0 { self.zigzag()? } else { id + delta };
            // False is 2.
            let kind = if kind == 2 { BOOLEAN } else { kind };
            let of = known.iter().find(|f| f.0 == id);
            if of.is_some_and(|f| f.1 != kind) {
                return None;
            }
            if let Some(value) = self.value(kind, depth, of.map_or(&[], |f| f.2))? {
                each(id, value);
            }
        }
    }
    /// A value; what it is, if it is an integer.
    fn value(&mut self, kind: u8, depth: u8, known: Known) -> Option<Option<i64>> {
        let depth = depth.checked_sub(1)?;
        match kind {
            // Booleans are in the head of their field.
            BOOLEAN => {}
            BYTE => self.skip(1)?,
            I16 | I32 | I64 => return self.zigzag().map(Some),
            // Floating point, 64 bits.
            7 => self.skip(8)?,
            BINARY => {
                let length = self.number()?;
                self.skip(length)?;
            }
            LIST => {
                let head = self.byte()?;
                let size = if head >> 4 == 15 { self.number()? } else { u64::from(head >> 4) };
                let element = head & 0xf;
                if size > self.rest.len() as u64 || (size > 0 && !ELEMENTS.contains(&element)) {
                    return None;
                }
                for _ in 0..size {
                    self.value(element, depth, &[])?;
                }
            }
            STRUCT => self.structure(depth, known, &mut |_, _| {})?,
            _ => return None,
        }
        Some(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_structure() {
        // 1: 2; 2: -3; 5: a list of the strings "a" and ""; 21, by its whole number: {1: true}; 22: 300.
        let good = [&[0x15, 4, 0x15, 5, 0x39, 0x28, 1, b'a', 0][..], &[0x0c, 42, 0x11, 0, 0x16, 0xd8, 4, 0]].concat();
        let of = |id| field(&good, id, &[]);
        assert_eq!([1, 2, 5, 21, 22].map(of), [Some(Some(2)), Some(Some(-3)), Some(None), Some(None), Some(Some(300))]);
        for end in 0..good.len() {
            assert_eq!(field(&good[..end], 1, &[]), None, "{end}");
        }
    }

    /// Field 5 of a page's header is a structure: as a string of as many bytes the decoder would read it so all the same.
    #[test]
    fn known_fields_are_of_their_kind() {
        let header = |kind: u8, inner: &[u8]| [&[0x15, 0, 0x15, 8, 0x15, 8, 0x20 | kind][..], inner, &[0]].concat();
        let data = [0x15, 4, 0x15, 0, 0x15, 6, 0x15, 6, 0];
        assert_eq!(field(&header(STRUCT, &data), 2, PAGE_HEADER), Some(Some(4)));
        assert_eq!(field(&header(BINARY, &[&[9][..], &data].concat()), 2, PAGE_HEADER), None);
        assert_eq!(field(&header(BINARY, &[&[9][..], &data].concat()), 2, &[]), Some(Some(4)));
        // So it is with the fields of that structure.
        assert_eq!(field(&header(STRUCT, &[0x18, 1, 7, 0]), 2, PAGE_HEADER), None);
        // Both kinds of booleans, in a dictionary's.
        for is_sorted in [0x11, 0x12] {
            let header = [0x15, 4, 0x15, 8, 0x15, 8, 0x4c, 0x15, 2, 0x15, 0, is_sorted, 0, 0];
            assert_eq!(field(&header, 2, PAGE_HEADER), Some(Some(4)));
        }
    }

    #[test]
    fn what_no_structure_of_parquet_has() {
        let none = |bytes: &[u8]| assert_eq!(field(&[bytes, &[0; 64]].concat(), 1, &[]), None);
        // Lists of 2^31 - 1 booleans and of as many integers, of three doubles; a map; a string of 2^63 bytes.
        none(&[0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 7]);
        none(&[0x19, 0xf5, 0xff, 0xff, 0xff, 0xff, 7]);
        none(&[0x19, 0x37]);
        none(&[0x1b, 0]);
        none(&[0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]);
        none(&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        none(&[0x1c; 64]);
        none(&[0x19; 64]);
    }
}
