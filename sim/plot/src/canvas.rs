//! Drawing primitives: plotters' SVG backend on a canvas finer than the picture.

use plotters::backend::{DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontStyle, FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle, register_font};
use std::sync::Once;

/// A colour.
pub(crate) type Rgb = RGBColor;
/// Width of every picture, in CSS pixels.
pub(crate) const WIDTH: f64 = 900.0;
/// Font size of tick labels and legends, in CSS pixels.
pub(crate) const SMALL: f64 = 12.0;
/// Font size of axis labels and panel titles.
pub(crate) const MEDIUM: f64 = 13.0;
/// Font size of the title.
pub(crate) const LARGE: f64 = 17.0;
pub(crate) const INK: Rgb = RGBColor(34, 34, 34);
pub(crate) const FAINT: Rgb = RGBColor(90, 90, 90);
pub(crate) const GRID: Rgb = RGBColor(228, 228, 228);
pub(crate) const MISSING: Rgb = RGBColor(205, 205, 205);
pub(crate) const WHITE: Rgb = RGBColor(255, 255, 255);

/// The embedded font.
pub(crate) const FONT: &[u8] = include_bytes!("../assets/DejaVuSans.ttf");
/// What the SVG asks for; also the name under which plotters knows the embedded font.
const FAMILY: &str = "DejaVu Sans, sans-serif";
/// plotters rounds every point to an integer: canvas units in one CSS pixel.
const FINE: f64 = 8.0;
/// plotters writes `font-size` as this fraction of the size that it is given.
const FONT_SCALE: f64 = 1.24;

/// How many shapes [`Canvas::mark`] knows.
pub(crate) const MARKS: usize = 5;

/// Where a text sits relative to its point; vertically it is centred.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Align {
    Left,
    Middle,
    Right,
}

/// A picture being drawn; all coordinates are CSS pixels from the upper left corner.
pub(crate) struct Canvas<'a> {
    backend: SVGBackend<'a>,
}

/// Draws a picture of [`WIDTH`] x `height` and returns it as SVG.
pub(crate) fn picture(height: f64, draw: impl FnOnce(&mut Canvas)) -> String {
    font();
    let height = height.ceil();
    let fine = (fine(WIDTH) as u32, fine(height) as u32);
    let mut svg = String::new();
    let mut canvas = Canvas { backend: SVGBackend::with_string(&mut svg, fine) };
    canvas.rect(0.0, 0.0, WIDTH, height, WHITE);
    draw(&mut canvas);
    canvas.backend.present().ok();
    drop(canvas);
    let (was, is) =
        (format!("width=\"{}\" height=\"{}\"", fine.0, fine.1), format!("width=\"{WIDTH}\" height=\"{height}\""));
    svg.replacen(&was, &is, 1)
}

/// Makes the font known, before anything is measured or drawn.
fn font() {
    static REGISTER: Once = Once::new();
    // Only a broken font file is refused, and ours is part of the program; without it texts would be measured as empty.
    REGISTER.call_once(|| drop(register_font(FAMILY, FontStyle::Normal, FONT)));
}

fn fine(v: f64) -> i32 {
    // The cast saturates, so that no value leaves the range; not-a-number becomes 0.
    (v * FINE).round() as i32
}

fn point((x, y): (f64, f64)) -> (i32, i32) {
    (fine(x), fine(y))
}

fn stroke(color: Rgb, width: f64) -> ShapeStyle {
    ShapeStyle { color: color.to_rgba(), filled: false, stroke_width: fine(width).max(1) as u32 }
}

/// What XML can hold: other characters become the replacement character.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { '\u{fffd}' } else { c }).collect()
}

/// Width of `text` in CSS pixels.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    font();
    // Measured large, because plotters gives whole pixels.
    let font = (FAMILY, size * FONT_SCALE * FINE).into_font();
    font.box_size(text).map_or(0.0, |(w, _)| f64::from(w) / FINE)
}

/// `text`, cut with an ellipsis to at most `room` CSS pixels.
pub(crate) fn fit(text: &str, size: f64, room: f64) -> String {
    let mut chars: Vec<char> = text.chars().take(200).collect();
    if chars.len() == text.chars().count() && width(text, size) <= room {
        return text.to_string();
    }
    loop {
        let cut: String = chars.iter().collect::<String>() + "…";
        if chars.pop().is_none() || width(&cut, size) <= room {
            return cut;
        }
    }
}

// Drawing into a string cannot fail, hence `.ok()` below.
impl Canvas<'_> {
    pub(crate) fn rect(&mut self, x0: f64, y0: f64, x1: f64, y1: f64, color: Rgb) {
        self.backend.draw_rect(point((x0, y0)), point((x1, y1)), &stroke(color, 0.0), true).ok();
    }
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), color: Rgb, width: f64) {
        self.backend.draw_line(point(from), point(to), &stroke(color, width)).ok();
    }
    /// A dashed line, straight along x or y.
    pub(crate) fn dashed(&mut self, from: (f64, f64), to: (f64, f64), color: Rgb) {
        let length = (to.0 - from.0).abs().max((to.1 - from.1).abs());
        let steps = (length / 6.0).clamp(1.0, 500.0) as u32;
        let at = |s: f64| (from.0 + (to.0 - from.0) * s, from.1 + (to.1 - from.1) * s);
        for i in 0..steps {
            let (a, b) = (f64::from(i) / f64::from(steps), (f64::from(i) + 0.55) / f64::from(steps));
            self.line(at(a), at(b), color, 1.0);
        }
    }
    pub(crate) fn path(&mut self, points: &[(f64, f64)], color: Rgb, width: f64) {
        let mut points: Vec<_> = points.iter().map(|&p| point(p)).collect();
        points.dedup();
        if points.len() > 1 {
            self.backend.draw_path(points, &stroke(color, width)).ok();
        }
    }
    pub(crate) fn outline(&mut self, x0: f64, y0: f64, x1: f64, y1: f64, color: Rgb, width: f64) {
        self.path(&[(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], color, width);
    }
    pub(crate) fn dot(&mut self, at: (f64, f64), radius: f64, color: Rgb) {
        self.backend.draw_circle(point(at), fine(radius).max(1) as u32, &stroke(color, 0.0), true).ok();
    }
    /// One of five marks of about the area of a [`Canvas::dot`]: circle, square, triangle, diamond, triangle downwards.
    pub(crate) fn mark(&mut self, (x, y): (f64, f64), radius: f64, shape: usize, color: Rgb) {
        let corners: &[(f64, f64)] = match shape % MARKS {
            0 => return self.dot((x, y), radius, color),
            1 => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            2 => &[(0.0, -1.3), (1.2, 0.9), (-1.2, 0.9)],
            3 => &[(0.0, -1.35), (1.35, 0.0), (0.0, 1.35), (-1.35, 0.0)],
            _ => &[(0.0, 1.3), (1.2, -0.9), (-1.2, -0.9)],
        };
        let corners = corners.iter().map(|c| point((x + c.0 * radius, y + c.1 * radius)));
        self.backend.fill_polygon(corners, &stroke(color, 0.0)).ok();
    }
    pub(crate) fn text(&mut self, at: (f64, f64), text: &str, size: f64, align: Align, color: Rgb) {
        self.any_text(at, text, size, align, color, FontTransform::None);
    }
    /// A text that reads upwards.
    pub(crate) fn vertical(&mut self, at: (f64, f64), text: &str, size: f64, color: Rgb) {
        self.any_text(at, text, size, Align::Middle, color, FontTransform::Rotate270);
    }
    fn any_text(&mut self, at: (f64, f64), text: &str, size: f64, align: Align, color: Rgb, turn: FontTransform) {
        let h = match align {
            Align::Left => HPos::Left,
            Align::Middle => HPos::Center,
            Align::Right => HPos::Right,
        };
        let font = (FAMILY, size * FONT_SCALE * FINE).into_font().transform(turn);
        let style = TextStyle::from(font).color(&color).pos(Pos::new(h, VPos::Center));
        self.backend.draw_text(&printable(text), &style, point(at)).ok();
    }
    /// Title and the fainter line below it.
    pub(crate) fn header(&mut self, title: &str, below: &str) {
        self.text((16.0, 22.0), &fit(title, LARGE, WIDTH - 32.0), LARGE, Align::Left, INK);
        self.text((16.0, 44.0), &fit(below, SMALL, WIDTH - 32.0), SMALL, Align::Left, FAINT);
    }
    /// Coloured squares with names, left to right from `x` and wrapped at `x1`; returns the height used.
    pub(crate) fn legend(&mut self, x: f64, y: f64, x1: f64, entries: &[(String, Rgb)]) -> f64 {
        let (mut at, mut row) = (x, 0.0);
        for (name, color) in entries {
            let name = fit(name, SMALL, x1 - x - 18.0);
            let needs = 18.0 + width(&name, SMALL);
            if at > x && at + needs > x1 {
                (at, row) = (x, row + 18.0);
            }
            self.rect(at, y + row - 5.5, at + 11.0, y + row + 5.5, *color);
            self.text((at + 15.0, y + row), &name, SMALL, Align::Left, INK);
            at += needs + 14.0;
        }
        row + 18.0
    }
}

/// The part of a picture below the header: where its content starts.
pub(crate) const TOP: f64 = 62.0;
