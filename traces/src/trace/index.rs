//! Where the sequences of a trace lie.

use super::{OwnedSequence, ipc};
use moesim_core::{Diag, Result};

/// Where a sequence lies.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) batch: u32,
    pub(super) row: u64,
    pub(super) prefill_rows: u32,
    pub(super) decode_rows: u32,
    pub(super) first_position: u32,
    pub(super) decode_first_position: u32,
}

impl Entry {
    pub(super) fn new(batch: u32, row: u64, s: &OwnedSequence, prefill_rows: u32, decode_rows: u32) -> Self {
        let prefill_end = s.first_position + prefill_rows;
        Self {
            id: s.id,
            batch,
            row,
            prefill_rows,
            decode_rows,
            first_position: if prefill_rows > 0 { s.first_position } else { s.decode_first_position },
            decode_first_position: if decode_rows > 0 { s.decode_first_position } else { prefill_end },
        }
    }
}

/// Finds the sequences by one scan of the small columns; refuses rows out of order.
pub(super) fn scan(batches: &[ipc::Columns]) -> Result<Vec<Entry>> {
    let mut index: Vec<Entry> = Vec::new();
    for (b, columns) in batches.iter().enumerate() {
        let (ids, phases, positions) = (&columns.sequence[..], &columns.phase[..], &columns.position[..]);
        let mut row = 0;
        while row < ids.len() {
            let id = ids[row];
            let wrong = |row: usize, problem: String| {
                let place = format!("record batch {b}, row {row}, sequence {id}");
                Diag::input(problem).place(place).cure("sort the rows by sequence, phase (0, then 1) and position")
            };
            if let Some(last) = index.last().filter(|e| e.id >= id) {
                return Err(wrong(row, format!("follows sequence {}", last.id)));
            }
            let run = ids[row..].iter().take_while(|x| **x == id).count();
            let prefill = phases[row..row + run].iter().take_while(|p| **p == 0).count();
            if let Some(i) = phases[row + prefill..row + run].iter().position(|p| *p != 1) {
                let phase = phases[row + prefill + i];
                return Err(wrong(row + prefill + i, format!("phase {phase} follows phase 1")));
            }
            for (from, to) in [(row, row + prefill), (row + prefill, row + run)] {
                if let Some(i) = positions[from..to].windows(2).position(|p| p[0].checked_add(1) != Some(p[1])) {
                    let at = from + i + 1;
                    return Err(wrong(at, format!("position {} follows {}", positions[at], positions[at - 1])));
                }
            }
            let first = positions[row];
            let decode_first = if prefill < run { positions[row + prefill] } else { first };
            if prefill > 0 && prefill < run && decode_first <= positions[row + prefill - 1] {
                return Err(wrong(
                    row + prefill,
                    format!("decoding starts at position {decode_first}, inside the prompt"),
                ));
            }
            let too_long = || wrong(row, "has more than 2^32 rows".into());
            let prefill_rows = u32::try_from(prefill).map_err(|_| too_long())?;
            let decode_rows = u32::try_from(run - prefill).map_err(|_| too_long())?;
            let decode_first_position = if decode_rows > 0 { decode_first } else { first.saturating_add(prefill_rows) };
            let entry = Entry {
                id,
                batch: b as u32,
                row: row as u64,
                prefill_rows,
                decode_rows,
                first_position: first,
                decode_first_position,
            };
            index.push(entry);
            row += run;
        }
    }
    Ok(index)
}
