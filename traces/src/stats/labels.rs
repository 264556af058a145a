//! Labels of a trace's sequences, out of a table.

use crate::csv_lines::{self, broken};
use crate::trace::Trace;
use moesim_core::{Diag, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Different labels at most: a label of every sequence is no topic.
const LABELS: usize = 1 << 16;

/// Labels of a trace's sequences: a topic of each, by position in the trace, and their names.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// Index into `names`, one a sequence.
    pub of: Vec<usize>,
    /// The topics.
    pub names: Vec<String>,
}

impl Labels {
    /// Reads a CSV table with the columns `sequence` (its number) and `topic`. Rows of other sequences are ignored.
    ///
    /// # Errors
    /// A file that is no such table, a sequence without a topic, more than 65,536 topics.
    pub fn read(path: &Path, trace: &Trace) -> Result<Self> {
        let cure = "give a header `sequence,topic` and one row for every sequence of the trace";
        let wrong = |place: String, problem: String| Diag::input(problem).file(path).place(place).cure(cure);
        let mut reader = csv_lines::open(path, csv::ReaderBuilder::new().trim(csv::Trim::All))?;
        let header = reader.headers().map_err(|e| broken(path, &e))?.clone();
        let column = |name: &str| {
            let found = header.iter().position(|h| h == name);
            found.ok_or_else(|| wrong("line 1".into(), format!("has no column `{name}`")))
        };
        let (sequence, topic) = (column("sequence")?, column("topic")?);
        let places: BTreeMap<u32, usize> = (0..trace.sequences()).map(|i| (trace.sequence(i).id, i)).collect();
        let mut of: Vec<Option<usize>> = vec![None; trace.sequences()];
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut names = Vec::new();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|e| broken(path, &e))? {
            let place = || format!("line {}", record.position().map_or(0, csv::Position::line));
            let number = record.get(sequence).unwrap_or_default();
            let parsed: u32 =
                number.parse().map_err(|_| wrong(place(), format!("\"{number:.20}\" is not a number")))?;
            // Labels of sequences that a slice left out do no harm.
            let Some(at) = places.get(&parsed) else { continue };
            let name: String = record.get(topic).unwrap_or_default().chars().take(100).collect();
            let next = names.len();
            let number = *numbers.entry(name.clone()).or_insert(next);
            if number == LABELS {
                let d = Diag::input("has more than 65536 topics").file(path).place(place());
                return Err(d.cure("give sequences that belong together the same topic"));
            }
            if number == next {
                names.push(name);
            }
            of[*at] = Some(number);
        }
        match of.iter().position(Option::is_none) {
            Some(i) => Err(wrong("end".into(), format!("has no topic for sequence {}", trace.sequence(i).id))),
            None => Ok(Self { of: of.into_iter().flatten().collect(), names }),
        }
    }
}
