//! Axes: where a value lies and where the ticks are; a frame with two of them.

use crate::canvas::{Align, Canvas, FAINT, GRID, INK, MEDIUM, SMALL, fit, width};
use crate::number::short;

/// A range over which values lie linearly or by their logarithm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    lo: f64,
    hi: f64,
    log: bool,
    /// No tick between whole numbers.
    whole: bool,
}

impl Axis {
    /// Linear over `lo..hi`; an empty range is widened.
    pub(crate) fn linear(lo: f64, hi: f64) -> Self {
        // So that the difference of the ends is a number.
        let (lo, hi) = (lo.clamp(-1e300, 1e300), hi.clamp(-1e300, 1e300));
        let lo = if lo.is_nan() { 0.0 } else { lo };
        let hi = if hi > lo { hi } else { lo + lo.abs().max(1.0) };
        Self { lo, hi, log: false, whole: false }
    }
    /// Logarithmic where everything is positive and the range exceeds 30x, else linear.
    pub(crate) fn auto(lo: f64, hi: f64) -> Self {
        if lo > 0.0 && hi / lo > 30.0 && hi.is_finite() {
            Self { lo, hi, log: true, whole: false }
        } else {
            Self::linear(lo, hi)
        }
    }
    /// Over the places of `count` things counted from 0, each one wide.
    pub(crate) fn indices(count: usize) -> Self {
        Self { whole: true, ..Self::linear(-0.5, count as f64 - 0.5) }
    }
    /// Linear from zero to a little above `hi`.
    pub(crate) fn from_zero(hi: f64) -> Self {
        Self::linear(0.0, hi * 1.06)
    }
    /// Whether the scale is logarithmic.
    pub(crate) fn is_log(&self) -> bool {
        self.log
    }
    /// 0 at the lower end, 1 at the upper, values outside held there.
    pub(crate) fn at(&self, v: f64) -> f64 {
        let t = if self.log {
            (libm::log10(v.max(self.lo)) - libm::log10(self.lo)) / (libm::log10(self.hi) - libm::log10(self.lo))
        } else {
            (v - self.lo) / (self.hi - self.lo)
        };
        if t.is_nan() { 0.0 } else { t.clamp(0.0, 1.0) }
    }
    /// The most ticks, from at most `most`, whose labels pass `fits`.
    fn ticks(&self, most: usize, fits: impl Fn(&[(f64, String)]) -> bool) -> Vec<(f64, String)> {
        let candidates: Vec<Vec<f64>> = if self.log { self.log_ticks() } else { self.linear_ticks(most) };
        let labelled = |values: Vec<f64>| -> Vec<(f64, String)> {
            let step = values.get(1).map_or(1.0, |v| (v - values[0]).abs());
            values.iter().map(|&v| (v, if self.log { label(v, v) } else { label(v, step) })).collect()
        };
        candidates.into_iter().map(labelled).find(|t| t.len() <= most && fits(t)).unwrap_or_default()
    }
    /// Up to six ticks as places 0..=1 with labels, for a colour bar.
    pub(crate) fn marks(&self) -> Vec<(f64, String)> {
        self.ticks(6, |_| true).into_iter().map(|(v, text)| (self.at(v), text)).collect()
    }
    fn linear_ticks(&self, most: usize) -> Vec<Vec<f64>> {
        let span = self.hi - self.lo;
        let decade = libm::floor(libm::log10(span / most.max(1) as f64)) as i32;
        let steps = (decade..decade + 4).flat_map(|d| [1.0, 2.0, 5.0].map(|m| m * power(d)));
        steps
            .filter(|s| s.is_normal() && span / s <= 100.0 && (*s >= 1.0 || !self.whole))
            .map(|s| {
                let (first, last) = ((self.lo / s - 1e-9).ceil(), (self.hi / s + 1e-9).floor());
                let count = (last - first).clamp(-1.0, 100.0) as i64 + 1;
                (0..count).map(|i| (first + i as f64) * s).collect()
            })
            .collect()
    }
    fn log_ticks(&self) -> Vec<Vec<f64>> {
        let decades = libm::floor(libm::log10(self.lo)) as i32..=libm::ceil(libm::log10(self.hi)) as i32;
        let inside = |v: &f64| *v >= self.lo * (1.0 - 1e-9) && *v <= self.hi * (1.0 + 1e-9);
        let of = |every: usize, multiples: &[f64]| -> Vec<f64> {
            let at = decades.clone().filter(|d| d.rem_euclid(every as i32) == 0);
            at.flat_map(|d| multiples.iter().map(move |m| m * power(d))).filter(inside).collect()
        };
        let mut sets = vec![of(1, &[1.0, 2.0, 5.0]), of(1, &[1.0, 3.0])];
        sets.extend([1, 2, 3, 5, 10, 20, 50, 100, 300].map(|every| of(every, &[1.0])));
        sets
    }
}

/// Ten to the power of `d`: the nearest number.
fn power(d: i32) -> f64 {
    format!("1e{d}").parse().unwrap_or(f64::INFINITY)
}

/// A tick's label: as many decimals as `step` needs.
fn label(v: f64, step: f64) -> String {
    let a = v.abs().max(step);
    if v == 0.0 {
        return "0".into();
    }
    let (scale, suffix) = match a {
        a if !(1e-4..1e15).contains(&a) => return format!("{:e}", short_mantissa(v)),
        a if a >= 1e12 => (1e12, "T"),
        a if a >= 1e9 => (1e9, "G"),
        a if a >= 1e6 => (1e6, "M"),
        a if a >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let (v, step) = (v / scale, step / scale);
    let decimals = (0..7).find(|d| is_whole(step * power(*d))).unwrap_or(7) as usize;
    format!("{v:.decimals$}{suffix}")
}

fn is_whole(v: f64) -> bool {
    (v - v.round()).abs() < 1e-6 * v.abs().max(1e-3)
}

fn short_mantissa(v: f64) -> f64 {
    format!("{v:.2e}").parse().unwrap_or(v)
}

/// A rectangle of the picture with an axis along each side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) x0: f64,
    pub(crate) y0: f64,
    pub(crate) x1: f64,
    pub(crate) y1: f64,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
}

impl Frame {
    /// Where the value lies, in pixels from the left of the picture.
    pub(crate) fn px(&self, v: f64) -> f64 {
        self.x0 + (self.x1 - self.x0) * self.x.at(v)
    }
    /// Where the value lies, in pixels from the top of the picture.
    pub(crate) fn py(&self, v: f64) -> f64 {
        self.y1 - (self.y1 - self.y0) * self.y.at(v)
    }
    /// The panel's title, on the left above it.
    pub(crate) fn title(&self, c: &mut Canvas, text: &str) {
        c.text((self.x0, self.y0 - 12.0), &fit(text, MEDIUM, self.x1 - self.x0), MEDIUM, Align::Left, INK);
    }
    /// Ticks and label of the x axis; `grid`: lines across the frame.
    pub(crate) fn x_axis(&self, c: &mut Canvas, name: &str, grid: bool) {
        let fits = |ticks: &[(f64, String)]| {
            ticks.windows(2).all(|w| {
                let half = (width(&w[0].1, SMALL) + width(&w[1].1, SMALL)) / 2.0;
                self.px(w[1].0) - self.px(w[0].0) >= half + 9.0
            })
        };
        let ticks = self.x.ticks(9, fits);
        self.x_ticks(c, &ticks, name, grid);
    }
    /// The same with given ticks; those that would touch their left neighbour stay unlabelled.
    pub(crate) fn x_ticks(&self, c: &mut Canvas, ticks: &[(f64, String)], name: &str, grid: bool) {
        let mut free = f64::NEG_INFINITY;
        for (v, text) in ticks {
            let (x, half) = (self.px(*v), width(text, SMALL) / 2.0);
            if grid {
                c.line((x, self.y0), (x, self.y1), GRID, 1.0);
            }
            c.line((x, self.y1), (x, self.y1 + 4.0), FAINT, 1.0);
            if x - half >= free {
                c.text((x, self.y1 + 13.0), text, SMALL, Align::Middle, INK);
                free = x + half + 5.0;
            }
        }
        c.line((self.x0, self.y1), (self.x1, self.y1), FAINT, 1.0);
        let middle = (self.x0 + self.x1) / 2.0;
        let name = fit(name, MEDIUM, self.x1 - self.x0 + 60.0);
        c.text((middle, self.y1 + 32.0), &name, MEDIUM, Align::Middle, INK);
    }
    /// Ticks and label of the y axis, with grid lines; the label stands `gap` pixels left of the axis.
    pub(crate) fn y_axis(&self, c: &mut Canvas, name: &str, gap: f64) {
        let fits = |ticks: &[(f64, String)]| ticks.windows(2).all(|w| self.py(w[0].0) - self.py(w[1].0) >= SMALL + 5.0);
        for (v, text) in self.y.ticks(8, fits) {
            let y = self.py(v);
            c.line((self.x0, y), (self.x1, y), GRID, 1.0);
            c.text((self.x0 - 6.0, y), &text, SMALL, Align::Right, INK);
        }
        c.line((self.x0, self.y0), (self.x0, self.y1), FAINT, 1.0);
        if !name.is_empty() {
            let name = fit(name, MEDIUM, self.y1 - self.y0 + 40.0);
            c.vertical((self.x0 - gap, (self.y0 + self.y1) / 2.0), &name, MEDIUM, INK);
        }
    }
    /// Names of rows of equal height from top to bottom, as many as fit.
    pub(crate) fn row_names(&self, c: &mut Canvas, names: &[String], room: f64) {
        let height = (self.y1 - self.y0) / names.len().max(1) as f64;
        let every = ((SMALL + 1.0) / height).ceil().max(1.0) as usize;
        let size = if every == 1 { SMALL.min(height) } else { SMALL - 1.0 };
        for (i, name) in names.iter().enumerate().step_by(every) {
            let y = self.y0 + height * (i as f64 + 0.5);
            c.text((self.x0 - 6.0, y), &fit(name, size, room), size, Align::Right, INK);
        }
    }
}

/// A number as a tick label of its own.
pub(crate) fn plain(v: f64) -> String {
    if v.abs() < 1e4 && is_whole(v * 1000.0) { format!("{}", (v * 1000.0).round() / 1000.0) } else { short(v) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let texts = |a: Axis, most| a.ticks(most, |_| true).into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(texts(Axis::linear(0.0, 1.0), 6), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(Axis::linear(0.0, 30000.0), 4), ["0", "10k", "20k", "30k"]);
        assert_eq!(texts(Axis::auto(0.5, 2000.0), 5), ["1", "10", "100", "1000"]);
        assert_eq!(texts(Axis::linear(0.0, 4e-7), 3), ["0", "2e-7", "4e-7"]);
    }

    #[test]
    fn any_range_gives_finite_places() {
        let ends = [0.0, -1.0, 1e-300, 5e-324, 1.0, 1.0000000001, 1e300, f64::MAX, f64::MIN, f64::INFINITY, f64::NAN];
        for lo in ends {
            for hi in ends {
                for a in [Axis::linear(lo, hi), Axis::auto(lo, hi)] {
                    assert!(a.at(lo).is_finite() && a.at(hi).is_finite(), "{lo} {hi}");
                    assert!(a.ticks(8, |_| true).len() <= 8);
                }
            }
        }
    }
}
