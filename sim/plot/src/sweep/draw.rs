//! Lines, bars or a heat map of a swept metric.

use super::keys::Key;
use super::table::SweepTable;
use crate::axis::{Axis, Frame, plain};
use crate::canvas::{Align, Canvas, FAINT, INK, MARKS, MEDIUM, SMALL, TOP, WIDTH, fit, picture, width};
use crate::head::unit;
use crate::heat::{Grid, Shade, bar, cells};
use crate::number::short;
use crate::palette::{BLUE, Map, SERIES, ink_on};
use moesim_core::diag::{Diag, Result};

/// More bars, or more rows or columns of a heat map, cannot be told apart.
const MOST: usize = 60;

/// The most room that names of rows, bars or lines take, in CSS pixels: longer ones are cut.
const WIDEST: f64 = 360.0;

/// Draws `metric` against the table's keys as SVG, 900 CSS pixels wide.
///
/// One key: a line if its values are numbers, else bars. Two keys: if the second holds numbers and the first at most
/// seven values, a line for each value of the first key over the second; else a heat map with the number in each cell.
/// Points of lines get a mark for each [`super::SweepPoint::label`], bars the label itself. Missing values are left out
/// (grey in heat maps).
///
/// # Errors
/// An input error for an unknown metric, a table of no or more than two keys, several points with the same values of the
/// keys, or more than 60 names on an axis.
pub fn sweep_plot(table: &SweepTable, metric: &str) -> Result<String> {
    table.check(metric)?;
    let keys: Vec<Key> = (0..table.keys.len())
        .map(|k| Key::new(&table.keys[k], table.points.iter().map(|p| p.values[k].as_str())))
        .collect();
    let value = |p: &super::SweepPoint| p.metrics.get(metric).copied().flatten();
    let missing = table.points.iter().filter(|p| value(p).is_none()).count();
    let mut below = format!("{} points", table.points.len());
    if missing > 0 {
        below += &format!(", {missing} without value");
    }
    if let Some(note) = &table.note {
        below += &format!("; {note}");
    }
    let names_fit = |key: &Key| {
        if key.values.len() <= MOST {
            return Ok(());
        }
        Err(Diag::input(format!("{} has {} values, and a picture shows at most {MOST}", key.name, key.values.len()))
            .cure("plot fewer points, or a key that holds numbers"))
    };
    // Series of (x, y, label), in the order of x.
    let series = |x: &Key, numbers: &[f64], k: usize, chosen: &dyn Fn(&super::SweepPoint) -> bool| {
        let points = table.points.iter().filter(|p| chosen(p));
        let mut line: Vec<Place> =
            points.filter_map(|p| Some((numbers[x.index(&p.values[k])], value(p)?, p.label.clone()))).collect();
        line.sort_by(|a, b| a.0.total_cmp(&b.0));
        line
    };
    let title = |over: &str| format!("{metric} over {over}");
    match &keys[..] {
        [x] => match &x.numbers {
            Some(numbers) => {
                let line = series(x, numbers, 0, &|_| true);
                Ok(lines(&title(&table.keys[0]), &below, x, metric, &[(String::new(), line)], ""))
            }
            None => {
                names_fit(x)?;
                let mut bars = vec![None; x.values.len()];
                for p in &table.points {
                    bars[x.index(&p.values[0])] = value(p).map(|v| (v, p.label.clone()));
                }
                Ok(draw_bars(&format!("{metric} by {}", table.keys[0]), &below, x, metric, &bars))
            }
        },
        [each, x] => match &x.numbers {
            Some(numbers) if each.values.len() <= SERIES.len() => {
                let of = |v: &String| (v.clone(), series(x, numbers, 1, &|p| p.values[0] == *v));
                let all: Vec<_> = each.values.iter().map(of).collect();
                Ok(lines(&title(&table.keys[1]), &below, x, metric, &all, &table.keys[0]))
            }
            _ => {
                names_fit(each)?;
                names_fit(x)?;
                let mut grid = Grid { columns: x.values.len(), cells: vec![None; each.values.len() * x.values.len()] };
                for p in &table.points {
                    grid.cells[each.index(&p.values[0]) * x.values.len() + x.index(&p.values[1])] = value(p);
                }
                let title = format!("{} by {} and {}", with_unit(metric), table.keys[0], table.keys[1]);
                Ok(heat(&title, &below, (each, x), metric, grid))
            }
        },
        _ => Err(Diag::input("a plot of a sweep shows one or two keys")),
    }
}

/// A point of a line: x, y, label.
type Place = (f64, f64, Option<String>);

/// The axis that suits values from `lo` to `hi`: logarithmic over wide ranges, else from zero if that costs no detail.
fn value_axis(values: impl Iterator<Item = f64>) -> Axis {
    let (lo, hi) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
    let log = Axis::auto(lo / 1.25, hi * 1.25);
    match log {
        _ if !lo.is_finite() => Axis::linear(0.0, 1.0),
        _ if log.is_log() && hi / lo > 30.0 => log,
        _ if lo >= 0.0 => Axis::from_zero(hi),
        _ => Axis::linear(lo - (hi - lo) * 0.06, hi.max(0.0) + (hi - lo) * 0.06),
    }
}

fn lines(title: &str, below: &str, x: &Key, metric: &str, all: &[(String, Vec<Place>)], each: &str) -> String {
    let numbers = x.numbers.as_deref().unwrap_or_default();
    let (lo, hi) = (numbers.first().copied().unwrap_or(0.0), numbers.last().copied().unwrap_or(1.0));
    let log = Axis::auto(lo / 1.15, hi * 1.15);
    let margin = (hi - lo) * 0.04;
    let x_axis = if log.is_log() && lo > 0.0 && hi / lo > 30.0 { log } else { Axis::linear(lo - margin, hi + margin) };
    let y_axis = value_axis(all.iter().flat_map(|s| s.1.iter().map(|p| p.1)));
    let mut marks: Vec<&str> = Vec::new();
    let labelled = all.iter().flat_map(|s| &s.1).any(|p| p.2.is_some());
    for label in all.iter().flat_map(|s| &s.1).map(label_of).filter(|_| labelled) {
        if marks.len() <= MARKS && !marks.contains(&label) {
            marks.push(label);
        }
    }
    let names = all.iter().map(|s| width(&s.0, SMALL) + 25.0).chain([width(each, SMALL)]);
    let right = match each.is_empty() && marks.is_empty() {
        true => 40.0,
        false => (names.fold(0.0, f64::max).min(WIDEST) + 26.0).max(176.0),
    };
    picture(480.0, |c| {
        c.header(title, below);
        let frame = Frame { x0: 92.0, x1: WIDTH - right, y0: TOP + 16.0, y1: 424.0, x: x_axis, y: y_axis };
        frame.y_axis(c, &scaled(&with_unit(metric), &y_axis), 68.0);
        if numbers.len() <= 12 {
            let ticks: Vec<(f64, String)> = numbers.iter().map(|&v| (v, plain(v))).collect();
            frame.x_ticks(c, &ticks, &scaled(&x.title, &x_axis), true);
        } else {
            frame.x_axis(c, &scaled(&x.title, &x_axis), true);
        }
        for (i, (_, line)) in all.iter().enumerate() {
            let color = SERIES[i % SERIES.len()];
            let points: Vec<(f64, f64)> = line.iter().map(|p| (frame.px(p.0), frame.py(p.1))).collect();
            c.path(&points, color, 2.0);
            for (at, p) in points.iter().zip(line) {
                c.mark(*at, 4.0, mark_of(&marks, label_of(p)), color);
            }
        }
        let (x, mut y) = (frame.x1 + 16.0, frame.y0 + 6.0);
        let text = |c: &mut Canvas, dx: f64, y: f64, text: &str, color| {
            c.text((x + dx, y), &fit(text, SMALL, right - 24.0 - dx), SMALL, Align::Left, color);
        };
        if !each.is_empty() {
            text(c, 0.0, y, each, FAINT);
            for (i, (name, _)) in all.iter().enumerate() {
                y += 21.0;
                c.line((x, y), (x + 18.0, y), SERIES[i % SERIES.len()], 3.0);
                text(c, 25.0, y, name, INK);
            }
            y += 34.0;
        }
        if !marks.is_empty() {
            text(c, 0.0, y, "marks", FAINT);
            for (i, name) in marks.iter().enumerate() {
                y += 21.0;
                c.mark((x + 9.0, y), 4.0, i, INK);
                let rest = i + 1 == MARKS && marks.len() > MARKS;
                text(c, 25.0, y, if rest { "other" } else { name }, INK);
                if rest {
                    break;
                }
            }
        }
    })
}

/// The mark of a label; labels beyond the number of marks share the last.
fn mark_of(marks: &[&str], label: &str) -> usize {
    let beyond = if marks.is_empty() { 0 } else { MARKS - 1 };
    marks.iter().position(|m| *m == label).unwrap_or(beyond).min(MARKS - 1)
}

fn label_of(p: &Place) -> &str {
    p.2.as_deref().unwrap_or("none")
}

/// The metric's name with its unit: `throughput.output_tokens_per_s (tokens/s)`, `tpot_ms.p99 (ms)`.
fn with_unit(metric: &str) -> String {
    let unit = unit(metric);
    if unit.is_empty() { metric.into() } else { format!("{metric} ({unit})") }
}

/// The name of an axis, which says if it is logarithmic.
fn scaled(name: &str, axis: &Axis) -> String {
    if axis.is_log() { format!("{name}, log scale") } else { name.to_string() }
}

fn draw_bars(title: &str, below: &str, x: &Key, metric: &str, bars: &[Option<(f64, Option<String>)>]) -> String {
    let values = bars.iter().flatten().map(|b| b.0);
    let (lo, hi) = values.fold((0.0f64, 0.0f64), |(lo, hi), v| (lo.min(v), hi.max(v)));
    let bottom = TOP + 30.0 * bars.len() as f64;
    picture(bottom + 52.0, |c| {
        c.header(title, below);
        let names = x.values.iter().map(|v| width(v, MEDIUM)).fold(60.0, f64::max).min(WIDEST);
        let (x_axis, y) = (Axis::linear(lo, hi), Axis::linear(0.0, 1.0));
        let frame = Frame { x0: names + 28.0, x1: WIDTH - 190.0, y0: TOP, y1: bottom, x: x_axis, y };
        frame.x_axis(c, &with_unit(metric), true);
        for (i, value) in bars.iter().enumerate() {
            let y = TOP + 30.0 * i as f64;
            c.text((frame.x0 - 8.0, y + 15.0), &fit(&x.values[i], MEDIUM, names), MEDIUM, Align::Right, INK);
            let Some((v, label)) = value else {
                c.text((frame.x0 + 8.0, y + 15.0), "no value", SMALL, Align::Left, FAINT);
                continue;
            };
            let (from, to) = (frame.px(v.min(0.0)), frame.px(v.max(0.0)));
            c.rect(from, y + 4.0, to.max(from + 1.0), y + 26.0, BLUE);
            let text = label.as_ref().map_or_else(|| short(*v), |l| format!("{} ({l})", short(*v)));
            c.text((to + 8.0, y + 15.0), &fit(&text, SMALL, WIDTH - to - 16.0), SMALL, Align::Left, INK);
        }
        c.line((frame.px(0.0), TOP), (frame.px(0.0), bottom), FAINT, 1.0);
    })
}

fn heat(title: &str, below: &str, (down, across): (&Key, &Key), metric: &str, grid: Grid) -> String {
    let values = || grid.cells.iter().flatten().copied();
    let (lo, hi) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
    let scale = if lo.is_finite() { Axis::auto(lo, hi) } else { Axis::linear(0.0, 1.0) };
    let names = down.values.iter().map(|v| width(v, SMALL)).fold(30.0, f64::max).min(WIDEST);
    let row = (360.0 / grid.rows() as f64).clamp(20.0, 44.0);
    let bottom = TOP + 8.0 + row * grid.rows() as f64;
    // A short map still has room for its colour bar.
    picture(bottom.max(TOP + 130.0) + 56.0, |c| {
        c.header(title, below);
        let x = Axis::indices(across.values.len());
        let frame =
            Frame { x0: names + 52.0, x1: WIDTH - 124.0, y0: TOP + 8.0, y1: bottom, x, y: Axis::linear(0.0, 1.0) };
        let shade = Shade { map: Map::Sequential, place: &|v| scale.at(v) };
        cells(c, &frame, &grid, &shade);
        frame.row_names(c, &down.values, names);
        c.vertical(
            (20.0, (frame.y0 + bottom) / 2.0),
            &fit(&down.name, MEDIUM, (bottom - frame.y0).max(120.0)),
            MEDIUM,
            INK,
        );
        let wide = (frame.x1 - frame.x0) / grid.columns as f64;
        let ticks: Vec<(f64, String)> =
            (0u32..).map(f64::from).zip(across.values.iter().map(|v| fit(v, SMALL, wide.max(44.0)))).collect();
        frame.x_ticks(c, &ticks, &across.name, false);
        for r in 0..grid.rows() {
            for column in 0..grid.columns {
                let text = grid.get(r, column).map_or("–".to_string(), short);
                if width(&text, SMALL) > wide - 4.0 {
                    continue;
                }
                let color = grid.get(r, column).map_or(FAINT, |v| ink_on(Map::Sequential.color(scale.at(v))));
                let at = (frame.x0 + wide * (column as f64 + 0.5), frame.y0 + row * (r as f64 + 0.5));
                c.text(at, &text, SMALL, Align::Middle, color);
            }
        }
        if lo.is_finite() {
            let ticks = scale.marks();
            bar(
                c,
                WIDTH - 104.0,
                (frame.y0 + 22.0, bottom.max(TOP + 130.0).min(frame.y0 + 280.0)),
                Map::Sequential,
                &ticks,
                None,
            );
            c.text((WIDTH - 112.0, frame.y0 + 6.0), &fit(metric, SMALL - 1.0, 108.0), SMALL - 1.0, Align::Left, INK);
        }
    })
}
