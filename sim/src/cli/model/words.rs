//! Counts, bytes and facts in words.

use moesim_traces::model::Facts;

/// `106.8 B`, `571.2 M`: three to four digits.
pub(super) fn count(n: f64) -> String {
    let (scale, unit) =
        [(1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")].into_iter().find(|s| n >= s.0).unwrap_or((1.0, ""));
    let x = n / scale;
    if unit.is_empty() {
        format!("{x:.0}")
    } else if x < 10.0 {
        format!("{x:.2}{unit}")
    } else {
        format!("{x:.1}{unit}")
    }
}

/// Bytes in the units of data sheets.
pub(super) fn bytes(n: u64) -> String {
    let n = n as f64;
    let (scale, unit) =
        [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")].into_iter().find(|s| n >= s.0).unwrap_or((1.0, "bytes"));
    if scale > 1.0 { format!("{:.2} {unit}", n / scale) } else { format!("{n} {unit}") }
}

/// Bits an element with no more digits than they have.
pub(super) fn bits(n: f64) -> String {
    let text = format!("{n:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// `106.9 B total, 12.2 B active without embeddings, 1.2 B embeddings and head`: tenths, rounded.
pub(super) fn parameters(f: &Facts) -> String {
    let billions = |n: u64| {
        let n = n as f64;
        if n >= 1e8 { format!("{:.1} B", n / 1e9) } else { format!("{:.1} M", n / 1e6) }
    };
    format!(
        "{} total, {} active without embeddings, {} embeddings and head",
        billions(f.total),
        billions(f.active_without_embeddings),
        billions(f.embeddings)
    )
}

/// KV a token, by kind of layer if there are several, and the longest sequence.
pub(super) fn kv(f: &Facts) -> String {
    let kinds: Vec<String> =
        f.kv.iter()
            .map(|k| format!("{} layers {} ({}) {} each", k.layers, k.span, k.heads, bytes(k.bytes_per_token)))
            .collect();
    let context = f.context.map_or("no context limit in the file".into(), |c| format!("context {c} tokens"));
    format!("KV {} a token: {}; {context}", bytes(f.kv_bytes_per_token), kinds.join(", "))
}

/// Text of a file, without what moves a cursor.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([count(12.2e9), count(999.0), count(1.5e6), count(8.1e12)], ["12.2 B", "999", "1.50 M", "8.10 T"]);
        assert_eq!([bytes(999), bytes(188_416), bytes(2_000_000_000)], ["999 bytes", "188.42 kB", "2.00 GB"]);
        assert_eq!([bits(16.0), bits(4.5), bits(8.001953125)], ["16", "4.5", "8.002"]);
    }
}
