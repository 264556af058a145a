//! One iteration, operation by operation.

mod layout;

use crate::Plot;
use crate::axis::{Axis, Frame};
use crate::canvas::{Align, Canvas, FAINT, INK, Rgb, SMALL, TOP, WIDTH, picture};
use crate::data::RunData;
use crate::number::{seconds, time_unit};
use crate::palette::{KINDS, kind};
use layout::{Op, Rows, lanes};
use moesim_core::Result;

/// The iteration as a whole and, below, its first two MoE layers: a row a device, one for collectives and host, and the
/// critical path on top.
pub(crate) struct Timeline;

/// Pixels between the whole iteration and the zoom.
const BETWEEN: f64 = 76.0;
const CRITICAL: Rgb = INK;

impl Plot for Timeline {
    fn name(&self) -> &'static str {
        "timeline"
    }
    fn about(&self) -> &'static str {
        "one iteration: what every device does when, and the critical path"
    }
    fn draw(&self, data: &RunData) -> Result<Option<String>> {
        let Some(rows) = layout::read(data)? else { return Ok(None) };
        let high = rows.names.len() as f64 * (280.0 / rows.names.len() as f64).clamp(14.0, 26.0);
        let zoom = rows.zoom();
        let kinds = legend(&rows);
        let mut below = format!("{}; {}", data.caption(), seconds(rows.span.1 - rows.span.0));
        if rows.devices > rows.names.len() - 2 {
            below +=
                &format!("; {} of {} devices, those longest on the critical path", rows.names.len() - 2, rows.devices);
        }
        // The legend takes at most two lines.
        let top = TOP + 60.0;
        let zoomed = zoom.as_ref().map_or(0.0, |_| BETWEEN + high);
        Ok(Some(picture(top + high + zoomed + 52.0, |c| {
            c.header(&format!("Timeline of iteration {}", rows.iteration), &below);
            c.legend(16.0, TOP + 4.0, WIDTH - 16.0, &kinds);
            panel(c, &rows, rows.span, (top, top + high), "whole iteration");
            if let Some((layers, span)) = &zoom {
                let y = top + high + BETWEEN;
                panel(c, &rows, *span, (y, y + high), layers);
            }
        })))
    }
}

/// The kinds that occur, in the order of a forward pass, then the marks.
fn legend(rows: &Rows) -> Vec<(String, Rgb)> {
    let mut names: Vec<&str> = KINDS.iter().map(|k| k.0).filter(|k| rows.kinds.iter().any(|r| r == k)).collect();
    names.extend(rows.kinds.iter().map(String::as_str).filter(|r| KINDS.iter().all(|k| k.0 != *r)).take(4));
    let mut entries: Vec<(String, Rgb)> = names.iter().map(|n| (n.to_string(), kind(n))).collect();
    entries.push(("underlined: on the critical path".into(), CRITICAL));
    entries
}

/// Draws what happens in `span` (seconds) between the heights `y`.
fn panel(c: &mut Canvas, rows: &Rows, span: (f64, f64), (y0, y1): (f64, f64), title: &str) {
    let (scale, unit) = time_unit(span.1 - rows.span.0);
    let x = Axis::linear((span.0 - rows.span.0) * scale, (span.1 - rows.span.0) * scale);
    let frame = Frame { x0: 128.0, x1: WIDTH - 20.0, y0, y1, x, y: Axis::linear(0.0, 1.0) };
    frame.title(c, title);
    frame.x_axis(c, &format!("time since the start of the iteration ({unit})"), true);
    frame.row_names(c, &rows.names, 112.0);
    let high = (y1 - y0) / rows.names.len() as f64;
    let px = |t: f64| frame.px((t - rows.span.0) * scale);
    // Narrower than this nothing is seen.
    let narrow = (span.1 - span.0) / (frame.x1 - frame.x0) * 0.3;
    for (i, ops) in rows.ops.iter().enumerate() {
        let seen: Vec<Op> =
            ops.iter().filter(|o| o.end > span.0 + narrow && o.start < span.1 - narrow).copied().collect();
        let top = y0 + high * i as f64;
        c.line((frame.x0, top), (frame.x1, top), crate::canvas::GRID, 0.5);
        let pad = (high * 0.08).min(1.5);
        for (op, (lane, count)) in lanes(&seen, narrow) {
            let lane_high = (high - 2.0 * pad) / count as f64;
            let (a, b) = (px(op.start), px(op.end).max(px(op.start) + 0.3));
            let y = top + pad + lane_high * lane as f64;
            c.rect(a, y, b, y + lane_high, kind(&rows.kinds[op.kind]));
            if op.critical && i > 0 {
                c.rect(a, y + lane_high - (lane_high * 0.25).min(2.5), b, y + lane_high, CRITICAL);
            }
        }
    }
    // The critical path stands apart from what it is made of.
    c.line((frame.x0, y0 + high), (frame.x1, y0 + high), FAINT, 1.0);
    c.line((frame.x0, y0), (frame.x0, y1), FAINT, 1.0);
    if rows.ops[0].is_empty() {
        c.text((frame.x0 + 6.0, y0 + high / 2.0), "not recorded", SMALL.min(high), Align::Left, FAINT);
    }
}
