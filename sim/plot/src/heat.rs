//! Heat maps: a grid of values in a frame, and the colour bar beside it.

use crate::axis::Frame;
use crate::canvas::{Align, Canvas, FAINT, INK, MISSING, Rgb, SMALL};
use crate::palette::Map;

/// Values in rows and columns, row by row; `None` where there is none.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    pub(crate) columns: usize,
    pub(crate) cells: Vec<Option<f64>>,
}

impl Grid {
    pub(crate) fn rows(&self) -> usize {
        self.cells.len() / self.columns.max(1)
    }
    pub(crate) fn get(&self, row: usize, column: usize) -> Option<f64> {
        self.cells.get(row * self.columns + column).copied().flatten()
    }
    /// The mean of each block of neighbours, so that at most `rows` by `columns` blocks remain.
    pub(crate) fn shrink(self, rows: usize, columns: usize) -> Self {
        let (down, across) = (self.rows().div_ceil(rows).max(1), self.columns.div_ceil(columns).max(1));
        if down == 1 && across == 1 {
            return self;
        }
        let blocks = self.columns.div_ceil(across);
        let mut sums = vec![(0.0, 0u32); blocks * self.rows().div_ceil(down)];
        for (i, v) in self.cells.iter().enumerate() {
            let sum = &mut sums[i / self.columns / down * blocks + i % self.columns / across];
            if let Some(v) = v {
                *sum = (sum.0 + v, sum.1 + 1);
            }
        }
        let cells = sums.into_iter().map(|(s, n)| (n > 0).then(|| s / f64::from(n))).collect();
        Self { columns: blocks, cells }
    }
}

/// How a value becomes a colour: its place in 0..=1 on the map.
pub(crate) struct Shade<'a> {
    pub(crate) map: Map,
    pub(crate) place: &'a dyn Fn(f64) -> f64,
}

/// Steps of colour: neighbours of one step are one rectangle.
const STEPS: f64 = 100.0;

/// Fills the frame with the grid, the first row at the top.
pub(crate) fn cells(c: &mut Canvas, frame: &Frame, grid: &Grid, shade: &Shade) {
    c.rect(frame.x0, frame.y0, frame.x1, frame.y1, MISSING);
    let (wide, high) =
        ((frame.x1 - frame.x0) / grid.columns.max(1) as f64, (frame.y1 - frame.y0) / grid.rows().max(1) as f64);
    let step = |row, column| grid.get(row, column).map(|v| ((shade.place)(v).clamp(0.0, 1.0) * STEPS).round() as u8);
    for row in 0..grid.rows() {
        let y = frame.y0 + high * row as f64;
        let mut column = 0;
        while column < grid.columns {
            let here = step(row, column);
            let end = (column + 1..grid.columns).find(|&next| step(row, next) != here).unwrap_or(grid.columns);
            // A little overlap hides the seams that anti-aliasing leaves between neighbours.
            let seam = |at: f64, limit: f64| (at + 0.5).min(limit);
            let (x0, x1) = (frame.x0 + wide * column as f64, seam(frame.x0 + wide * end as f64, frame.x1));
            let color = here.map_or(MISSING, |s| shade.map.color(f64::from(s) / STEPS));
            c.rect(x0, y, x1, seam(y + high, frame.y1), color);
            column = end;
        }
    }
    c.outline(frame.x0, frame.y0, frame.x1, frame.y1, FAINT, 1.0);
}

/// Draws the colour bar at `x`, from `y0` (the map's end) to `y1` (its start), with `ticks` at places 0..=1 and, if
/// `mark` is set, a line across at that place.
pub(crate) fn bar(c: &mut Canvas, x: f64, (y0, y1): (f64, f64), map: Map, ticks: &[(f64, String)], mark: Option<f64>) {
    const WIDE: f64 = 14.0;
    let slices = 100;
    for i in 0..slices {
        let (a, b) = (f64::from(i) / f64::from(slices), f64::from(i + 1) / f64::from(slices));
        // Slices reach up to the end, so that no seam shows.
        let color: Rgb = map.color((a + b) / 2.0);
        c.rect(x, y0, x + WIDE, y1 - (y1 - y0) * a, color);
    }
    c.outline(x, y0, x + WIDE, y1, FAINT, 1.0);
    for (place, text) in ticks {
        let y = y1 - (y1 - y0) * place;
        c.line((x + WIDE, y), (x + WIDE + 4.0, y), FAINT, 1.0);
        c.text((x + WIDE + 7.0, y), text, SMALL, Align::Left, INK);
    }
    if let Some(place) = mark {
        let y = y1 - (y1 - y0) * place;
        c.line((x - 3.0, y), (x + WIDE + 4.0, y), INK, 2.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinking_keeps_means() {
        let grid = Grid { columns: 3, cells: [1.0, 3.0, 5.0, 1.0, 3.0, 7.0].map(Some).to_vec() };
        let small = grid.clone().shrink(1, 2);
        assert_eq!((small.rows(), small.columns, small.cells), (1, 2, vec![Some(2.0), Some(6.0)]));
        assert_eq!(grid.clone().shrink(2, 3).cells, grid.cells);
    }
}
