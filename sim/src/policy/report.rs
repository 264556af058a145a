//! What a policy counted, for the summary.

use serde::{Serialize, Serializer, ser::SerializeMap};

/// Counters of a policy in the order in which it names them. In `summary.json` they stand at `counters` under the policy's name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report(Vec<(&'static str, Counter)>);

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Counter {
    /// How many, or how much.
    Count(u64),
    /// A part of a whole; none if there was nothing.
    Ratio(Option<f64>),
}

impl Report {
    /// Adds a count. Names are in snake_case and end in the unit if there is one, as in `loaded_bytes`.
    pub fn count(&mut self, name: &'static str, n: u64) {
        self.0.push((name, Counter::Count(n)));
    }

    /// Adds `part` over `whole`.
    pub fn ratio(&mut self, name: &'static str, part: u64, whole: u64) {
        let ratio = (whole > 0).then(|| part as f64 / whole as f64);
        self.0.push((name, Counter::Ratio(ratio)));
    }

    /// The count of this name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|c| c.0 == name).and_then(|c| match c.1 {
            Counter::Count(n) => Some(n),
            Counter::Ratio(_) => None,
        })
    }

    /// The ratio of this name.
    pub fn ratio_of(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|c| c.0 == name).and_then(|c| match c.1 {
            Counter::Ratio(ratio) => ratio,
            Counter::Count(_) => None,
        })
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it in one line.
    pub fn text(&self) -> String {
        let one = |(name, counter): &(&str, Counter)| match counter {
            Counter::Ratio(Some(r)) => format!("{} {:.1} %", name.replace('_', " "), 100.0 * r),
            Counter::Ratio(None) => format!("{} -", name.replace('_', " ")),
            Counter::Count(n) => match name.strip_suffix("_bytes") {
                Some(what) => format!("{} {:.2} GB", what.replace('_', " "), *n as f64 / 1e9),
                None => format!("{} {n}", name.replace('_', " ")),
            },
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, counter)| map.serialize_entry(name, counter))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_keep_their_order() {
        let mut r = Report::default();
        r.ratio("hit_rate", 3, 4);
        r.ratio("precision", 0, 0);
        r.count("loaded_bytes", 2_500_000_000);
        assert_eq!(
            serde_json::to_string(&r).unwrap(),
            r#"{"hit_rate":0.75,"precision":null,"loaded_bytes":2500000000}"#
        );
        assert_eq!(r.text(), "hit rate 75.0 %, precision -, loaded 2.50 GB");
        assert_eq!((r.get("loaded_bytes"), r.get("hit_rate")), (Some(2_500_000_000), None));
        assert_eq!((r.ratio_of("hit_rate"), r.ratio_of("loaded_bytes")), (Some(0.75), None));
    }
}
