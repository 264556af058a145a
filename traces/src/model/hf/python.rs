//! JSON as Python writes it.

use crate::json;
use moesim_core::{Diag, Result, input};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

const FILE_BYTES: u64 = 4 << 20;

/// Reads a file of JSON of at most 4 MiB. Python's bare `NaN`, `Infinity` and `-Infinity` become texts of that name, so
/// that a key that needs a number refuses them with its name, and others are not in their way.
///
/// # Errors
/// A file that cannot be read, is too large, or is no JSON object.
pub(super) fn read(path: &Path, what: &str) -> Result<Value> {
    let mut bytes = Vec::new();
    let file = input::open(path)?;
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Diag::cannot_read(path, &e))?;
    let cure = format!("give the {what} of a Hugging Face model");
    if bytes.len() as u64 > FILE_BYTES {
        return Err(Diag::input("is larger than 4 MiB").file(path).cure(cure));
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let value = serde_json::from_slice(text)
        .or_else(|plain| serde_json::from_slice(&quoted(text)).map_err(|_| plain))
        .map_err(|e| json::broken("configuration", &e).file(path).cure(cure.clone()))?;
    match value {
        Value::Object(_) => Ok(value),
        _ => Err(Diag::input("is no configuration: not an object of keys").file(path).place("1:1").cure(cure)),
    }
}

/// The text with bare words of Python in quotes; what is inside texts stays.
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut at, mut inside) = (0, false);
    while let Some(&byte) = text.get(at) {
        let word = [&b"-Infinity"[..], b"Infinity", b"NaN"].into_iter().find(|w| text[at..].starts_with(w));
        match word.filter(|_| !inside) {
            Some(word) => {
                out.extend([b"\"", word, b"\""].concat());
                at += word.len();
            }
            None => {
                let escaped = usize::from(inside && byte == b'\\');
                inside ^= byte == b'"';
                let end = text.len().min(at + 1 + escaped);
                out.extend(&text[at..end]);
                at = end;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn bare_words_are_quoted_outside_texts_only() {
        for (from, to) in [
            (
                r#"{"a": [0.0, Infinity], "b": -Infinity, "c": NaN}"#,
                r#"{"a": [0.0, "Infinity"], "b": "-Infinity", "c": "NaN"}"#,
            ),
            (r#"{"NaN": "x \" Infinity \\", "b": NaN}"#, r#"{"NaN": "x \" Infinity \\", "b": "NaN"}"#),
            (r#"{"a": "NaN\"#, r#"{"a": "NaN\"#),
        ] {
            assert_eq!(String::from_utf8(quoted(from.as_bytes())).unwrap(), to);
        }
    }
}
