//! How far a form is off, cell by cell, for people.

use moesim_hwmodels::calibrate::cross::{Cell, Errors};
use std::fmt::Write;

const HEAD: &str = "shapes  rows  rough  | left out: mean  med   p90 | all rows  roofline  nearest";

/// A line a cell, in percent.
pub(super) fn cells(cells: &[Cell]) -> String {
    let percent = |x: Option<f64>| x.map_or("-".into(), |x| format!("{:.1}", 100.0 * x));
    let mut t = format!("  {:<20}{HEAD}\n", "cell");
    for c in cells {
        let out = |f: fn(&Errors) -> f64| percent(c.left_out.as_ref().map(f));
        let _ = writeln!(
            t,
            "  {:<20}{:>6}{:>6}{:>7}  | {:>14}{:>6}{:>6} |{:>9}{:>10}{:>9}",
            c.cell,
            c.shapes,
            c.fitted.rows,
            percent(c.roughness),
            out(|e| e.mean),
            out(|e| e.median),
            out(|e| e.p90),
            percent(Some(c.fitted.mean)),
            percent(Some(c.roofline.mean)),
            percent(c.nearest.map(|e| e.mean)),
        );
    }
    t
}
