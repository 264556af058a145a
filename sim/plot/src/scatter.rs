//! Clouds of points on logarithmic axes: predicted against measured along a diagonal, rates under a roof.

use crate::axis::{Axis, Frame};
use crate::canvas::{Align, FAINT, MEDIUM, TOP, WIDTH, picture};
use crate::palette::SERIES;
use crate::panels::Panel;

const HIGH: f64 = 300.0;
const STEP: f64 = HIGH + 88.0;
/// Points drawn of a cloud: evenly picked of more.
const POINTS: usize = 1500;

/// Draws panels in two columns, as SVG: each line of a panel is a cloud of points above zero. Both axes are the same; on
/// the dashed diagonal y is x.
pub fn scatter(title: &str, below: &str, all: &[Panel]) -> String {
    clouds(title, below, all, true)
}

/// The same with axes of their own and no diagonal: rates over arithmetic intensity.
pub fn roofline(title: &str, below: &str, all: &[Panel]) -> String {
    clouds(title, below, all, false)
}

fn clouds(title: &str, below: &str, all: &[Panel], diagonal: bool) -> String {
    let names = all.first().map_or(&[][..], |p| &p.lines);
    let legend: Vec<(String, _)> = names.iter().zip(SERIES).map(|(l, c)| (l.name.clone(), c)).collect();
    let top = TOP + 44.0;
    picture(top + STEP * all.len().div_ceil(2).max(1) as f64, |c| {
        c.header(title, below);
        c.legend(62.0, TOP + 10.0, WIDTH - 20.0, &legend);
        if all.is_empty() {
            c.text((WIDTH / 2.0, top + 60.0), "nothing to show", MEDIUM, Align::Middle, FAINT);
        }
        let wide = (WIDTH - 62.0 - 22.0 - 70.0) / 2.0;
        for (i, panel) in all.iter().enumerate() {
            let x0 = 62.0 + (wide + 70.0) * (i % 2) as f64;
            let y0 = top + STEP * (i / 2) as f64 + 24.0;
            let good = |p: &&(f64, f64)| p.0 > 0.0 && p.1 > 0.0 && p.0.is_finite() && p.1.is_finite();
            let clouds: Vec<Vec<(f64, f64)>> =
                panel.lines.iter().map(|l| l.points.iter().filter(good).copied().collect()).collect();
            let range = |values: &mut dyn Iterator<Item = f64>| {
                let (lo, hi) = values.fold((f64::INFINITY, 0.0f64), |(lo, hi), v| (lo.min(v), hi.max(v)));
                // At least two decades, so that the axes are logarithmic.
                (lo.min(hi / 100.0), hi)
            };
            let points = || clouds.iter().flatten();
            let both = range(&mut points().flat_map(|p| [p.0, p.1]));
            let (x, y) = match diagonal {
                true => (both, both),
                false => (range(&mut points().map(|p| p.0)), range(&mut points().map(|p| p.1))),
            };
            let (x_axis, y_axis) = (Axis::auto(x.0, x.1), Axis::auto(y.0, y.1));
            let frame = Frame { x0, x1: x0 + wide, y0, y1: y0 + HIGH, x: x_axis, y: y_axis };
            frame.title(c, &panel.title);
            frame.y_axis(c, &panel.y, 44.0);
            frame.x_axis(c, &format!("{}, log scale", panel.x), true);
            if diagonal {
                c.path(&[(frame.px(both.0), frame.py(both.0)), (frame.px(both.1), frame.py(both.1))], FAINT, 1.0);
            }
            for (cloud, color) in clouds.iter().zip(SERIES).rev() {
                let every = cloud.len().div_ceil(POINTS).max(1);
                cloud.iter().step_by(every).for_each(|p| c.dot((frame.px(p.0), frame.py(p.1)), 1.1, color));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::PanelLine;

    #[test]
    fn clouds_are_drawn_and_thinned() {
        let points: Vec<(f64, f64)> = (1..5000).map(|i| (f64::from(i), f64::from(i) * 1.1)).collect();
        let line = PanelLine { name: "predicted".into(), points };
        let panel = Panel { title: "kernel".into(), x: "measured, ms".into(), y: "ms".into(), lines: vec![line] };
        let svg = scatter("Check", "below", &[panel]);
        let dots = svg.matches("<circle").count();
        assert!(svg.contains("kernel") && (1000..=POINTS).contains(&dots), "{dots}");
        assert!(scatter("Check", "below", &[]).contains("nothing to show"));
        assert!(roofline("Roof", "below", &[]).contains("nothing to show"));
    }
}
