//! Text files that are not trusted: plain or packed with gzip, with or without a byte order mark.

use flate2::bufread::MultiGzDecoder;
use moesim_core::{Diag, Result, input};
use std::io::{BufRead, BufReader, Chain, Read};
use std::path::Path;

/// A text that is read from its first character on.
pub(crate) type Text = BufReader<Box<dyn Read + Send>>;

const BUFFER: usize = 1 << 16;

/// Opens a text file. What is packed is known by its content, whatever the file's name.
///
/// # Errors
/// A file that cannot be opened, Parquet, or text in UTF-16.
pub(crate) fn open(path: &Path) -> Result<Text> {
    let wrong = |e: std::io::Error| Diag::cannot_read(path, &e);
    let mut file = BufReader::with_capacity(BUFFER, input::open(path)?);
    let packed = file.fill_buf().map_err(wrong)?.starts_with(&[0x1f, 0x8b]);
    let unpacked: Box<dyn Read + Send> = if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut unpacked = unpacked;
    let mut start = [0; 4];
    let mut n = 0;
    while n < start.len() {
        match unpacked.read(&mut start[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if packed => return Err(damaged(&e).file(path).place("line 1")),
            Err(e) => return Err(wrong(e)),
        }
    }
    let refused = |problem: &str, cure: &str| Err(Diag::input(problem).file(path).place("line 1").cure(cure));
    match &start[..n] {
        b"PAR1" => return refused("is a Parquet file, not text", PARQUET),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return refused("is UTF-16 text", "save it as UTF-8"),
        _ => {}
    }
    let skip = if start[..n].starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let again: Chain<std::io::Cursor<Vec<u8>>, _> = std::io::Cursor::new(start[skip..n].to_vec()).chain(unpacked);
    Ok(BufReader::with_capacity(BUFFER, Box::new(again)))
}

/// What to do with a table in Parquet.
const PARQUET: &str = "save it as CSV, for example with `python3 -c \"import pandas; pandas.read_parquet('F').to_csv('F.csv', index=False)\"`";

/// What is wrong with a packed text that cannot be unpacked to its end.
pub(crate) fn damaged(e: &std::io::Error) -> Diag {
    Diag::input(format!("ends early or is damaged: {e}")).cure("copy the file again")
}

/// The first bytes of a text, at most `n`; none if it cannot be read.
pub(crate) fn start(path: &Path, n: u64) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    open(path).ok()?.take(n).read_to_end(&mut start).ok()?;
    Some(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_text_is_the_same_packed_and_with_a_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let gz = |bytes: &[u8]| {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            gz.write_all(bytes).unwrap();
            gz.finish().unwrap()
        };
        for text in ["", "a", "a,b\n1,2\n"] {
            let marked = format!("\u{feff}{text}");
            for bytes in [text.into(), marked.clone().into_bytes(), gz(text.as_bytes()), gz(marked.as_bytes())] {
                std::fs::write(&path, bytes).unwrap();
                let mut read = String::new();
                open(&path).unwrap().read_to_string(&mut read).unwrap();
                assert_eq!(read, text);
                assert_eq!(start(&path, 2).unwrap(), &text.as_bytes()[..text.len().min(2)]);
            }
        }
        for (bytes, words) in [
            (&b"PAR1\x15\x04"[..], "is a Parquet file"),
            (&b"\xff\xfea\x00"[..], "is UTF-16 text"),
            (&b"\x1f\x8b"[..], "ends early or is damaged"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let Err(e) = open(&path) else { panic!("accepted") };
            assert!(e.to_string().contains(words) && e.exit_code() == 2 && !e.cure.is_empty(), "{e}");
        }
    }
}
