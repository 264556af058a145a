//! Quantities: one small file each, parsed from and printed with their unit.

mod bandwidth;
mod bytes;
mod flop_rate;
mod time;

pub use bandwidth::Bandwidth;
pub use bytes::Bytes;
pub use flop_rate::FlopRate;
pub use time::Picos;

/// A unit's name and its size in the base unit.
type Unit = (&'static str, f64);

/// Splits `"3.35 TB/s"` into number and unit and scales it; the error says what would have been right.
fn parse_scaled(text: &str, what: &str, example: &str, units: &[Unit]) -> Result<f64, String> {
    let text = text.trim();
    let names = || units.iter().map(|u| u.0).collect::<Vec<_>>().join(", ");
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | '_'))).unwrap_or(text.len());
    // An exponent belongs to the number, a unit never starts with e and a digit.
    let split = match text[split..].strip_prefix(['e', 'E']) {
        Some(rest) => {
            let digits = rest.trim_start_matches(['+', '-']);
            let n = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            if n > 0 { text.len() - digits.len() + n } else { split }
        }
        None => split,
    };
    let (number, unit) = (text[..split].replace('_', ""), text[split..].trim());
    let number: f64 = number
        .parse()
        .map_err(|_| format!("\"{text}\" is not {what}; write a number and a unit, as in \"{example}\""))?;
    let scale = units.iter().find(|u| u.0 == unit).map(|u| u.1).ok_or_else(|| {
        if unit.is_empty() {
            format!("\"{text}\" lacks a unit; write {what} as in \"{example}\" (units: {})", names())
        } else {
            format!("\"{unit}\" is not a unit of {what}; write it as in \"{example}\" (units: {})", names())
        }
    })?;
    let value = number * scale;
    if !value.is_finite() || value < 0.0 {
        return Err(format!("\"{text}\" is out of range; {what} is finite and not negative, as in \"{example}\""));
    }
    Ok(value)
}

/// Prints `value` in the largest unit whose text parses back to the same bits.
fn print_scaled(value: f64, units: &[Unit]) -> String {
    let mut best = None;
    for &(name, scale) in units {
        let scaled = value / scale;
        if (scaled >= 1.0 || scale == 1.0) && scaled * scale == value {
            let text = format!("{scaled}");
            let short = best.as_ref().is_none_or(|(len, s, _): &(usize, f64, String)| {
                text.len() < *len || (text.len() == *len && scale > *s)
            });
            if short && text.parse::<f64>().is_ok_and(|p| p * scale == value) {
                best = Some((text.len(), scale, format!("{text} {name}")));
            }
        }
    }
    best.map_or_else(|| format!("{value} {}", units.iter().find(|u| u.1 == 1.0).map_or("", |u| u.0)), |b| b.2)
}

/// Text in files, a typed number in the program: the same for every quantity.
macro_rules! textual {
    ($name:ident, $what:literal) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                        write!(f, concat!($what, " with its unit, in quotes"))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                d.deserialize_str(Text)
            }
        }
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": concat!($what, " with its unit") })
            }
        }
    };
}
use textual;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!("3.35 TB/s".parse::<Bandwidth>().unwrap().per_second(), 3.35e12);
        assert_eq!("80 GiB".parse::<Bytes>().unwrap().get(), 80 << 30);
        assert_eq!("80GB".parse::<Bytes>().unwrap().get(), 80_000_000_000);
        assert_eq!("200 ns".parse::<Picos>().unwrap(), Picos(200_000));
        assert_eq!("1e-3 s".parse::<Picos>().unwrap(), Picos(1_000_000_000));
        assert_eq!("989.4 TFLOP/s".parse::<FlopRate>().unwrap().per_second(), 989.4e12);
    }

    #[test]
    fn refuses_what_is_wrong_and_says_how_to_write_it() {
        for bad in ["3.35", "3.35 TB", "-1 GB/s", "NaN GB/s", "fast", "1e999 B/s", ""] {
            let e = bad.parse::<Bandwidth>().unwrap_err();
            assert!(e.contains("TB/s"), "{bad}: {e}");
        }
        assert!("12 TB/s".parse::<Bytes>().is_err());
        assert!("1e30 TB".parse::<Bytes>().is_err());
        assert!("1e30 s".parse::<Picos>().is_err());
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(b in any::<u64>(), t in any::<u64>(), r in 0.0..1e18f64) {
            prop_assert_eq!(Bytes(b).to_string().parse::<Bytes>().unwrap(), Bytes(b));
            prop_assert_eq!(Picos(t).to_string().parse::<Picos>().unwrap(), Picos(t));
            let rate = Bandwidth::from_per_second(r);
            prop_assert_eq!(rate.to_string().parse::<Bandwidth>().unwrap(), rate);
        }
    }
}
