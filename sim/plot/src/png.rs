//! SVG to PNG with the embedded font alone.

use crate::canvas::FONT;
use moesim_core::diag::{Diag, Result};
use resvg::{tiny_skia, usvg};
use std::sync::Arc;

/// Pixels of the PNG per CSS pixel of the SVG: 1,800 pixels wide, sharp on dense screens and in print.
const SCALE: f32 = 2.0;
/// No picture of ours is larger in either direction; memory stays below 400 MiB.
const LIMIT: f32 = 10_000.0;

/// Reads `svg` as the renderer sees it: with the embedded font and none of the system's.
pub(crate) fn tree(svg: &str) -> Result<usvg::Tree> {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_font_data(FONT.to_vec());
    for set in [
        usvg::fontdb::Database::set_sans_serif_family,
        usvg::fontdb::Database::set_serif_family,
        usvg::fontdb::Database::set_monospace_family,
    ] {
        set(&mut fonts, "DejaVu Sans");
    }
    let options =
        usvg::Options { fontdb: Arc::new(fonts), font_family: "DejaVu Sans".into(), ..usvg::Options::default() };
    usvg::Tree::from_str(svg, &options).map_err(|e| Diag::input(format!("the picture is not SVG: {e}")))
}

/// Renders an SVG picture as PNG, two pixels to a CSS pixel.
///
/// # Errors
/// An input error if `svg` is not SVG or is larger than 5,000 CSS pixels on a side.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    let tree = tree(svg)?;
    let size = (tree.size().width() * SCALE, tree.size().height() * SCALE);
    if size.0 > LIMIT || size.1 > LIMIT {
        return Err(Diag::input("the picture is larger than 5,000 pixels on a side").cure("write it as SVG"));
    }
    let mut pixels = tiny_skia::Pixmap::new(size.0.ceil() as u32, size.1.ceil() as u32)
        .ok_or_else(|| Diag::input("the picture has no area"))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| Diag::run(format!("the picture cannot be encoded as PNG: {e}")))
}
