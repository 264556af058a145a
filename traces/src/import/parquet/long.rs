//! One row a token and layer, in the columns of the form `csv` ([`super::super::csv_rows`]): `sequence`, `position` (or
//! `token`), `layer`, `expert0`, `expert1`, ... (or `expert_0`, `e0`), and perhaps `phase` (0 prefill, 1 decode) and gate
//! weights `weight0`, `weight1`, ..., 32-bit floats.
//!
//! * All other columns are integers of any width; null, -1 and 65535 are missing experts. Columns of other names are not
//!   read.
//! * The footer's metadata may say `moesim.model`, `moesim.experts`, `moesim.source` and `moesim.licence`.

use super::file::{NULL, Source, expert, integers, is_integer, shown};
use crate::import::rows::{self, Rows, known, numbered, wrong_columns};
use crate::import::{Declared, Options, Phase, Sink};
use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};
use moesim_core::{Diag, Result};
use std::path::Path;

/// Rows decoded at a time.
const BATCH: usize = 8192;

pub(super) fn import(path: &Path, options: &Options, sink: &mut dyn Sink) -> Result<()> {
    let source = Source::open(path)?;
    let columns = Columns::find(source.schema()).map_err(|d| d.file(path).place("schema"))?;
    let mut rows = Rows::new(path, options, sink, columns.rows.experts.len());
    rows.declared = declared(&source).map_err(|d| d.file(path))?;
    let mut batches = source.batches(&columns.all(), BATCH, 0)?;
    let mut values = Values::default();
    while let Some(batch) = batches.next()? {
        let first = batches.rows - batch.num_rows() as u64;
        values.fill(&columns, &batch);
        for i in 0..batch.num_rows() {
            values.push(i, options.phase, &mut rows).map_err(|d| {
                let row = format!("row {}", first + i as u64);
                let place = d.place.as_ref().map_or(row.clone(), |p| format!("{row}, {p}"));
                batches.at(Diag { place: Some(place), ..d })
            })?;
        }
    }
    rows.finish().map_err(|d| d.file(path))
}

fn declared(source: &Source) -> Result<Declared> {
    let text = |key: &str| source.value(key).map(str::to_string);
    let number = |n: &str| {
        let wrong = || Diag::input(format!("\"{}\" is not a number of experts", shown(n)));
        n.parse().map_err(|_| wrong().place("metadata, moesim.experts").cure("write a whole number"))
    };
    Ok(Declared {
        layer_numbers: None,
        experts: source.value("moesim.experts").map(number).transpose()?,
        model: text("moesim.model"),
        source: text("moesim.source"),
        licence: text("moesim.licence"),
    })
}

/// Where the columns are in the schema.
struct Columns {
    rows: rows::Columns,
    weights: Vec<usize>,
}

impl Columns {
    fn find(schema: &Schema) -> Result<Self> {
        let known = known(schema.fields().iter().map(|f| f.name().as_str()))?;
        let rows = rows::Columns::find(&known)?;
        let weights = numbered(&known, &["weight"]);
        if !weights.is_empty() && weights.len() != rows.experts.len() {
            let problem = format!("has {} columns of weights and {} of experts", weights.len(), rows.experts.len());
            return Err(wrong_columns(problem));
        }
        let columns = Self { rows, weights };
        let weight = |i: &usize| columns.weights.contains(i);
        for (i, field) in columns.all().into_iter().map(|i| (i, schema.field(i))) {
            let (good, what) = match weight(&i) {
                true => (field.data_type() == &DataType::Float32, "a 32-bit float"),
                false => (is_integer(field.data_type()), "an integer"),
            };
            if !good {
                let problem = format!("column `{:.40}` has the type {}, not {what}", field.name(), field.data_type());
                return Err(wrong_columns(problem));
            }
        }
        Ok(columns)
    }
    /// Ascending, as batches have them.
    fn all(&self) -> Vec<usize> {
        let rows = &self.rows;
        let mut all = vec![rows.sequence, rows.position, rows.layer];
        all.extend(rows.phase.iter().chain(&rows.experts).chain(&self.weights));
        all.sort_unstable();
        all
    }
}

/// A batch, column by column.
#[derive(Default)]
struct Values {
    sequence: Vec<i64>,
    position: Vec<i64>,
    layer: Vec<i64>,
    phase: Option<Vec<i64>>,
    experts: Vec<Vec<i64>>,
    weights: Vec<Vec<f32>>,
}

impl Values {
    fn fill(&mut self, columns: &Columns, batch: &RecordBatch) {
        let all = columns.all();
        let array = |column: usize| batch.column(all.binary_search(&column).unwrap_or_default()).as_ref();
        let rows = &columns.rows;
        integers(array(rows.sequence), &mut self.sequence);
        integers(array(rows.position), &mut self.position);
        integers(array(rows.layer), &mut self.layer);
        if let Some(c) = rows.phase {
            integers(array(c), self.phase.get_or_insert_default());
        }
        self.experts.resize_with(rows.experts.len(), Vec::new);
        for (c, out) in rows.experts.iter().zip(&mut self.experts) {
            integers(array(*c), out);
        }
        self.weights.resize_with(columns.weights.len(), Vec::new);
        for (c, out) in columns.weights.iter().zip(&mut self.weights) {
            let weights = array(*c).as_primitive::<Float32Type>();
            out.clear();
            // A missing weight is not a number, which is refused as such.
            out.extend((0..weights.len()).map(|i| if weights.is_null(i) { f32::NAN } else { weights.value(i) }));
        }
    }
    /// Gives row `i` to `rows`.
    fn push(&self, i: usize, phase: Phase, rows: &mut Rows) -> Result<()> {
        let wrong = |value: i64, place: &str, what: &str, cure: &str| {
            let value = if value == NULL { "null".to_string() } else { value.to_string() };
            Diag::input(format!("{value} is not {what}")).place(place).cure(cure)
        };
        let count = |values: &[i64], name: &str| {
            let cure = "write whole numbers from 0 to 4294967295";
            u32::try_from(values[i]).map_err(|_| wrong(values[i], name, &format!("a {name} number"), cure))
        };
        let phase = match self.phase.as_ref().map(|p| p[i]) {
            None => phase,
            Some(0) => Phase::Prefill,
            Some(1) => Phase::Decode,
            Some(other) => return Err(wrong(other, "phase", "a phase", "write 0 for prefill, 1 for decode")),
        };
        let token = (count(&self.sequence, "sequence")?, phase, count(&self.position, "position")?);
        rows.layer(token, count(&self.layer, "layer")?)?;
        let ids = rows.ids(phase);
        for (n, column) in self.experts.iter().enumerate() {
            let id = expert(column[i]).ok_or_else(|| {
                let cure = "write ids from 0, and null or -1 for missing";
                wrong(column[i], &format!("expert{n}"), "an expert id", cure)
            })?;
            ids.push(id);
        }
        if !self.weights.is_empty() {
            rows.weights().extend(self.weights.iter().map(|column| column[i]));
        }
        Ok(())
    }
}
