//! How much of the experts a device keeps.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;

/// The share of a group's experts that each of its devices caches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CacheFraction {
    /// What memory is left beside all other weights, a staging buffer and a KV cache for one full batch (see [`Plan::room_for_experts`](crate::machine::Plan::room_for_experts)).
    #[default]
    Auto,
    /// This fraction, above 0 and at most 1.
    Of(f64),
}

/// The fraction `f`, if it is one.
fn fraction<E: de::Error>(f: f64, expected: &dyn de::Expected) -> std::result::Result<CacheFraction, E> {
    if f > 0.0 && f <= 1.0 {
        return Ok(CacheFraction::Of(f));
    }
    Err(E::invalid_value(de::Unexpected::Float(f), expected))
}

const AUTO: &str = "auto";

impl Serialize for CacheFraction {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Auto => s.serialize_str(AUTO),
            Self::Of(f) => s.serialize_f64(*f),
        }
    }
}

impl<'de> Deserialize<'de> for CacheFraction {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl de::Visitor<'_> for Visit {
            type Value = CacheFraction;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a fraction above 0 and at most 1, or \"auto\"")
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> std::result::Result<CacheFraction, E> {
                fraction(v, &self)
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> std::result::Result<CacheFraction, E> {
                fraction(v as f64, &self)
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> std::result::Result<CacheFraction, E> {
                fraction(v as f64, &self)
            }
            fn visit_str<E: de::Error>(self, v: &str) -> std::result::Result<CacheFraction, E> {
                if v == AUTO { Ok(CacheFraction::Auto) } else { Err(E::invalid_value(de::Unexpected::Str(v), &self)) }
            }
        }
        d.deserialize_any(Visit)
    }
}

impl JsonSchema for CacheFraction {
    fn schema_name() -> Cow<'static, str> {
        "CacheFraction".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": AUTO }, { "type": "number", "exclusiveMinimum": 0, "maximum": 1 }] })
    }
}
