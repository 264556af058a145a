//! Colours that people with any colour vision can tell apart.

use crate::canvas::Rgb;

/// The eight colours of Okabe and Ito, "Color Universal Design" (2008), without black and with a darker yellow
/// (theirs is too faint for a line on white).
pub(crate) const SERIES: [Rgb; 7] = [BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE, Rgb { 0: 176, 1: 160, 2: 20 }];
pub(crate) const BLUE: Rgb = plotters::style::RGBColor(0, 114, 178);
pub(crate) const VERMILLION: Rgb = plotters::style::RGBColor(213, 94, 0);
pub(crate) const GREEN: Rgb = plotters::style::RGBColor(0, 158, 115);
pub(crate) const ORANGE: Rgb = plotters::style::RGBColor(230, 159, 0);
pub(crate) const SKY: Rgb = plotters::style::RGBColor(86, 180, 233);
pub(crate) const PURPLE: Rgb = plotters::style::RGBColor(204, 121, 167);
const YELLOW: Rgb = plotters::style::RGBColor(240, 228, 66);

/// Kinds of operation in the order of a forward pass, each with its colour: Okabe and Ito's for what usually takes the
/// time, tints and greys of them for the rest.
pub(crate) const KINDS: [(&str, Rgb); 13] = [
    ("host", plotters::style::RGBColor(136, 136, 136)),
    ("embed", plotters::style::RGBColor(190, 190, 190)),
    ("attention", BLUE),
    ("gate", YELLOW),
    ("dispatch", ORANGE),
    ("experts", GREEN),
    ("shared", plotters::style::RGBColor(139, 210, 188)),
    ("combine", VERMILLION),
    // Apart from the black of the critical path, and from every colour above.
    ("load", plotters::style::RGBColor(150, 98, 52)),
    ("allreduce", PURPLE),
    ("dense", SKY),
    ("head", plotters::style::RGBColor(90, 74, 110)),
    ("idle", plotters::style::RGBColor(222, 222, 222)),
];

/// The colour of a kind; kinds of later versions are brown.
pub(crate) fn kind(name: &str) -> Rgb {
    KINDS.iter().find(|k| k.0 == name).map_or(plotters::style::RGBColor(140, 86, 75), |k| k.1)
}

/// Every 17th of the 256 colours of viridis, by N. Smith and S. van der Walt (matplotlib 2.0, `_cm_listed.py`, CC0).
const VIRIDIS: [[u8; 3]; 16] = [
    [68, 1, 84],
    [72, 26, 108],
    [71, 47, 125],
    [65, 68, 135],
    [57, 86, 140],
    [49, 104, 142],
    [42, 120, 142],
    [35, 136, 142],
    [31, 152, 139],
    [34, 168, 132],
    [53, 183, 121],
    [84, 197, 104],
    [122, 209, 81],
    [165, 219, 54],
    [210, 226, 27],
    [253, 231, 37],
];

/// Diverging map: dark blue, Okabe and Ito's blue, white, their vermillion, dark red; lightness falls to both sides.
const DIVERGING: [[u8; 3]; 7] =
    [[0, 48, 92], [0, 114, 178], [150, 203, 233], [247, 247, 247], [246, 186, 140], [213, 94, 0], [110, 34, 0]];

/// A colour map over 0..=1.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Map {
    /// viridis: perceptually uniform, from dark to light.
    Sequential,
    /// Blue below, white at one half, red above.
    Diverging,
}

impl Map {
    /// The colour at `t`, held inside 0..=1; linear between the control points.
    pub(crate) fn color(self, t: f64) -> Rgb {
        let points: &[[u8; 3]] = match self {
            Self::Sequential => &VIRIDIS,
            Self::Diverging => &DIVERGING,
        };
        let place = t.clamp(0.0, 1.0) * (points.len() - 1) as f64;
        let i = (place as usize).min(points.len() - 2);
        let mix = |c: usize| {
            let (a, b) = (f64::from(points[i][c]), f64::from(points[i + 1][c]));
            (a + (b - a) * (place - i as f64)).round() as u8
        };
        plotters::style::RGBColor(mix(0), mix(1), mix(2))
    }
}

/// Black or white, whichever reads better on `color` (relative luminance by Rec. 709's weights).
pub(crate) fn ink_on(color: Rgb) -> Rgb {
    let luminance = 0.2126 * f64::from(color.0) + 0.7152 * f64::from(color.1) + 0.0722 * f64::from(color.2);
    if luminance > 120.0 { plotters::style::BLACK } else { plotters::style::WHITE }
}
