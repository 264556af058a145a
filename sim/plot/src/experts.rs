//! How evenly tokens fall on experts.

use crate::Plot;
use crate::axis::{Axis, Frame, plain};
use crate::canvas::{Align, FAINT, INK, SMALL, TOP, WIDTH, picture};
use crate::data::RunData;
use crate::heat::{Grid, Shade, bar, cells};
use crate::palette::{BLUE, Map};
use moesim_core::diag::{Diag, Result};
use std::collections::BTreeMap;

/// Load of every expert relative to its layer's mean, and every layer's imbalance.
pub(crate) struct Experts;

/// Expert ids are 16 bits wide in traces, and layers are far fewer.
const IDS: u32 = 65_536;
/// Larger maps are refused: no model comes near.
const CELLS: usize = 4_000_000;

/// Assignments of one layer by expert.
type Loads = BTreeMap<u32, f64>;

impl Plot for Experts {
    fn name(&self) -> &'static str {
        "experts"
    }
    fn about(&self) -> &'static str {
        "load of every expert in every layer, relative to the layer's mean"
    }
    fn draw(&self, data: &RunData) -> Result<Option<String>> {
        let file = "experts.csv";
        let Some(mut table) = data.table(file, &["layer", "expert", "assignments"])? else { return Ok(None) };
        let (mut layers, mut experts, mut rows) = (BTreeMap::<u32, Loads>::new(), 0, 0usize);
        while let Some(row) = table.next_row()? {
            let (layer, expert, load) = (row.index(0, IDS)?, row.index(1, IDS)?, row.amount(2)?);
            *layers.entry(layer).or_default().entry(expert).or_default() += load;
            experts = experts.max(expert as usize + 1);
            rows += 1;
            if rows > CELLS || layers.len() * experts > CELLS {
                return Err(Diag::input(format!("has more than {CELLS} pairs of layer and expert"))
                    .file(data.dir.join(file))
                    .cure("write the run again; no model is as large"));
            }
        }
        if layers.values().all(|l| l.values().sum::<f64>() == 0.0) {
            return Ok(None);
        }
        Ok(Some(draw(data, &layers, experts)))
    }
}

fn mean(loads: &Loads) -> f64 {
    loads.values().sum::<f64>() / loads.len().max(1) as f64
}

/// Max over mean; 1 where the layer has no load.
fn imbalance(loads: &Loads) -> f64 {
    let largest = loads.values().copied().fold(0.0, f64::max);
    if largest > 0.0 { largest / mean(loads) } else { 1.0 }
}

fn draw(data: &RunData, layers: &BTreeMap<u32, Loads>, experts: usize) -> String {
    let relative = layers.values().flat_map(|loads| {
        let mean = mean(loads);
        (0..experts as u32).map(move |e| loads.get(&e).filter(|_| mean > 0.0).map(|load| load / mean))
    });
    let grid = Grid { columns: experts, cells: relative.collect() };
    let imbalances: Vec<f64> = layers.values().map(imbalance).collect();
    let worst = imbalances.iter().copied().fold(1.0, f64::max);
    // The map spans 1/reach to reach; white is the mean.
    let reach = [2.0, 4.0, 8.0, 16.0].into_iter().find(|r| *r >= worst).unwrap_or(16.0);
    let span = libm::log2(reach);
    let place = move |v: f64| 0.5 + libm::log2(v.max(1e-9)) / (2.0 * span);
    let high = (layers.len() as f64 * 18.0).clamp(150.0, 560.0);
    let bottom = TOP + 30.0 + high;
    let at_worst = layers.keys().zip(&imbalances).find(|l| *l.1 == worst).map_or(0, |l| *l.0);
    let average = imbalances.iter().sum::<f64>() / imbalances.len().max(1) as f64;
    let below = format!(
        "{}; max over mean: {average:.2} averaged over layers, {worst:.2} at most (layer {at_worst})",
        data.caption()
    );
    picture(bottom + 52.0, |c| {
        c.header("Expert load relative to its layer's mean", &below);
        let y = Axis::linear(0.0, layers.len() as f64);
        let frame = Frame { x0: 84.0, x1: 632.0, y0: TOP + 30.0, y1: bottom, x: Axis::indices(experts), y };
        cells(c, &frame, &grid.shrink(560, 1100), &Shade { map: Map::Diverging, place: &place });
        frame.x_axis(c, "expert", false);
        let names: Vec<String> = layers.keys().map(|l| l.to_string()).collect();
        frame.row_names(c, &names, 40.0);
        c.vertical((24.0, (frame.y0 + bottom) / 2.0), "layer", crate::canvas::MEDIUM, INK);

        let side = Frame { x0: 658.0, x1: 776.0, x: Axis::linear(1.0, worst.max(1.5)), ..frame };
        side.title(c, "max over mean");
        side.x_axis(c, "imbalance", true);
        let step = high / imbalances.len() as f64;
        for (i, v) in imbalances.iter().enumerate() {
            let y = side.y0 + step * i as f64;
            c.rect(side.x0, y + step * 0.12, side.px(*v).max(side.x0 + 0.5), y + step * 0.88, BLUE);
        }
        let ticks: Vec<(f64, String)> = (-4..=4)
            .map(|e: i32| if e < 0 { 1.0 / f64::from(1 << -e) } else { f64::from(1 << e) })
            .filter(|v| (1.0 / reach..=reach).contains(v))
            .map(|v| {
                (
                    place(v),
                    if v == 1.0 {
                        "1 = mean".into()
                    } else if v < 1.0 {
                        format!("1/{}x", 1.0 / v)
                    } else {
                        format!("{}x", plain(v))
                    },
                )
            })
            .collect();
        let x = WIDTH - 96.0;
        bar(c, x, (frame.y0 + 8.0, (bottom - 22.0).min(frame.y0 + 260.0)), Map::Diverging, &ticks, Some(0.5));
        c.text((x, frame.y0 - 12.0), "load / mean", SMALL, Align::Left, INK);
        if grid_has_gaps(layers, experts) {
            c.text((x, (bottom - 6.0).min(frame.y0 + 276.0)), "grey: none", SMALL, Align::Left, FAINT);
        }
    })
}

/// Whether some cell has no value.
fn grid_has_gaps(layers: &BTreeMap<u32, Loads>, experts: usize) -> bool {
    layers.values().any(|l| l.len() < experts || mean(l) == 0.0)
}
