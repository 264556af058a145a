//! Writes arrays in numpy's format, version 1.0 (NEP 1): magic, length of the header, a header that is a Python dictionary
//! padded with spaces so that the data starts at a multiple of 64 bytes, elements in C order.

/// An array of bytes (`|u1`) or, with `bytes` 2, 4 or 8 an element, of little-endian signed integers.
pub(super) fn array(shape: &[usize], bytes: usize, data: impl Iterator<Item = u16>) -> Vec<u8> {
    let descr = if bytes == 1 { "|u1".to_string() } else { format!("<i{bytes}") };
    let mut sizes: String = shape.iter().map(|n| format!("{n}, ")).collect();
    if shape.len() > 1 {
        sizes.truncate(sizes.len() - 2);
    }
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // 10 bytes before it, and the end of its line.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', length - 1 - header.len()));
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.bytes());
    for x in data {
        out.extend(&u64::from(x).to_le_bytes()[..bytes]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_that_numpy_writes() {
        // numpy.save of array([[1, 258, 3]], dtype='<i2').
        let bytes = array(&[1, 3], 2, [1u16, 258, 3].into_iter());
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let header = "{'descr': '<i2', 'fortran_order': False, 'shape': (1, 3), }";
        assert_eq!(std::str::from_utf8(&bytes[10..128]).unwrap(), format!("{header:<117}\n"));
        assert_eq!(&bytes[128..], [1, 0, 2, 1, 3, 0]);
        assert!(String::from_utf8_lossy(&array(&[2], 1, [1u16, 2].into_iter())).contains("'|u1'"));
    }
}
