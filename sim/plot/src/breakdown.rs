//! Where the time of the critical path goes.

use crate::Plot;
use crate::axis::{Axis, Frame};
use crate::canvas::{Align, INK, MEDIUM, SMALL, TOP, WIDTH, fit, picture};
use crate::data::RunData;
use crate::number::{seconds, time_unit};
use crate::palette::kind;
use moesim_core::Result;
use moesim_core::diag::Diag;

/// Time on the critical path by kind of operation, as bars.
pub(crate) struct Breakdown;

/// More kinds than this are summed up in one bar.
const BARS: usize = 24;

impl Plot for Breakdown {
    fn name(&self) -> &'static str {
        "breakdown"
    }
    fn about(&self) -> &'static str {
        "time on the critical path by kind of operation"
    }
    fn draw(&self, data: &RunData) -> Result<Option<String>> {
        let Some(parts) = data.summary().get("breakdown").and_then(|v| v.as_object()) else { return Ok(None) };
        let mut bars: Vec<(String, f64)> = Vec::new();
        for (name, value) in parts {
            match value.as_f64() {
                Some(v) if v >= 0.0 => bars.push((name.clone(), v)),
                None if value.is_null() => {}
                _ => {
                    return Err(Diag::input("is not a time in seconds, at least 0")
                        .file(data.dir.join("summary.json"))
                        .place(format!("breakdown.{name}"))
                        .cure("write the run again; the file was changed"));
                }
            }
        }
        bars.retain(|b| b.1 > 0.0);
        // A stable sort of names in JSON order: equal times keep that order.
        bars.sort_by(|a, b| b.1.total_cmp(&a.1));
        if bars.len() > BARS {
            let rest = bars.drain(BARS - 1..).map(|b| b.1).sum();
            bars.push(("other".into(), rest));
        }
        let total: f64 = bars.iter().map(|b| b.1).sum();
        let Some(&(_, longest)) = bars.first() else { return Ok(None) };
        let (scale, unit) = time_unit(longest);
        let bottom = TOP + 30.0 * bars.len() as f64;
        let below = format!("{}; bars sum to {}", data.caption(), seconds(total));
        Ok(Some(picture(bottom + 52.0, |c| {
            c.header("Critical path: time by kind of operation", &below);
            let x = Axis::linear(0.0, longest * scale);
            let frame =
                Frame { x0: 122.0, x1: WIDTH - 158.0, y0: TOP, y1: bottom, x, y: Axis::linear(0.0, bars.len() as f64) };
            frame.x_axis(c, &format!("time on the critical path ({unit})"), true);
            for (i, (name, time)) in bars.iter().enumerate() {
                let y = TOP + 30.0 * i as f64;
                let end = frame.px(time * scale).max(frame.x0 + 1.0);
                c.rect(frame.x0, y + 4.0, end, y + 26.0, kind(name));
                c.text((frame.x0 - 8.0, y + 15.0), &fit(name, MEDIUM, 104.0), MEDIUM, Align::Right, INK);
                let text = format!("{} ({:.1} %)", seconds(*time), 100.0 * time / total);
                c.text((end + 8.0, y + 15.0), &text, SMALL, Align::Left, INK);
            }
        })))
    }
}
