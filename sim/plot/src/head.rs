//! Names of keys of a summary for people, with their units.

/// `tpot_ms.p50` as `tpot p50 (ms)`, `throughput.output_tokens_per_s_per_device` as
/// `output per device (tokens/s)`.
pub fn head(key: &str) -> String {
    let (name, unit) = split(key);
    if unit.is_empty() { name } else { format!("{name} ({unit})") }
}

/// The unit that a key holds, if any.
pub(crate) fn unit(key: &str) -> String {
    split(key).1
}

/// Words that are units where they end a part of a key.
const UNITS: [(&str, &str); 8] =
    [("s", "s"), ("ms", "ms"), ("us", "µs"), ("ns", "ns"), ("bytes", "bytes"), ("j", "J"), ("w", "W"), ("usd", "USD")];

/// Tables of the summary that hold seconds.
const SECONDS: [&str; 2] = ["breakdown", "bound_by"];

fn split(key: &str) -> (String, String) {
    let known = |word: &str| UNITS.iter().find(|u| u.0 == word).map(|u| u.1);
    let (mut name, mut unit) = (Vec::<&str>::new(), String::new());
    // Counters are named by their policy.
    for part in key.strip_prefix("counters.").unwrap_or(key).split('.') {
        let words: Vec<&str> = part.split('_').collect();
        let last = words.len() - 1;
        match words.iter().position(|w| *w == "per").filter(|&i| i > 0 && i < last) {
            Some(i) => {
                let end = words[i + 1..].iter().position(|w| *w == "per").map_or(words.len(), |n| i + 1 + n);
                let amount = known(words[i - 1]).unwrap_or(words[i - 1]);
                unit = format!("{amount}/{}", words[i + 1..end].join(" "));
                name.extend(words[..i - 1].iter().chain(&words[end..]));
            }
            None => match known(words[last]).filter(|_| last > 0) {
                Some(u) => {
                    unit = u.into();
                    name.extend(&words[..last]);
                }
                None => name.extend(&words),
            },
        }
    }
    if unit.is_empty() && SECONDS.iter().any(|t| key.split('.').next() == Some(*t)) {
        unit = "s".into();
    }
    // A rate says by its unit that it is one.
    if let (["throughput", _, ..], false) = (&name[..], unit.is_empty()) {
        name.remove(0);
    }
    (name.join(" "), unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_what_and_in_which_unit() {
        for (key, expected) in [
            ("tpot_ms.p50", "tpot p50 (ms)"),
            ("ttft_ms.p50", "ttft p50 (ms)"),
            ("throughput.output_tokens_per_s", "output (tokens/s)"),
            ("throughput.output_tokens_per_s_per_device", "output per device (tokens/s)"),
            ("throughput.goodput_requests_per_s", "goodput (requests/s)"),
            ("cost_usd_per_million_output_tokens", "cost (USD/million output tokens)"),
            ("throughput.requests_per_s", "throughput (requests/s)"),
            ("imbalance.mean", "imbalance mean"),
            ("cache.hit_rate", "cache hit rate"),
            ("counters.on-demand.loaded_bytes", "on-demand loaded (bytes)"),
            ("simulated_s", "simulated (s)"),
            ("breakdown.load", "breakdown load (s)"),
            ("device_memory_peak_bytes", "device memory peak (bytes)"),
            ("per", "per"),
        ] {
            assert_eq!(head(key), expected);
        }
    }
}
