//! Strict TOML into typed structures: unknown keys are refused with the nearest known one, errors name file, line and
//! column, `--set` overrides are applied to the tree before it is read, and values can carry their origin.

use crate::diag::{Diag, Result, nearest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// Reads `text`, which came from `file`. The structures say `deny_unknown_fields`.
pub fn from_toml<T: DeserializeOwned>(text: &str, file: &str) -> Result<T> {
    toml::from_str(text).map_err(|e| explain(&e, text, file))
}

/// Reads a tree (a preset with overrides, an inline table), which came from `file`.
pub fn from_table<T: DeserializeOwned>(table: toml::Table, file: &str) -> Result<T> {
    // Through text, so that messages are the same as for a file; its lines are not the user's, so the place is a key.
    let text = to_toml(&table)?;
    toml::from_str(&text).map_err(|e| {
        let d = explain(&e, &text, file);
        Diag { place: e.span().and_then(|span| key_at(&text, span.start)), ..d }
    })
}

/// The dotted key of the line at byte `at` of a document that [`to_toml`] wrote; none at its top.
fn key_at(text: &str, at: usize) -> Option<String> {
    let start = text.floor_char_boundary(at);
    let end = text[start..].find('\n').map_or(text.len(), |n| start + n);
    let header = |l: &&str| l.starts_with('[') && l.ends_with(']');
    let table = text[..end].lines().rfind(header).map(|l| l.trim_matches(['[', ']']).to_string());
    let line = text[..end].lines().next_back().filter(|l| !header(l));
    let key = line.and_then(|l| l.split_once(" = ")).map(|(key, _)| key.to_string()).filter(|_| at > 0);
    let both: Vec<String> = [table, key].into_iter().flatten().collect();
    (!both.is_empty()).then(|| both.join("."))
}

/// Parses `text` into a tree only, for overrides.
pub fn table(text: &str, file: &str) -> Result<toml::Table> {
    text.parse::<toml::Table>().map_err(|e| explain(&e, text, file))
}

/// Writes `value` as TOML.
pub fn to_toml<T: Serialize>(value: &T) -> Result<String> {
    toml::to_string(value).map_err(|e| Diag::run(format!("cannot be written as TOML: {e}")))
}

fn explain(e: &toml::de::Error, text: &str, file: &str) -> Diag {
    let mut problem = e.message().trim().replace('\n', ", ");
    let mut cure = String::new();
    // serde: unknown field `x`, expected one of `a`, `b` / unknown variant `x`, expected `a`
    for (kind, word) in [("unknown field `", "key"), ("unknown variant `", "value")] {
        if let Some(rest) = problem.strip_prefix(kind) {
            let mut names = rest.split('`');
            let wrong = names.next().unwrap_or_default().to_string();
            let known: Vec<String> = names.skip(1).step_by(2).map(str::to_string).collect();
            cure = match nearest(&wrong, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`? (known: {})", known.join(", ")),
                None => format!("known: {}", known.join(", ")),
            };
            problem = format!("unknown {word} `{wrong}`");
            break;
        }
    }
    if cure.is_empty() && problem.starts_with("missing field `") {
        cure = "add it".to_string();
    }
    // serde: invalid type: string "many", expected u32
    if let Some((found, expected)) =
        problem.strip_prefix("invalid ").and_then(|p| p.split_once(": ")?.1.rsplit_once(", expected "))
    {
        cure = match expected {
            "u8" | "u16" | "u32" | "u64" | "usize" => "write a whole number, not negative".to_string(),
            "i8" | "i16" | "i32" | "i64" => "write a whole number".to_string(),
            "f32" | "f64" => "write a number".to_string(),
            other if other.starts_with(['a', 'A']) => format!("write {other}"),
            _ => "write a table with its keys".to_string(),
        };
        problem = format!("{} has no place here", found.trim_end_matches(" as i128"));
    }
    if cure.is_empty() && problem.contains("recurs") {
        problem = "is nested too deep".to_string();
        cure = "write tables and lists at most 80 deep".to_string();
    }
    let d = Diag::input(problem).file(file).cure(cure);
    match e.span() {
        Some(span) if !text.is_empty() => {
            let before = &text[..text.floor_char_boundary(span.start)];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
            d.place(format!("{line}:{column}"))
        }
        _ => d,
    }
}

/// Applies `a.b.c=value` to a tree. The value is TOML; what does not parse as TOML is taken as a string.
/// Numbers in the path index arrays.
pub fn set(tree: &mut toml::Table, assignment: &str) -> Result<()> {
    let (key, value) = split_assignment(assignment)?;
    set_path(tree, &key, value)
}

/// Splits `a.b.c=value` into its path and its value.
pub fn split_assignment(assignment: &str) -> Result<(Vec<String>, toml::Value)> {
    let (key, text) = assignment.split_once('=').ok_or_else(|| {
        Diag::input(format!("\"{assignment}\" is not an assignment")).cure("write --set key=value, as in --set seed=2")
    })?;
    let path: Vec<String> = key.trim().split('.').map(|s| s.trim().to_string()).collect();
    if path.iter().any(String::is_empty) {
        return Err(Diag::input(format!("\"{key}\" is not a key")).cure("write it as in --set workload.seed=2"));
    }
    let text = text.trim();
    let value = match format!("v = {text}").parse::<toml::Table>() {
        Ok(mut t) if t.len() == 1 => t.remove("v").unwrap_or_else(|| toml::Value::String(text.to_string())),
        _ => toml::Value::String(text.to_string()),
    };
    Ok((path, value))
}

/// Puts `value` at `path`, making tables on the way. A value with an origin keeps the place and loses the origin.
pub fn set_path(tree: &mut toml::Table, path: &[String], value: toml::Value) -> Result<()> {
    let key = path.join(".");
    let (last, parents) = path.split_last().ok_or_else(|| Diag::input("an empty key").cure("write --set key=value"))?;
    let mut at = tree;
    for name in parents {
        let next = at.entry(name.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = next.as_table_mut().ok_or_else(|| {
            Diag::input(format!("`{name}` is a value, not a table")).place(&key).cure("set the key above it")
        })?;
    }
    at.insert(last.clone(), value);
    Ok(())
}

/// A value and where it comes from: a data sheet, a paper's table, a calibration, or `assumed`.
/// In files either `{ value = .., origin = ".." }` or the bare value, whose origin is then `user`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Its origin.
    pub origin: String,
}

impl<T> Sourced<T> {
    /// A value that the user gave.
    pub fn user(value: T) -> Self {
        Self { value, origin: "user".to_string() }
    }

    /// Whether a user gave the value without an origin.
    pub fn is_user(&self) -> bool {
        self.origin == "user"
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Sourced<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
        use serde::de::{Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};
        use std::marker::PhantomData;

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Pair<T> {
            value: T,
            origin: String,
        }
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Sourced<T>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a value, or { value = .., origin = \"..\" }")
            }
            fn visit_str<E: Error>(self, v: &str) -> std::result::Result<Sourced<T>, E> {
                T::deserialize(v.into_deserializer()).map(Sourced::user)
            }
            fn visit_f64<E: Error>(self, v: f64) -> std::result::Result<Sourced<T>, E> {
                T::deserialize(v.into_deserializer()).map(Sourced::user)
            }
            fn visit_i64<E: Error>(self, v: i64) -> std::result::Result<Sourced<T>, E> {
                T::deserialize(v.into_deserializer()).map(Sourced::user)
            }
            fn visit_u64<E: Error>(self, v: u64) -> std::result::Result<Sourced<T>, E> {
                T::deserialize(v.into_deserializer()).map(Sourced::user)
            }
            fn visit_bool<E: Error>(self, v: bool) -> std::result::Result<Sourced<T>, E> {
                T::deserialize(v.into_deserializer()).map(Sourced::user)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> std::result::Result<Sourced<T>, A::Error> {
                T::deserialize(SeqAccessDeserializer::new(list)).map(Sourced::user)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Sourced<T>, A::Error> {
                let pair = Pair::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Sourced { value: pair.value, origin: pair.origin })
            }
        }
        d.deserialize_any(Either(PhantomData))
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for Sourced<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Sourced_{}", T::schema_name()).into()
    }
    fn json_schema(g: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let value = g.subschema_for::<T>();
        schemars::json_schema!({
            "anyOf": [value, {
                "type": "object",
                "properties": { "value": value, "origin": { "type": "string" } },
                "required": ["value", "origin"],
                "additionalProperties": false,
            }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bandwidth;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Link {
        bandwidth: Sourced<Bandwidth>,
        #[serde(default)]
        count: u32,
    }

    #[test]
    fn errors_name_file_place_and_cure() {
        let e = from_toml::<Link>("bandwidht = \"1 GB/s\"", "h.toml").unwrap_err().to_string();
        assert_eq!(e, "h.toml: 1:1: unknown key `bandwidht`; did you mean `bandwidth`? (known: bandwidth, count)");
        let e = from_toml::<Link>("count = 1\nbandwidth = \"1 GB\"", "h.toml").unwrap_err().to_string();
        assert!(e.starts_with("h.toml: 2:13: ") && e.contains("TB/s"), "{e}");
        let e = from_toml::<Link>("count = -1", "h.toml").unwrap_err();
        assert_eq!((e.place.as_deref(), e.exit_code()), (Some("1:9"), 2));
    }

    #[test]
    fn errors_in_a_tree_name_the_key() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Node {
            #[serde(rename = "name")]
            _name: String,
            #[serde(rename = "link")]
            _link: Link,
        }
        let wrong = |text: &str| from_table::<Node>(table(text, "n").unwrap(), "n.toml").unwrap_err().to_string();
        let link = "name = \"a\"\n[link]\nbandwidth = \"1 GB/s\"\n";
        assert_eq!(
            wrong(&format!("{link}count = \"x\"")),
            "n.toml: link.count: string \"x\" has no place here; write a whole number, not negative"
        );
        assert!(wrong(&format!("{link}cout = 1")).starts_with("n.toml: link.cout: unknown key `cout`; did you mean"));
        assert!(wrong("name = 3").starts_with("n.toml: name: integer `3` has no place here; write a string"));
        assert!(wrong("name = \"a\"").ends_with("missing field `link`; add it"));
    }

    #[test]
    fn values_may_carry_an_origin() {
        let l: Link = from_toml("bandwidth = \"1 GB/s\"", "h").unwrap();
        assert_eq!(l.bandwidth.origin, "user");
        let l: Link = from_toml("count = 2\nbandwidth = { value = \"1 GB/s\", origin = \"sheet\" }", "h").unwrap();
        assert_eq!((l.bandwidth.value.per_second(), l.bandwidth.origin.as_str(), l.count), (1e9, "sheet", 2));
    }

    /// A list stands by itself or with an origin; what is wrong with an entry is said of the entry.
    #[test]
    fn lists_may_carry_an_origin() {
        #[derive(Debug, Deserialize)]
        struct Many {
            many: Sourced<Vec<u32>>,
        }
        let many = |text: &str| from_toml::<Many>(text, "h").map(|m| (m.many.value, m.many.origin));
        assert_eq!(many("many = [1, 2]").unwrap(), (vec![1, 2], "user".into()));
        assert_eq!(many("many = { value = [3], origin = \"sheet\" }").unwrap(), (vec![3], "sheet".into()));
        assert!(many("many = [1, \"x\"]").unwrap_err().to_string().contains("string \"x\" has no place here"));
    }

    #[test]
    fn overrides_reach_into_tables() {
        let mut t = table("a = 1\n[b]\nc = \"x\"", "t").unwrap();
        set(&mut t, "b.c=2 GB/s").unwrap();
        set(&mut t, "d.e = 3").unwrap();
        assert_eq!(t["b"]["c"].as_str(), Some("2 GB/s"));
        assert_eq!(t["d"]["e"].as_integer(), Some(3));
        assert!(set(&mut t, "a.b=1").is_err() && set(&mut t, "x").is_err());
    }
}
