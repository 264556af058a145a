//! Policies by name, with settings of their own.
//!
//! A policy is made from [`Settings`]: it asks for each setting by name, with a default, and what nobody asked for is refused. So
//! the code that uses a setting is the one place where its name, range and default stand, and `moesim show POLICY` lists what a
//! policy asks for by making one out of nothing.
//!
//! ```
//! use moesim::policy::settings::{Choice, Settings};
//!
//! # fn main() -> moesim_core::Result<()> {
//! let choice = Choice::named("lru").with("share", 0.25);
//! let mut s = Settings::new("policy.execution", &choice);
//! let share = s.number("share", "share of the experts that stay on the device", 0.5, 0.0..=1.0)?;
//! let pinned = s.count("pinned", "experts of a layer that never leave", 0, 0..=1024)?;
//! assert_eq!((share, pinned), (0.25, 0));
//! assert_eq!(s.finish()?, Choice::named("lru").with("share", 0.25).with("pinned", 0));
//! # Ok(())
//! # }
//! ```

use moesim_core::{Diag, Result, diag};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::ops::RangeInclusive;
use toml::{Table, Value};

/// A policy by name, with its settings: in files a table with `kind` and the settings, or the name alone.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The policy's name.
    pub kind: String,
    /// Its settings, by name.
    pub settings: Table,
    /// It was given as a name alone.
    pub(crate) alone: bool,
}

impl PartialEq for Choice {
    /// Name and settings; how they were written does not matter.
    fn eq(&self, other: &Self) -> bool {
        (&self.kind, &self.settings) == (&other.kind, &other.settings)
    }
}

impl Choice {
    /// The name of a policy that is left to the engine.
    pub const AUTO: &'static str = "auto";

    /// A policy by name, all settings left to it.
    pub fn named(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), settings: Table::new(), alone: true }
    }

    /// The same with a setting.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.into(), value.into());
        self.alone = false;
        self
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.kind)
    }
}

const KIND: &str = "kind";

impl Serialize for Choice {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(1 + self.settings.len()))?;
        map.serialize_entry(KIND, &self.kind)?;
        self.settings.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> de::Visitor<'de> for Visit {
            type Value = Choice;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a policy's name, or a table with its kind and settings")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> std::result::Result<Choice, E> {
                Ok(Choice::named(name))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> std::result::Result<Choice, A::Error> {
                let mut settings = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                match settings.remove(KIND) {
                    Some(Value::String(kind)) => Ok(Choice { kind, settings, alone: false }),
                    Some(_) => Err(de::Error::custom("the kind of a policy is its name, in quotes")),
                    None => Err(de::Error::missing_field(KIND)),
                }
            }
        }
        d.deserialize_any(Visit)
    }
}

impl JsonSchema for Choice {
    fn schema_name() -> Cow<'static, str> {
        "PolicyChoice".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let kind = json_schema!({ "type": "string" });
        json_schema!({ "anyOf": [kind, { "type": "object", "properties": { KIND: kind }, "required": [KIND] }] })
    }
}

/// A setting that a policy asked for.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// What it is unless told.
    pub default: Value,
    /// Its type and range, as JSON schema.
    pub schema: Json,
    /// What it is now.
    value: Value,
}

impl Setting {
    /// Type and range in words.
    pub fn range(&self) -> String {
        words(&self.schema)
    }
}

/// Type and range of a schema, in words.
fn words(schema: &Json) -> String {
    if let Some(of) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        return of.iter().map(words).collect::<Vec<_>>().join(" or ");
    }
    if let Some(list) = schema["enum"].as_array() {
        return list.iter().map(Json::to_string).collect::<Vec<_>>().join(" or ");
    }
    if !schema["const"].is_null() {
        return schema["const"].to_string();
    }
    let bound = |word: &str, key: &str| (!schema[key].is_null()).then(|| format!("{word} {}", schema[key]));
    let bounds = [
        bound("from", "minimum"),
        bound("above", "exclusiveMinimum"),
        bound("to", "maximum"),
        bound("below", "exclusiveMaximum"),
    ];
    let what = match schema["type"].as_str() {
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("boolean") => "true or false",
        Some("string") => "a text",
        _ => "a value",
    };
    std::iter::once(what.to_string()).chain(bounds.into_iter().flatten()).collect::<Vec<_>>().join(" ")
}

/// What a policy's table says, to be asked for setting by setting.
#[derive(Debug)]
pub struct Settings {
    place: String,
    kind: String,
    given: Table,
    /// Settings under keys of `policy` itself, as older files have them.
    flat: Table,
    asked: Vec<Setting>,
}

impl Settings {
    /// The settings of `choice`, which stands at `place`, as in `policy.execution`.
    pub fn new(place: &str, choice: &Choice) -> Self {
        Self {
            place: place.into(),
            kind: choice.kind.clone(),
            given: choice.settings.clone(),
            flat: Table::new(),
            asked: Vec::new(),
        }
    }

    /// The same, where keys of `policy` itself stand in for settings that the table lacks.
    pub(crate) fn or_flat(mut self, flat: Table) -> Self {
        self.flat = flat;
        self
    }

    /// A number in `range`.
    ///
    /// # Errors
    /// What is none, or outside.
    pub fn number(
        &mut self,
        key: &'static str,
        about: &'static str,
        default: f64,
        range: RangeInclusive<f64>,
    ) -> Result<f64> {
        let schema = json_schema!({ "type": "number", "minimum": range.start(), "maximum": range.end() });
        self.ask(key, about, default, schema, |n| range.contains(n))
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    /// What is none, or outside.
    pub fn count(
        &mut self,
        key: &'static str,
        about: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64> {
        let schema = json_schema!({ "type": "integer", "minimum": range.start(), "maximum": range.end() });
        self.ask(key, about, default, schema, |n| range.contains(n))
    }

    /// One of some words, the first unless told.
    ///
    /// # Errors
    /// Another word.
    ///
    /// # Panics
    /// Without words.
    pub fn word(&mut self, key: &'static str, about: &'static str, words: &[&'static str]) -> Result<String> {
        let schema = json_schema!({ "type": "string", "enum": words });
        self.ask(key, about, words[0].to_string(), schema, |w| words.contains(&w.as_str()))
    }

    /// A value of any type that files can hold: true or false, a time, an amount, a type of one's own.
    ///
    /// # Errors
    /// What is no such value.
    pub fn value<T: Serialize + DeserializeOwned + JsonSchema>(
        &mut self,
        key: &'static str,
        about: &'static str,
        default: T,
    ) -> Result<T> {
        let mut schema = schemars::schema_for!(T);
        for key in ["$schema", "title"] {
            schema.remove(key);
        }
        self.ask(key, about, default, schema, |_| true)
    }

    fn ask<T: Serialize + DeserializeOwned>(
        &mut self,
        key: &'static str,
        about: &'static str,
        default: T,
        schema: Schema,
        fits: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let as_toml = |value: &T| {
            Value::try_from(value).map_err(|e| Diag::run(format!("{}.{key} cannot be a setting: {e}", self.place)))
        };
        let mut setting =
            Setting { key, about, default: as_toml(&default)?, schema: schema.to_value(), value: Value::Boolean(true) };
        let (mut value, mut place) = (default, format!("{}.{key}", self.place));
        let flat = self.flat.remove(key);
        if let (Some(_), Some(_)) = (&flat, self.given.get(key)) {
            return Err(Diag::input(format!("stands in {} too", self.place))
                .place(format!("policy.{key}"))
                .cure("leave this one out"));
        }
        let given = self.given.remove(key).or_else(|| {
            place = format!("policy.{key}");
            flat
        });
        if let Some(given) = given {
            let read = T::deserialize(given.clone()).ok().filter(|v| fits(v));
            value = read.ok_or_else(|| {
                let wrong = format!("{given} is not what {key} of {} can be", self.kind);
                Diag::input(wrong).place(place).cure(format!("set it to {}", setting.range()))
            })?;
        }
        setting.value = as_toml(&value)?;
        self.asked.push(setting);
        Ok(value)
    }

    /// What was asked for, in order.
    pub fn asked(&self) -> &[Setting] {
        &self.asked
    }

    /// Ends the asking: the policy with every setting as it is, defaults included.
    ///
    /// # Errors
    /// A setting that was not asked for, with the nearest that was.
    pub fn finish(self) -> Result<Choice> {
        if let Some(key) = self.given.keys().next() {
            let known: Vec<&str> = self.asked.iter().map(|s| s.key).collect();
            let place = format!("{}.{key}", self.place);
            return Err(match known.is_empty() {
                true => Diag::input(format!("{} has no settings", self.kind)).cure("leave it out"),
                false => diag::unknown(&format!("setting of {}", self.kind), key, &known),
            }
            .place(place));
        }
        let settings = self.asked.into_iter().map(|s| (s.key.to_string(), s.value)).collect();
        Ok(Choice { kind: self.kind, settings, alone: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        let choice: Choice = Value::Table(text.parse().unwrap()).try_into().unwrap();
        Settings::new("policy.execution", &choice)
    }

    #[test]
    fn what_nobody_asks_for_is_refused_with_the_nearest() {
        let mut s = settings("kind = \"lru\"\nshaer = 0.5");
        assert_eq!(s.number("share", "", 0.25, 0.0..=1.0).unwrap(), 0.25);
        let problem = s.finish().unwrap_err().to_string();
        assert!(
            problem.contains("policy.execution.shaer: \"shaer\" is not a setting of lru; did you mean \"share\""),
            "{problem}"
        );
        let problem = settings("kind = \"lru\"\nshare = 0.5").finish().unwrap_err().to_string();
        assert_eq!(problem, "policy.execution.share: lru has no settings; leave it out");
    }

    #[test]
    fn ranges_are_kept_and_said() {
        let share = |text: &str| settings(text).number("share", "", 0.25, 0.0..=1.0);
        assert_eq!(share("kind = \"lru\"\nshare = 1").unwrap(), 1.0, "a whole number is a number");
        for wrong in ["1.5", "nan", "\"much\"", "[1]"] {
            let problem = share(&format!("kind = \"lru\"\nshare = {wrong}")).unwrap_err().to_string();
            assert!(problem.ends_with("can be; set it to a number from 0.0 to 1.0"), "{problem}");
        }
        let ways = settings("kind = \"x\"\nway = \"c\"").word("way", "", &["a", "b"]).unwrap_err().to_string();
        assert!(ways.ends_with("set it to \"a\" or \"b\""), "{ways}");
        let count = settings("kind = \"x\"\nn = -1").count("n", "", 3, 1..=9).unwrap_err().to_string();
        assert!(count.ends_with("set it to a whole number from 1 to 9"), "{count}");
        assert!(settings("kind = \"x\"\nb = true").value("b", "", false).unwrap());
    }

    #[test]
    fn keys_of_the_policy_table_stand_in() {
        let flat: Table = "share = 0.5\nother = 1".parse().unwrap();
        let mut s = settings("kind = \"lru\"").or_flat(flat.clone());
        assert_eq!(s.number("share", "", 0.25, 0.0..=1.0).unwrap(), 0.5);
        assert_eq!(s.finish().unwrap(), Choice::named("lru").with("share", 0.5));
        let both = settings("kind = \"lru\"\nshare = 0.1").or_flat(flat).number("share", "", 0.25, 0.0..=1.0);
        assert_eq!(both.unwrap_err().to_string(), "policy.share: stands in policy.execution too; leave this one out");
    }

    #[test]
    fn a_choice_is_a_name_or_a_table() {
        let of =
            |text: &str| toml::from_str::<std::collections::BTreeMap<String, Choice>>(text).map(|m| m["p"].clone());
        assert_eq!(of("p = \"lru\"").unwrap(), Choice::named("lru"));
        let table = of("p = { kind = \"lru\", share = 0.5 }").unwrap();
        assert_eq!(table, Choice::named("lru").with("share", 0.5));
        assert_eq!(toml::to_string(&table).unwrap(), "kind = \"lru\"\nshare = 0.5\n");
        for wrong in ["p = { share = 0.5 }", "p = { kind = 3 }", "p = 3"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
