//! The table of a sweep.

use crate::data::CsvTable;
use moesim_core::diag::{Diag, Result, unknown};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The column whose text labels points: the resource that binds.
const LABEL: &str = "binding";

/// The points of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepTable {
    /// The keys that were varied, as written in the sweep file.
    pub keys: Vec<String>,
    /// The points, in the sweep's order.
    pub points: Vec<SweepPoint>,
    /// What a reader of the picture should know of them.
    pub note: Option<String>,
}

/// One point of a sweep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SweepPoint {
    /// The values of the keys, in the order of [`SweepTable::keys`], as text with its unit.
    pub values: Vec<String>,
    /// The metrics by name; `None` where the point failed or the metric has no value.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// What to write beside the point, for example the resource that binds.
    pub label: Option<String>,
}

impl SweepTable {
    /// Reads `sweep.csv`: the columns `keys`, then `status`, then metrics. A point whose status is not `ok` has no values;
    /// the column `binding`, if there is one, labels points; other columns of text are no metrics.
    ///
    /// # Errors
    /// An input error, with file and row, if the table is malformed or lacks a column.
    pub fn from_csv(path: impl AsRef<Path>, keys: &[String]) -> Result<Self> {
        let path = path.as_ref();
        let columns: Vec<&str> = keys.iter().map(String::as_str).chain(["status"]).collect();
        let mut table = CsvTable::open(path, &columns)?;
        let header: Vec<String> = table.header().map(str::to_string).collect();
        let status = header.iter().position(|h| h == "status").unwrap_or(0);
        let mut metrics: Vec<(usize, String, bool)> = (status + 1..header.len())
            .filter(|&i| header[i] != LABEL && !keys.contains(&header[i]))
            .map(|i| (i, header[i].clone(), false))
            .collect();
        let label = header.iter().position(|h| h == LABEL);
        let mut points: Vec<SweepPoint> = Vec::new();
        while let Some(row) = table.next_row()? {
            let ok = row.text(keys.len()) == "ok";
            let mut point = SweepPoint {
                values: (0..keys.len()).map(|i| row.text(i).to_string()).collect(),
                label: label.map(|i| row.cell(i).to_string()).filter(|l| ok && !l.is_empty()),
                ..SweepPoint::default()
            };
            let mut texts = Vec::new();
            for (i, name, numeric) in &mut metrics {
                let value = if ok { row.cell_number(*i) } else { Ok(None) };
                match value {
                    Ok(v) => {
                        *numeric |= v.is_some();
                        point.metrics.insert(name.clone(), v);
                    }
                    // Text before any number: a column of text.
                    Err(_) if !*numeric => texts.push(name.clone()),
                    Err(e) => return Err(e),
                }
            }
            if !texts.is_empty() {
                metrics.retain(|m| !texts.contains(&m.1));
                points.iter_mut().for_each(|p| p.metrics.retain(|name, _| !texts.contains(name)));
            }
            points.push(point);
        }
        if points.is_empty() {
            return Err(Diag::input("has no points").file(path).cure("run the sweep to its end"));
        }
        Ok(Self { keys: keys.to_vec(), points, note: None })
    }
    /// The same points over one or two of the keys, given by number; what the others say of a point joins the first name, so that
    /// each point still has a place of its own.
    pub fn over(&self, keys: &[usize]) -> Self {
        let others: Vec<usize> = (0..self.keys.len()).filter(|k| !keys.contains(k)).collect();
        // A single key becomes the axis along which the others are compared.
        let (first, along) = match *keys {
            [x] => (others, vec![x]),
            [] => (others, Vec::new()),
            [first, ..] => ([&[first], &others[..]].concat(), keys[1..].to_vec()),
        };
        let joined = |texts: &[String]| {
            let first = first.iter().map(|&k| texts[k].as_str()).collect::<Vec<_>>().join(", ");
            let along = along.iter().map(|&k| texts[k].clone());
            if self.keys.len() > along.len() { std::iter::once(first).chain(along).collect() } else { along.collect() }
        };
        let points = self.points.iter().map(|p| SweepPoint { values: joined(&p.values), ..p.clone() }).collect();
        Self { keys: joined(&self.keys), points, note: self.note.clone() }
    }
    /// The names of all metrics, sorted.
    pub fn metrics(&self) -> Vec<&str> {
        let names: BTreeSet<&str> = self.points.iter().flat_map(|p| p.metrics.keys().map(String::as_str)).collect();
        names.into_iter().collect()
    }
    /// Checks that the table can be drawn: one or two keys, every point with as many values and alone with them, a known
    /// metric.
    pub(crate) fn check(&self, metric: &str) -> Result<()> {
        if !(1..=2).contains(&self.keys.len()) {
            return Err(Diag::input(format!("a plot of a sweep shows one or two keys, not {}", self.keys.len()))
                .cure("name the one or two keys to plot, and keep the others fixed"));
        }
        if let Some(i) = self.points.iter().position(|p| p.values.len() != self.keys.len()) {
            return Err(Diag::input("the point has not one value a key").place(format!("point {}", i + 1)));
        }
        let mut seen = BTreeSet::new();
        if let Some(p) = self.points.iter().find(|p| !seen.insert(&p.values)) {
            let same: Vec<String> = self.keys.iter().zip(&p.values).map(|(k, v)| format!("{k} = {v}")).collect();
            return Err(Diag::input(format!("several points have {}", same.join(", ")))
                .cure("plot the key in which they differ too, or keep one of its values only"));
        }
        let known = self.metrics();
        if known.contains(&metric) { Ok(()) } else { Err(unknown("metric of this sweep", metric, &known)) }
    }
}
