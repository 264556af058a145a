//! The numpy array format (NEP 1): a header that is a Python dictionary, then the elements in C order.

use crate::trace::MISSING;
use moesim_core::{Diag, Result};
use std::io::Read;

/// Headers are about 100 bytes; the format allows 4 GiB.
const HEADER: usize = 64 << 10;

/// The header of an array.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    pub(super) element: Element,
    pub(super) shape: Vec<u64>,
    /// Its own length in the file.
    pub(super) bytes: u64,
}

/// An integer element type, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) bytes: usize,
    signed: bool,
}

fn wrong(problem: impl Into<String>) -> Diag {
    Diag::input(problem).place("header").cure("save a C-ordered integer array with numpy.save or numpy.savez")
}

impl Header {
    /// Reads the header and leaves `r` at the first element.
    pub(super) fn read(r: &mut impl Read) -> Result<Self> {
        let mut start = [0u8; 8];
        r.read_exact(&mut start).map_err(|_| wrong("is not a numpy array"))?;
        if &start[..6] != b"\x93NUMPY" {
            return Err(wrong("is not a numpy array"));
        }
        let mut length = [0u8; 4];
        let width = if start[6] == 1 { 2 } else { 4 };
        r.read_exact(&mut length[..width]).map_err(|_| wrong("has a truncated header"))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > HEADER {
            return Err(wrong(format!("declares a header of {length} bytes")));
        }
        let mut text = vec![0; length];
        r.read_exact(&mut text).map_err(|_| wrong("has a truncated header"))?;
        let text = String::from_utf8_lossy(&text);
        let after =
            |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start().trim_start_matches(':').trim_start());
        let descr = after("'descr'").and_then(|t| t.strip_prefix('\'')?.split('\'').next());
        let descr = descr.ok_or_else(|| wrong("has no plain element type"))?;
        let element = Element::parse(descr)
            .ok_or_else(|| wrong(format!("has elements of type \"{descr:.20}\", not integers")))?;
        if !after("'fortran_order'").is_some_and(|t| t.starts_with("False")) {
            return Err(wrong("is in Fortran order"));
        }
        let shape = after("'shape'").and_then(|t| t.strip_prefix('(')?.split_once(')')).map(|(t, _)| t);
        let dimensions =
            shape.ok_or_else(|| wrong("has no shape"))?.split(',').map(str::trim).filter(|t| !t.is_empty());
        let shape = dimensions.map(|t| t.parse().ok()).collect::<Option<Vec<u64>>>();
        let shape =
            shape.filter(|s| s.len() <= 32).ok_or_else(|| wrong("has a shape that is not a list of numbers"))?;
        Ok(Self { element, shape, bytes: (8 + width + length) as u64 })
    }
    /// Bytes of the elements, unless that overflows.
    pub(super) fn body(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.element.bytes as u64, |n, d| n.checked_mul(*d))
    }
}

impl Element {
    fn parse(descr: &str) -> Option<Self> {
        let (order, kind) = descr.split_at_checked(1)?;
        let signed = kind.starts_with('i');
        let bytes = kind.strip_prefix(['i', 'u'])?.parse().ok().filter(|b| [1, 2, 4, 8].contains(b))?;
        (order == "<" || (order == "|" && bytes == 1)).then_some(Self { bytes, signed })
    }
    /// Decodes `bytes` as expert ids onto `ids`; -1 is missing. An error is (index, value) of the first that is none.
    pub(super) fn decode(self, bytes: &[u8], ids: &mut Vec<u16>) -> std::result::Result<(), (usize, i128)> {
        if self == (Self { bytes: 1, signed: false }) {
            ids.extend(bytes.iter().map(|b| u16::from(*b)));
            return Ok(());
        }
        for (i, raw) in bytes.chunks_exact(self.bytes).enumerate() {
            let mut wide = [0u8; 8];
            wide[..self.bytes].copy_from_slice(raw);
            let unused = 64 - 8 * self.bytes as u32;
            let value = u64::from_le_bytes(wide);
            let value = if self.signed { i128::from((value << unused) as i64 >> unused) } else { i128::from(value) };
            ids.push(if value == -1 { MISSING } else { u16::try_from(value).map_err(|_| (i, value))? });
        }
        Ok(())
    }
}
