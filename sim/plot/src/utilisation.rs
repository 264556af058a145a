//! Utilisation of devices and links over time.

use crate::Plot;
use crate::axis::{Axis, Frame, plain};
use crate::canvas::{Align, Canvas, INK, SMALL, TOP, WIDTH, fit, picture};
use crate::data::RunData;
use crate::heat::{Grid, Shade, bar, cells};
use crate::number::time_unit;
use crate::palette::{Map, SERIES};
use crate::series::Series;
use moesim_core::Result;

/// Utilisation over time: busy time, memory and links, each in a panel.
pub(crate) struct Utilisation;

/// Up to this many resources of a panel are lines, more are rows of a heat map.
const LINES: usize = 4;
/// Of more resources than this a panel shows the busiest.
const ROWS: usize = 32;

/// Resources of one sort.
struct Panel {
    title: String,
    /// Indices into the series, and the names shown.
    rows: Vec<(usize, String)>,
}

impl Plot for Utilisation {
    fn name(&self) -> &'static str {
        "utilisation"
    }
    fn about(&self) -> &'static str {
        "utilisation of devices and links over simulated time"
    }
    fn draw(&self, data: &RunData) -> Result<Option<String>> {
        let Some(series) = Series::read(data)? else { return Ok(None) };
        let panels = panels(&series);
        let heights: Vec<f64> = panels.iter().map(height).collect();
        let total: f64 = heights.iter().map(|h| h + 44.0).sum();
        Ok(Some(picture(TOP + total + 34.0, |c| {
            c.header(
                "Utilisation over simulated time: amount served over peak, and share of time busy",
                &data.caption(),
            );
            let mut y = TOP + 28.0;
            for (i, (panel, high)) in panels.iter().zip(&heights).enumerate() {
                draw_panel(c, &series, panel, (y, y + high), i + 1 == panels.len());
                y += high + 44.0;
            }
        })))
    }
}

fn height(panel: &Panel) -> f64 {
    if panel.rows.len() <= LINES { 120.0 } else { (panel.rows.len() as f64 * 14.0).max(110.0) }
}

/// The name to show of a resource of this sort, `None` for others.
type Shown = fn(&str) -> Option<&str>;

/// The sorts that the series has, each with its resources.
fn panels(series: &Series) -> Vec<Panel> {
    let sorts: [(&str, Shown); 4] = [
        ("busy time of devices", |n| n.strip_suffix(" busy")),
        ("memory bandwidth of devices", |n| n.strip_suffix(" memory")),
        ("links", |n| n.strip_prefix("link ")),
        ("other resources", |n| Some(n)),
    ];
    let sort_of = |name: &str| sorts.iter().position(|s| s.1(name).is_some());
    let mut panels = Vec::new();
    for (sort, (title, shown)) in sorts.iter().enumerate() {
        let mut rows: Vec<(usize, String)> = series
            .names
            .iter()
            .enumerate()
            .filter(|(_, n)| sort_of(n) == Some(sort))
            // Resources of other sorts show only if something used them.
            .filter(|(i, _)| sort + 1 < sorts.len() || series.bins.iter().any(|b| b[*i] > 0.0))
            .map(|(i, n)| (i, shown(n).unwrap_or(n).to_string()))
            .collect();
        let mut title = title.to_string();
        if rows.len() > ROWS {
            title += &format!(": the {ROWS} busiest of {}", rows.len());
            rows.sort_by(|a, b| series.mean(b.0).total_cmp(&series.mean(a.0)));
            rows.truncate(ROWS);
            rows.sort_by_key(|r| r.0);
        }
        if !rows.is_empty() {
            panels.push(Panel { title, rows });
        }
    }
    panels
}

fn draw_panel(c: &mut Canvas, series: &Series, panel: &Panel, (y0, y1): (f64, f64), last: bool) {
    let (from, to) = (series.edges[0], series.edges.last().copied().unwrap_or(0.0));
    let (scale, unit) = time_unit(to);
    let largest = panel.rows.iter().flat_map(|r| series.bins.iter().map(|b| b[r.0])).fold(0.0, f64::max) * 100.0;
    let top = [1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, 100.0]
        .into_iter()
        .find(|t| *t >= largest)
        .unwrap_or(largest);
    let x = Axis::linear(from * scale, to * scale);
    let frame = Frame { x0: 128.0, x1: WIDTH - 130.0, y0, y1, x, y: Axis::linear(0.0, top) };
    frame.title(c, &format!("{} (%)", panel.title));
    let name = if last { format!("simulated time ({unit})") } else { String::new() };
    if panel.rows.len() <= LINES {
        frame.y_axis(c, "", 0.0);
        frame.x_axis(c, &name, true);
        for (n, (i, shown)) in panel.rows.iter().enumerate() {
            let middle = |b: usize| (series.edges[b] + series.edges[b + 1]) / 2.0 * scale;
            let points: Vec<_> =
                (0..series.bins.len()).map(|b| (frame.px(middle(b)), frame.py(series.bins[b][*i] * 100.0))).collect();
            let color = SERIES[n % SERIES.len()];
            c.path(&points, color, 1.6);
            if let [only] = points[..] {
                c.dot(only, 3.0, color);
            }
            let y = y0 + 10.0 + 18.0 * n as f64;
            c.line((frame.x1 + 10.0, y), (frame.x1 + 24.0, y), color, 3.0);
            c.text((frame.x1 + 29.0, y), &fit(shown, SMALL, 96.0), SMALL, Align::Left, INK);
        }
        return;
    }
    let cell = |r: &(usize, String)| series.bins.iter().map(|b| Some(b[r.0] * 100.0)).collect::<Vec<_>>();
    let grid = Grid { columns: series.bins.len(), cells: panel.rows.iter().flat_map(cell).collect() };
    cells(c, &frame, &grid.shrink(ROWS, 1300), &Shade { map: Map::Sequential, place: &|v| v / top });
    frame.x_axis(c, &name, false);
    let names: Vec<String> = panel.rows.iter().map(|r| r.1.clone()).collect();
    frame.row_names(c, &names, 114.0);
    let ticks: Vec<(f64, String)> = [0.0, 0.5, 1.0].map(|t| (t, format!("{} %", plain(top * t)))).to_vec();
    bar(c, frame.x1 + 16.0, (y0, y1), Map::Sequential, &ticks, None);
}
