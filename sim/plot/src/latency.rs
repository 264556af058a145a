//! Distributions of request latency.

use crate::Plot;
use crate::axis::{Axis, Frame};
use crate::canvas::{Align, Canvas, FAINT, INK, MEDIUM, SMALL, TOP, WIDTH, picture, width};
use crate::data::RunData;
use crate::number::short;
use crate::palette::{BLUE, GREEN, ORANGE, VERMILLION};
use moesim_core::Result;
use std::collections::BTreeMap;

/// Cumulative distributions of TTFT, TPOT and E2E latency.
pub(crate) struct Latency;

const PANELS: [(&str, &str); 3] = [
    ("ttft_ms", "time to first token, TTFT (ms)"),
    ("tpot_ms", "time per output token, TPOT (ms)"),
    ("e2e_ms", "end-to-end latency, E2E (ms)"),
];
const MARKS: [(f64, &str, crate::canvas::Rgb); 3] =
    [(0.5, "p50", GREEN), (0.9, "p90", ORANGE), (0.99, "p99", VERMILLION)];
/// Points of a curve.
const POINTS: u64 = 2000;
/// Mantissa bits dropped by a bucket: values in one differ by less than 2^-12 of themselves.
const DROPPED: u32 = 40;

/// Values counted in buckets so narrow that each is as good as its largest value; memory does not grow with the rows.
#[derive(Default)]
struct Distribution {
    buckets: BTreeMap<u64, (u64, f64)>,
    count: u64,
}

impl Distribution {
    fn add(&mut self, v: f64) {
        // The bits of numbers that are not negative ascend as the numbers do.
        let bucket = self.buckets.entry((v + 0.0).to_bits() >> DROPPED).or_default();
        *bucket = (bucket.0 + 1, bucket.1.max(v));
        self.count += 1;
    }
    /// At most `POINTS + 2` points (value, share of values at or below it).
    fn cdf(&self) -> Vec<(f64, f64)> {
        let step = (self.count / POINTS).max(1);
        let (mut seen, mut next, mut points) = (0, 0, Vec::new());
        for &(n, largest) in self.buckets.values() {
            seen += n;
            if seen >= next || seen == self.count {
                points.push((largest, seen as f64 / self.count as f64));
                next = seen + step;
            }
        }
        points
    }
    /// The least value with at least the share `q` of values at or below it; there is at least one value.
    fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let at = self.buckets.values().find(|(n, _)| {
            seen += n;
            seen >= rank
        });
        at.or(self.buckets.values().next_back()).map_or(0.0, |b| b.1)
    }
}

impl Plot for Latency {
    fn name(&self) -> &'static str {
        "latency"
    }
    fn about(&self) -> &'static str {
        "cumulative distributions of TTFT, TPOT and end-to-end latency over requests"
    }
    fn draw(&self, data: &RunData) -> Result<Option<String>> {
        let Some(mut table) = data.table("requests.csv", &PANELS.map(|p| p.0))? else { return Ok(None) };
        let mut panels: [Distribution; 3] = Default::default();
        let mut requests = 0u64;
        while let Some(row) = table.next_row()? {
            requests += 1;
            for (i, panel) in panels.iter_mut().enumerate() {
                if row.number(i)?.is_some() {
                    panel.add(row.amount(i)?);
                }
            }
        }
        if panels.iter().all(|p| p.count == 0) {
            return Ok(None);
        }
        let below = format!("{}; requests: {requests}", data.caption());
        Ok(Some(picture(400.0, |c| {
            c.header("Latency of requests: share at or below a value", &below);
            let wide = (WIDTH - 62.0 - 22.0 - 2.0 * 44.0) / 3.0;
            for (i, panel) in panels.iter().enumerate() {
                let x0 = 62.0 + (wide + 44.0) * i as f64;
                draw_panel(c, (x0, x0 + wide), PANELS[i].1, panel, i == 0);
            }
        })))
    }
}

fn draw_panel(c: &mut Canvas, (x0, x1): (f64, f64), title: &str, values: &Distribution, first: bool) {
    let points = values.cdf();
    let (lo, hi) = (points.first().map_or(0.0, |p| p.0), points.last().map_or(0.0, |p| p.0));
    let log = Axis::auto(lo, hi);
    let x = if log.is_log() { log } else { Axis::from_zero(hi) };
    let frame = Frame { x0, x1, y0: TOP + 60.0, y1: 350.0, x, y: Axis::linear(0.0, 100.0) };
    c.text((x0, TOP + 16.0), title, MEDIUM, Align::Left, INK);
    if values.count == 0 {
        c.text(((x0 + x1) / 2.0, (frame.y0 + frame.y1) / 2.0), "no request has a value", SMALL, Align::Middle, FAINT);
        return;
    }
    frame.y_axis(c, if first { "requests (%)" } else { "" }, 46.0);
    frame.x_axis(c, if x.is_log() { "ms, log scale" } else { "ms" }, true);
    let mut line = vec![(frame.px(lo), frame.py(0.0))];
    for (v, share) in points {
        // A step: the share rises where the value is, not before.
        line.push((frame.px(v), line.last().map_or(frame.y1, |p| p.1)));
        line.push((frame.px(v), frame.py(share * 100.0)));
    }
    line.push((frame.x1, frame.y0));
    c.path(&line, BLUE, 2.0);
    let (mut at, mut dots) = (x0, Vec::new());
    for (q, name, color) in MARKS {
        let v = values.quantile(q);
        let (px, py) = (frame.px(v), frame.py(q * 100.0));
        c.dashed((px, py), (px, frame.y1), color);
        dots.push((px, py, color));
        let text = format!("{name} {}", short(v));
        c.dot((at + 4.0, TOP + 38.0), 4.0, color);
        c.text((at + 12.0, TOP + 38.0), &text, SMALL, Align::Left, INK);
        at += 12.0 + width(&text, SMALL) + 10.0;
    }
    // Over all dashes, which coincide where percentiles do.
    dots.into_iter().for_each(|(x, y, color)| c.dot((x, y), 4.0, color));
}
