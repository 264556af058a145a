//! Writing synthetic traces of any length.

use super::Router;
use crate::trace::{Meta, Summary, Writer};
use moesim_core::{Diag, Result};
use std::path::Path;

/// Ids drawn before they are written: a fraction of a second, so that a stop is soon heard.
const CHUNK: u64 = 1 << 21;
/// Ids of one sequence, which is held in memory.
const SEQUENCE: u64 = 1 << 29;

/// Draws `sequences` sequences from `router` into the trace file `out`; memory holds some of them at a time. `length` gives
/// a sequence's (prompt, output) rows. `watch` is told how many are written; false stops, and leaves no file.
///
/// # Errors
/// A sequence without rows or with too many, a file that cannot be written, a stop.
pub fn write(
    router: &Router,
    meta: Meta,
    (sequences, length): (u32, &dyn Fn(u32) -> (u32, u32)),
    seed: u64,
    out: &Path,
    watch: &mut dyn FnMut(u32) -> bool,
) -> Result<Summary> {
    let width = meta.width() as u64;
    let mut writer = Writer::create(out, meta)?;
    let mut id = 0;
    while id < sequences {
        let (mut shapes, mut ids) = (Vec::new(), 0);
        while id < sequences && ids < CHUNK {
            let (prompt, output) = length(id);
            let own = (u64::from(prompt) + u64::from(output)) * width;
            if own == 0 || own > SEQUENCE {
                let problem = format!("sequence {id} would have {prompt} prompt and {output} output rows");
                let cure = format!("ask for at least one row and at most {}", SEQUENCE / width);
                return Err(Diag::input(problem).place("rows").cure(cure));
            }
            shapes.push((id, prompt, output));
            ids += own;
            id += 1;
        }
        for s in router.sequences(seed, &shapes) {
            writer.push_sequence(&s)?;
        }
        if !watch(id) {
            return Err(Diag::run("interrupted").file(out).cure("run it again; nothing was written"));
        }
    }
    writer.finish()
}
