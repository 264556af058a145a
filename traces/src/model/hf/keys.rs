//! The keys of a configuration, read one by one: what nobody read, and nobody knows to be harmless, is refused.

use moesim_core::{Diag, Result};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// An object of a configuration, and which of its keys were read.
pub(super) struct Keys<'a> {
    map: &'a Map<String, Value>,
    /// What stands before a key in messages: `text_config.`, or nothing.
    at: String,
    /// The family of models, or the method of quantisation, that reads.
    reader: String,
    read: RefCell<BTreeSet<&'a str>>,
}

/// A value as a message quotes it.
fn quote(value: &Value) -> String {
    let text = value.to_string();
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { short + "..." } else { text }
}

impl<'a> Keys<'a> {
    pub(super) fn new(map: &'a Map<String, Value>, at: &str, reader: impl Into<String>) -> Self {
        Self { map, at: at.into(), reader: reader.into(), read: RefCell::default() }
    }
    /// The same keys, read by another. What was read so far stays read.
    pub(super) fn of(&self, reader: String) -> Self {
        Self { map: self.map, at: self.at.clone(), reader, read: self.read.clone() }
    }
    /// A key as messages name it.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.at)
    }
    /// The family or the method, as messages name it.
    pub(super) fn reader(&self) -> &str {
        &self.reader
    }
    /// What is wrong with a key, for this family.
    pub(super) fn wrong(&self, key: &str, problem: impl AsRef<str>) -> Diag {
        Diag::input(format!("{} ({})", problem.as_ref(), self.reader)).place(self.name(key))
    }
    /// The value; `null` is as good as nothing.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        let (name, value) = self.map.get_key_value(key)?;
        self.read.borrow_mut().insert(name);
        if value.is_null() { None } else { Some(value) }
    }
    /// The value, or the one that a list repeats.
    ///
    /// # Errors
    /// A list of several values: they differ from layer to layer.
    fn scalar(&self, key: &str) -> Result<Option<&'a Value>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Value::Array(list) = value else { return Ok(Some(value)) };
        match list.split_first() {
            Some((first, rest)) if rest.iter().all(|v| v == first) => Ok(Some(first).filter(|v| !v.is_null())),
            Some(_) => Err(self
                .wrong(
                    key,
                    format!("is a list of different values, {}, where one value can be expressed", quote(value)),
                )
                .cure("write a model file with a [[decoder_stack]] for each run of layers that are alike")),
            None => Ok(None),
        }
    }
    fn typed<T>(&self, key: &str, what: &str, of: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.scalar(key)? else { return Ok(None) };
        let wrong = || {
            self.wrong(key, format!("is {}, not {what}", quote(value)))
                .cure("correct it, as the model's own configuration has it")
        };
        of(value).map(Some).ok_or_else(wrong)
    }
    /// A whole number of 32 bits.
    pub(super) fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a whole number below 2^32", |v| {
            let whole = |f: f64| (f >= 0.0 && f <= f64::from(u32::MAX) && f.floor() == f).then_some(f as u32);
            v.as_u64().map_or_else(|| v.as_f64().and_then(whole), |n| u32::try_from(n).ok())
        })
    }
    pub(super) fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }
    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a text", Value::as_str)
    }
    /// A list of values of one type; `None` if there is no such key.
    fn list<T>(&self, key: &str, what: &str, of: impl Fn(&'a Value) -> Option<T>) -> Result<Option<Vec<T>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().and_then(|l| l.iter().map(of).collect::<Option<Vec<T>>>());
        list.map(Some).ok_or_else(|| {
            self.wrong(key, format!("is {}, not a list of {what}", quote(value)))
                .cure("correct it, as the model's own configuration has it")
        })
    }
    pub(super) fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.list(key, "whole numbers", |v| v.as_u64().and_then(|n| u32::try_from(n).ok()))
    }
    pub(super) fn f64s(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.list(key, "numbers", Value::as_f64)
    }
    pub(super) fn bools(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.list(key, "true and false", Value::as_bool)
    }
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.list(key, "texts", Value::as_str)
    }
    /// An object inside this one, with keys of its own.
    pub(super) fn inner(&self, key: &str) -> Result<Option<Keys<'a>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || self.wrong(key, format!("is {}, not an object of keys", quote(value)));
        let map = value.as_object().ok_or_else(|| wrong().cure("correct it, or leave the key out"))?;
        Ok(Some(Keys::new(map, &format!("{}.", self.name(key)), self.reader.clone())))
    }
    /// A number with several spellings, which must agree.
    pub(super) fn any(&self, spellings: &[&str]) -> Result<Option<u32>> {
        let mut found: Option<(&str, u32)> = None;
        for key in spellings {
            match (self.u32(key)?, found) {
                (Some(value), Some((other, first))) if value != first => {
                    let problem = format!("says {other} {first}, but {key} {value}");
                    return Err(self.wrong(key, problem).cure("keep the one that is right"));
                }
                (Some(value), None) => found = Some((key, value)),
                _ => {}
            }
        }
        Ok(found.map(|f| f.1))
    }
    /// [`Keys::any`] of a number without which there is no model.
    pub(super) fn need(&self, spellings: &[&str]) -> Result<u32> {
        let missing = || {
            self.wrong(spellings[0], format!("`{}` is missing", spellings[0]))
                .cure("add it, as the model's own configuration has it")
        };
        self.any(spellings)?.ok_or_else(missing)
    }
    /// A feature that model files cannot express: it must be absent or off.
    pub(super) fn off(&self, key: &str, feature: &str) -> Result<()> {
        match self.get(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(Value::Number(n)) if n.as_f64() == Some(0.0) => Ok(()),
            Some(Value::Array(list)) if list.is_empty() => Ok(()),
            Some(Value::Object(map)) if map.is_empty() => Ok(()),
            Some(Value::String(text)) if text.is_empty() => Ok(()),
            Some(value) => Err(self.wrong(key, format!("is {}: {feature} cannot be expressed", quote(value))).cure(
                "choose a model without, or write a model file of what comes near: `moesim schema model` has the keys",
            )),
        }
    }
    /// The keys that are there.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }
    /// Keys with a value that nobody read.
    pub(super) fn unread(&self) -> Vec<&'a str> {
        let read = self.read.borrow();
        self.map.iter().filter(|(k, v)| !v.is_null() && !read.contains(k.as_str())).map(|(k, _)| k.as_str()).collect()
    }
    /// Refuses the first key that was not read and that `harmless` does not know.
    pub(super) fn finish(&self, harmless: impl Fn(&str) -> bool) -> Result<()> {
        match self.unread().into_iter().find(|k| !harmless(k)) {
            None => Ok(()),
            Some(key) => Err(self
                .wrong(key, format!("`{key}` is not known: it may bear on sizes, precision or attention"))
                .cure("if it does not, delete it from a copy of the configuration and import that")),
        }
    }
}
