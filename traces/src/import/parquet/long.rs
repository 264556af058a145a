//! One row a token and layer, in the columns of the form `csv` ([`super::super::csv_rows`]): `sequence`, `position` (or
//! `token`), `layer`, `expert0`, `expert1`, ... (or `expert_0`, `e0`), and perhaps `phase` (0 prefill, 1 decode) and gate
//! weights `weight0`, `weight1`, ..., 32-bit floats.
//!
//! * All other columns are integers of any width; null, -1 and 65535 are missing experts. Columns of other names are not
//!   read.
//! * The footer's metadata may say `moesim.model`, `moesim.experts`, `moesim.source` and `moesim.licence`.

use super::file::{NULL, Source, expert, integers, is_integer, shown};
use crate::import::csv_rows::Rows;
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
    let columns = Columns::find(source.schema(), options).map_err(|d| d.file(path))?;
    let mut rows = Rows::new(path, options, sink, columns.experts.len());
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
    sequence: usize,
    position: usize,
    layer: usize,
    phase: Option<usize>,
    experts: Vec<usize>,
    weights: Vec<usize>,
}

impl Columns {
    fn find(schema: &Schema, options: &Options) -> Result<Self> {
        let wrong = |problem: String| {
            Diag::input(problem)
                .place("schema")
                .cure("write the columns sequence, position, layer, expert0, expert1, ..., one row a token and layer")
        };
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let known = |n: &str| {
            matches!(n, "sequence" | "position" | "token" | "layer" | "phase")
                || n.trim_end_matches(|c: char| c.is_ascii_digit()).len() < n.len()
        };
        let mut sorted: Vec<&str> = names.iter().copied().filter(|n| known(n)).collect();
        sorted.sort_unstable();
        if let Some(w) = sorted.windows(2).find(|w| w[0] == w[1]) {
            return Err(wrong(format!("has the column `{}` twice", shown(w[0]))));
        }
        let typed = |i: usize, good: bool, what: &str| {
            let problem = || format!("column `{}` has the type {}, not {what}", names[i], schema.field(i).data_type());
            if good { Ok(i) } else { Err(wrong(problem())) }
        };
        let find = |of: &[&str]| {
            let integer = |i| typed(i, is_integer(schema.field(i).data_type()), "an integer");
            of.iter().find_map(|n| names.iter().position(|c| c == n)).map(integer).transpose()
        };
        let need = |of: &[&str]| find(of)?.ok_or_else(|| wrong(format!("lacks the column `{}`", of[0])));
        let numbered = |i: usize, prefixes: &[&str]| prefixes.iter().map(|p| format!("{p}{i}")).collect::<Vec<_>>();
        let (mut experts, mut weights) = (Vec::new(), Vec::new());
        loop {
            let of = numbered(experts.len(), &["expert", "expert_", "e"]);
            let Some(i) = find(&of.iter().map(String::as_str).collect::<Vec<_>>())? else { break };
            experts.push(i);
        }
        while let Some(i) = names.iter().position(|n| *n == format!("weight{}", weights.len())) {
            weights.push(typed(i, schema.field(i).data_type() == &DataType::Float32, "a 32-bit float")?);
        }
        if experts.is_empty() {
            return Err(wrong("lacks the column `expert0`".into()));
        }
        let beyond = |n: &&&str| {
            let digits = n.strip_prefix("expert").map(|d| d.trim_start_matches('_'));
            digits.is_some_and(|d| d.parse::<usize>().is_ok_and(|i| i >= experts.len()))
        };
        if let Some(n) = names.iter().find(beyond) {
            return Err(wrong(format!("has the column `{}`, but no `expert{}`", shown(n), experts.len())));
        }
        if !weights.is_empty() && weights.len() != experts.len() {
            let problem = format!("has {} columns of weights and {} of experts", weights.len(), experts.len());
            return Err(wrong(problem));
        }
        if let Some(k) = options.k.filter(|k| *k as usize != experts.len()) {
            return Err(wrong(format!("has {} columns of experts, not {k}", experts.len())));
        }
        Ok(Self {
            sequence: need(&["sequence"])?,
            position: need(&["position", "token"])?,
            layer: need(&["layer"])?,
            phase: find(&["phase"])?,
            experts,
            weights,
        })
    }
    /// Ascending, as batches have them.
    fn all(&self) -> Vec<usize> {
        let mut all = vec![self.sequence, self.position, self.layer];
        all.extend(self.phase.iter().chain(&self.experts).chain(&self.weights));
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
        integers(array(columns.sequence), &mut self.sequence);
        integers(array(columns.position), &mut self.position);
        integers(array(columns.layer), &mut self.layer);
        if let Some(c) = columns.phase {
            integers(array(c), self.phase.get_or_insert_default());
        }
        self.experts.resize_with(columns.experts.len(), Vec::new);
        for (c, out) in columns.experts.iter().zip(&mut self.experts) {
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
