//! Values of a swept key: numbers with a common unit, or names.

use moesim_core::quantity::{Bandwidth, Bytes, FlopRate, Picos};
use std::collections::{BTreeMap, BTreeSet};

/// The distinct values of a key.
pub(super) struct Key {
    /// The name, as written in the sweep file.
    pub(super) name: String,
    /// The name, with the unit if the values are numbers with one: for an axis of numbers.
    pub(super) title: String,
    /// Distinct values as text: ascending if they are numbers, else in the table's order.
    pub(super) values: Vec<String>,
    /// Their numbers, if all have one.
    pub(super) numbers: Option<Vec<f64>>,
    places: BTreeMap<String, usize>,
}

impl Key {
    pub(super) fn new<'a>(name: &str, values: impl Iterator<Item = &'a str>) -> Self {
        let mut distinct: Vec<String> = Vec::new();
        let mut seen = BTreeSet::new();
        for v in values {
            if seen.insert(v) {
                distinct.push(v.to_string());
            }
        }
        let (mut title, mut numbers) = (name.to_string(), None);
        if let Some((found, unit)) = common(&distinct) {
            let mut pairs: Vec<(f64, String)> = found.into_iter().zip(distinct).collect();
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (found, values) = pairs.into_iter().unzip();
            (numbers, distinct) = (Some(found), values);
            if !unit.is_empty() {
                title += &format!(" ({unit})");
            }
        }
        let places = distinct.iter().cloned().zip(0..).collect();
        Self { name: name.into(), title, values: distinct, numbers, places }
    }
    /// Where a value stands in `values`.
    pub(super) fn index(&self, value: &str) -> usize {
        self.places.get(value).copied().unwrap_or(0)
    }
}

/// The numbers that the texts hold, in the unit of the first.
fn common(texts: &[String]) -> Option<(Vec<f64>, String)> {
    let split = |t: &'_ str| -> Option<(f64, String)> {
        let t = t.trim();
        let end = t.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
        let number: f64 = t[..end].replace('_', "").parse().ok().filter(|v: &f64| v.is_finite())?;
        Some((number, t[end..].trim().to_string()))
    };
    let parts = texts.iter().map(|t| split(t)).collect::<Option<Vec<_>>>()?;
    let (first, unit) = parts.first()?.clone();
    if parts.iter().all(|p| p.1 == unit) {
        return Some((parts.into_iter().map(|p| p.0).collect(), unit));
    }
    // Different units of one quantity: all in that of the first.
    let bases: [fn(&str) -> Option<f64>; 4] = [
        |t| Some(t.parse::<Bandwidth>().ok()?.per_second()),
        |t| Some(t.parse::<Bytes>().ok()?.as_f64()),
        |t| Some(t.parse::<FlopRate>().ok()?.per_second()),
        |t| Some(t.parse::<Picos>().ok()?.seconds()),
    ];
    let in_base = bases.iter().find_map(|of| texts.iter().map(|t| of(t)).collect::<Option<Vec<f64>>>())?;
    let scale = first / in_base[0];
    (scale.is_finite() && scale > 0.0).then(|| (in_base.iter().map(|v| v * scale).collect(), unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_share_a_unit_or_are_names() {
        let key = |values: &[&str]| {
            let key = Key::new("k", values.iter().copied());
            (key.title, key.numbers)
        };
        assert_eq!(key(&["8", "1", "8"]), ("k".into(), Some(vec![1.0, 8.0])));
        assert_eq!(key(&["800 GB/s", "1.6 TB/s"]), ("k (GB/s)".into(), Some(vec![800.0, 1600.0])));
        assert_eq!(key(&["80 GiB", "40 GiB"]), ("k (GiB)".into(), Some(vec![40.0, 80.0])));
        assert_eq!(key(&["greedy", "ilp"]), ("k".into(), None));
        assert_eq!(key(&["8", "auto"]), ("k".into(), None));
        assert_eq!(key(&["8 GB/s", "8 ns"]), ("k".into(), None));
    }
}
