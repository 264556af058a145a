//! Several small line charts in one picture.

use crate::axis::{Axis, Frame};
use crate::canvas::{Align, FAINT, MEDIUM, SMALL, TOP, WIDTH, picture};
use crate::palette::SERIES;

/// A line of a panel.
#[derive(Clone, Debug)]
pub struct PanelLine {
    /// What it is, for the legend.
    pub name: String,
    /// Its points, by ascending x; not-a-number and infinities are left out.
    pub points: Vec<(f64, f64)>,
}

/// A small chart; all of a picture's panels have lines of the same names in the same order.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// The x axis; logarithmic where the points span more than a factor of 30.
    pub x: String,
    /// The y axis, which starts at 0 unless values are below.
    pub y: String,
    /// The lines.
    pub lines: Vec<PanelLine>,
}

const HIGH: f64 = 190.0;
const STEP: f64 = HIGH + 88.0;
/// Lines with more points than this have no dots.
const DOTS: usize = 80;

/// Draws panels in two columns, as SVG. Panels without points are left out.
pub fn panels(title: &str, below: &str, all: &[Panel]) -> String {
    let finite =
        |l: &PanelLine| l.points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect::<Vec<_>>();
    let shown: Vec<&Panel> = all.iter().filter(|p| p.lines.iter().any(|l| !finite(l).is_empty())).collect();
    let names = shown.first().map_or(&[][..], |p| &p.lines);
    let legend: Vec<(String, _)> = names.iter().zip(SERIES).map(|(l, c)| (l.name.clone(), c)).collect();
    let top = TOP + 44.0;
    picture(top + STEP * shown.len().div_ceil(2).max(1) as f64, |c| {
        c.header(title, below);
        c.legend(62.0, TOP + 10.0, WIDTH - 20.0, &legend);
        if shown.is_empty() {
            c.text((WIDTH / 2.0, top + 60.0), "nothing to show", MEDIUM, Align::Middle, FAINT);
        }
        let wide = (WIDTH - 62.0 - 22.0 - 70.0) / 2.0;
        for (i, panel) in shown.iter().enumerate() {
            let x0 = 62.0 + (wide + 70.0) * (i % 2) as f64;
            let y0 = top + STEP * (i / 2) as f64 + 24.0;
            let points: Vec<Vec<(f64, f64)>> = panel.lines.iter().map(finite).collect();
            let span = |f: fn(&(f64, f64)) -> f64| {
                let values = points.iter().flatten().map(f);
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)))
            };
            let ((x_lo, x_hi), (y_lo, y_hi)) = (span(|p| p.0), span(|p| p.1));
            let y = if y_lo < 0.0 { Axis::linear(y_lo, y_hi) } else { Axis::from_zero(y_hi) };
            let x = Axis::auto(x_lo, x_hi);
            let frame = Frame { x0, x1: x0 + wide, y0, y1: y0 + HIGH, x, y };
            frame.title(c, &panel.title);
            frame.y_axis(c, &panel.y, 44.0);
            let log = if x.is_log() { ", log scale" } else { "" };
            frame.x_axis(c, &format!("{}{log}", panel.x), true);
            for (line, color) in points.iter().zip(SERIES) {
                let line: Vec<(f64, f64)> = line.iter().map(|p| (frame.px(p.0), frame.py(p.1))).collect();
                c.path(&line, color, 2.0);
                if line.len() <= DOTS {
                    line.into_iter().for_each(|p| c.dot(p, SMALL / 5.0, color));
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_there_are_drawn() {
        let line = |name: &str, points: Vec<(f64, f64)>| PanelLine { name: name.into(), points };
        let panel = |lines| Panel { title: "title".into(), x: "size".into(), y: "rate".into(), lines };
        let full =
            panel(vec![line("trace", vec![(1.0, 2.0), (256.0, 3.0)]), line("independent", vec![(1.0, f64::NAN)])]);
        let empty = panel(vec![line("trace", vec![(f64::NAN, 1.0)]), line("independent", vec![])]);
        let svg = panels("Routing", "caption", &[full.clone(), empty.clone()]);
        assert!(svg.contains("title") && svg.contains("log scale") && svg.contains("independent"));
        assert_eq!(svg.matches("title").count(), 1, "the empty panel is left out");
        assert_eq!(svg, panels("Routing", "caption", &[full, empty.clone()]));
        assert!(panels("Routing", "caption", &[empty]).contains("nothing to show"));
    }
}
