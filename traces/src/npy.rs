//! The numpy array format (NEP 1): a header that is a Python dictionary, then the elements in C order.

use crate::numbers::{Element, Kind};
use moesim_core::{Diag, Result};
use std::io::Read;

/// Headers are about 100 bytes; the format allows 4 GiB.
const HEADER: usize = 64 << 10;

/// The header of an array.
#[derive(Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) element: Element,
    pub(crate) shape: Vec<u64>,
    /// Its own length in the file.
    pub(crate) bytes: u64,
}

fn wrong(problem: impl Into<String>) -> Diag {
    Diag::input(problem)
        .place("header")
        .cure("save a C-ordered array of little-endian numbers with numpy.save or numpy.savez")
}

impl Header {
    /// Reads the header and leaves `r` at the first element.
    pub(crate) fn read(r: &mut impl Read) -> Result<Self> {
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
        let element = element(descr)
            .ok_or_else(|| wrong(format!("has elements of type \"{descr:.20}\", not little-endian numbers")))?;
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
    /// Refuses what cannot be ids.
    pub(crate) fn integers(self) -> Result<Self> {
        if self.element.is_integer() {
            return Ok(self);
        }
        Err(wrong(format!("has elements of type \"<f{}\", not integers", self.element.bytes))
            .cure("save the ids as integers"))
    }
    /// Bytes of the elements, unless that overflows.
    pub(crate) fn body(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.element.bytes as u64, |n, d| n.checked_mul(*d))
    }
}

/// The element type of a description such as `<i4`.
fn element(descr: &str) -> Option<Element> {
    let (order, rest) = descr.split_at_checked(1)?;
    let (kind, bytes) = rest.split_at_checked(1)?;
    let bytes = bytes.parse().ok().filter(|b| [1, 2, 4, 8].contains(b))?;
    let kind = match kind {
        "u" => Kind::Unsigned,
        "i" => Kind::Signed,
        "f" if bytes >= 4 => Kind::Float,
        _ => return None,
    };
    (order == "<" || (order == "|" && bytes == 1)).then_some(Element::new(kind, bytes))
}
