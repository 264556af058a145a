//! Lists of expert ids in JSON, `[token][layers*k]` or `[token][layer][k]`, read without a tree of values.

use crate::trace::MISSING;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;

/// The ids of some tokens, all of one shape.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) ids: Vec<u16>,
    pub(super) tokens: u64,
    /// (Ids a token, lists a token where they are nested).
    pub(super) shape: Option<(usize, Option<usize>)>,
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Rows;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of tokens")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut tokens: A) -> std::result::Result<Rows, A::Error> {
                let mut rows = Rows::default();
                loop {
                    let at = |e: A::Error| A::Error::custom(format_args!("token {}: {e}", rows.tokens));
                    let Some(shape) = tokens.next_element_seed(Token(&mut rows.ids)).map_err(at)? else { break };
                    let first = *rows.shape.get_or_insert(shape);
                    if shape != first {
                        let problem =
                            format!("token {}: has {} experts, token 0 has {}", rows.tokens, shape.0, first.0);
                        return Err(A::Error::custom(problem));
                    }
                    rows.tokens += 1;
                }
                Ok(rows)
            }
        }
        d.deserialize_seq(Tokens)
    }
}

/// Reads a token, ids or lists of ids, onto the ids.
struct Token<'a>(&'a mut Vec<u16>);

impl<'de> DeserializeSeed<'de> for Token<'_> {
    type Value = (usize, Option<usize>);
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<Self::Value, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Token<'_> {
    type Value = (usize, Option<usize>);
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of experts, or of layers")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Self::Value, A::Error> {
        let start = self.0.len();
        // Layers and experts of the first one, where the token is a list of layers.
        let mut lists: Option<(usize, usize)> = None;
        let mut n = 0usize;
        while let Some(k) = items.next_element_seed(Item { ids: self.0, list: true })? {
            match (k, &mut lists) {
                (Some(k), None) if n == 0 => lists = Some((1, k)),
                (Some(k), Some((layers, first))) if k == *first => *layers += 1,
                (None, None) => {}
                (Some(k), Some((_, first))) => {
                    let problem = format!("list {n} has {k} experts, the first has {first}");
                    return Err(A::Error::custom(problem));
                }
                _ => return Err(A::Error::custom("has experts beside lists of experts")),
            }
            n += 1;
        }
        Ok((self.0.len() - start, lists.map(|l| l.0)))
    }
}

/// Reads an id or, if `list`, perhaps a list of ids, whose length is returned.
struct Item<'a> {
    ids: &'a mut Vec<u16>,
    list: bool,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<Self::Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(if self.list { "an expert id, null or a list of them" } else { "an expert id or null" })
    }
    fn visit_u64<E: Error>(self, id: u64) -> std::result::Result<Self::Value, E> {
        let known = u16::try_from(id).ok().filter(|id| *id != MISSING);
        self.ids.push(known.ok_or_else(|| E::custom(format_args!("{id} is not an expert id")))?);
        Ok(None)
    }
    fn visit_i64<E: Error>(self, id: i64) -> std::result::Result<Self::Value, E> {
        if id != -1 {
            return Err(E::custom(format_args!("{id} is not an expert id")));
        }
        self.visit_unit()
    }
    fn visit_unit<E: Error>(self) -> std::result::Result<Self::Value, E> {
        self.ids.push(MISSING);
        Ok(None)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> std::result::Result<Self::Value, A::Error> {
        if !self.list {
            return Err(A::Error::custom("has lists in a list of experts"));
        }
        let start = self.ids.len();
        while ids.next_element_seed(Item { ids: self.ids, list: false })?.is_some() {}
        Ok(Some(self.ids.len() - start))
    }
}
