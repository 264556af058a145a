//! Slices of a trace, and traces merged; one sequence in memory at a time.

use crate::trace::{Meta, Summary, Trace, Writer};
use moesim_core::{Diag, Result};
use std::ops::Range;
use std::path::Path;

/// Some sequences of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Those whose numbers are in the range.
    Numbers(Range<u32>),
    /// So many from the start.
    First(usize),
}

/// Writes the selected sequences of `trace` to the trace file `out`, under their own numbers.
///
/// # Errors
/// Wrong input if there is none, or if their rows are bad.
pub fn slice(trace: &Trace, selection: &Selection, out: &Path) -> Result<Summary> {
    let mut writer = Writer::create(out, trace.meta().clone())?;
    let mut any = false;
    for i in 0..trace.sequences() {
        let take = match selection {
            Selection::Numbers(range) => range.contains(&trace.sequence(i).id),
            Selection::First(n) => i < *n,
        };
        if take {
            trace.check_sequence(i)?;
            writer.push_sequence(&trace.sequence(i).to_owned())?;
            any = true;
        }
    }
    if !any {
        let (first, last) = (trace.sequence(0).id, trace.sequence(trace.sequences() - 1).id);
        let cure = format!("it has {} sequences, numbered {first} to {last}", trace.sequences());
        return Err(trace.at(Diag::input("has none of these sequences").place("sequences").cure(cure)));
    }
    writer.finish()
}

/// Writes the sequences of all `traces`, one after the other and numbered from 0, to the trace file `out`. Sources and
/// licences are listed, each once.
///
/// # Errors
/// Wrong input if there is no trace, if they differ in model, layers, experts, k or the presence of gate weights, or if
/// their rows are bad.
pub fn merge(traces: &[Trace], out: &Path) -> Result<Summary> {
    let Some(first) = traces.first() else {
        return Err(Diag::input("no traces to merge").place("traces").cure("give at least one"));
    };
    for t in traces {
        if let Some((what, found, expected)) = differs(first, t) {
            let problem = format!("{found:.200}, not {expected:.200} as in the first trace");
            return Err(t.at(Diag::input(problem).place(what).cure("merge traces of one model and one form only")));
        }
    }
    let listed = |label: fn(&Meta) -> &String| {
        let mut all: Vec<&str> = Vec::new();
        for t in traces {
            let l = label(t.meta()).as_str();
            if !all.contains(&l) {
                all.push(l);
            }
        }
        all.join("; ")
    };
    let meta = Meta { source: listed(|m| &m.source), licence: listed(|m| &m.licence), ..first.meta().clone() };
    let mut writer = Writer::create(out, meta)?;
    let mut next = 0u32;
    for t in traces {
        for i in 0..t.sequences() {
            t.check_sequence(i)?;
            let mut s = t.sequence(i).to_owned();
            s.id = next;
            writer.push_sequence(&s)?;
            let too_many = || Diag::input("the traces have more than 2^32 - 1 sequences").cure("merge fewer");
            next = next.checked_add(1).ok_or_else(|| t.at(too_many().place("sequences")))?;
        }
    }
    writer.finish()
}

/// What of two traces does not fit together, of the second and of the first.
fn differs(a: &Trace, b: &Trace) -> Option<(&'static str, String, String)> {
    let (m, n) = (a.meta(), b.meta());
    let weights = |t: &Trace| if t.has_weights() { "present" } else { "absent" }.to_string();
    let both = [
        ("model", n.model.clone(), m.model.clone()),
        ("layers", format!("{:?}", n.layer_numbers), format!("{:?}", m.layer_numbers)),
        ("experts", n.experts.to_string(), m.experts.to_string()),
        ("k", n.k.to_string(), m.k.to_string()),
        ("gate weights", weights(b), weights(a)),
    ];
    both.into_iter().find(|(_, b, a)| a != b)
}

#[cfg(test)]
mod tests;
