//! Any flat table in Parquet as CSV text: numbers, truth values and strings, an empty field for what is not there.

use super::file::Source;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::types::{UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use moesim_core::{Diag, Result};
use std::path::Path;

const BATCH: usize = 4096;
/// Bytes of text, at most.
const MOST: usize = 1 << 30;

/// The text of the file at `path`, a line of names first.
///
/// # Errors
/// What cannot be decoded, a column of lists or other nested or dated values, more than 1 GiB of text.
pub(super) fn csv(path: &Path) -> Result<Vec<u8>> {
    let source = Source::open(path)?;
    let fields = source.schema().fields().clone();
    if let Some(field) = fields.iter().find(|f| !is_plain(f.data_type())) {
        return Err(Diag::input(format!("column {} holds {}, not numbers or text", field.name(), field.data_type()))
            .file(path)
            .cure("leave the column out, or write it as numbers or text"));
    }
    let mut out = csv::Writer::from_writer(Vec::new());
    let unwritten = |e: csv::Error| Diag::run(format!("a table cannot be written as text: {e}")).file(path);
    out.write_record(fields.iter().map(|f| f.name())).map_err(unwritten)?;
    let all: Vec<usize> = (0..fields.len()).collect();
    let mut batches = source.batches(&all, BATCH, 0)?;
    while let Some(batch) = batches.next()? {
        for row in 0..batch.num_rows() {
            out.write_record(batch.columns().iter().map(|c| text(c, row))).map_err(unwritten)?;
            if out.get_ref().len() > MOST {
                return Err(batches.at(Diag::input("is larger than 1 GiB as text").cure("give fewer rows")));
            }
        }
    }
    out.into_inner().map_err(|e| Diag::run(format!("a table cannot be written as text: {e}")).file(path))
}

fn is_plain(t: &DataType) -> bool {
    t.is_integer() || matches!(t, DataType::Float32 | DataType::Float64 | DataType::Utf8 | DataType::Boolean)
}

fn text(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return String::new();
    }
    macro_rules! shown {
        ($($name:ident => $of:ident),*) => {
            match column.data_type() {
                $(DataType::$name => column.as_primitive::<$of>().value(row).to_string(),)*
                DataType::Boolean => column.as_boolean().value(row).to_string(),
                DataType::Utf8 => column.as_string::<i32>().value(row).to_string(),
                // Refused before anything is read.
                _ => String::new(),
            }
        };
    }
    shown!(
        Int8 => Int8Type, Int16 => Int16Type, Int32 => Int32Type, Int64 => Int64Type, UInt8 => UInt8Type,
        UInt16 => UInt16Type, UInt32 => UInt32Type, UInt64 => UInt64Type, Float32 => Float32Type, Float64 => Float64Type
    )
}
