//! Numbers as text for people.

/// `v` with three significant digits, thousands as k, M, G, T.
pub(crate) fn short(v: f64) -> String {
    let a = v.abs();
    for (limit, scale, suffix) in [(1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")] {
        if a >= limit {
            return if a >= 1e18 { format!("{v:.2e}") } else { format!("{}{suffix}", digits(v / scale)) };
        }
    }
    if v != 0.0 && a < 1e-3 { format!("{v:.2e}") } else { digits(v) }
}

fn digits(v: f64) -> String {
    let decimals = match v.abs() {
        a if a == 0.0 || a >= 99.95 => 0,
        a if a >= 9.995 => 1,
        a if a >= 0.9995 => 2,
        a if a >= 0.09995 => 3,
        a if a >= 0.009995 => 4,
        _ => 5,
    };
    format!("{v:.decimals$}")
}

/// A time in the unit that suits it.
pub(crate) fn seconds(v: f64) -> String {
    let (scale, unit) = time_unit(v);
    format!("{} {unit}", digits(v * scale))
}

/// The unit that suits times up to `v` seconds: how many there are in a second, and its name.
pub(crate) fn time_unit(v: f64) -> (f64, &'static str) {
    match v.abs() {
        a if a >= 1.0 || a == 0.0 => (1.0, "s"),
        a if a >= 1e-3 => (1e3, "ms"),
        a if a >= 1e-6 => (1e6, "µs"),
        _ => (1e9, "ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_significant_digits() {
        for (v, text) in [
            (0.0, "0"),
            (0.99999, "1.00"),
            (12.345, "12.3"),
            (1234.5, "1234"),
            (12345.0, "12.3k"),
            (-2.5e9, "-2.50G"),
            (2e-5, "2.00e-5"),
        ] {
            assert_eq!(short(v), text);
        }
        assert_eq!(
            (seconds(0.0123), seconds(4.5e-6), seconds(61.0)),
            ("12.3 ms".into(), "4.50 µs".into(), "61.0 s".into())
        );
    }
}
