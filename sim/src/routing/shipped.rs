//! What the first run of the quickstart would draw, inside the binary: its router, which takes most of the time that drawing takes;
//! its sequences, which would take several megabytes, are drawn from that.
//!
//! After a change of the generator: `MOESIM_REMAKE=1 cargo test -p moesim --lib -- the_quickstarts_router`.

use super::cache::Drawing;
use flate2::read::GzDecoder;
use moesim_traces::Trace;
use moesim_traces::synth::{Fit, Router, synthesize_with};
use std::io::Read;

/// The key of what is drawn, and the router as gzip.
const QUICKSTART: &[u8] = include_bytes!("../../presets/quickstart.router.gz");
/// Characters of a key.
const KEY: usize = 16;

/// The routing of a key, if it is the quickstart's.
pub(super) fn quickstart(key: &str, drawing: &Drawing, fit: &Fit) -> Option<Trace> {
    let (own, packed) = QUICKSTART.split_at_checked(KEY)?;
    if own != key.as_bytes() {
        return None;
    }
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).ok()?;
    synthesize_with(&Router::from_bytes(&bytes)?, fit, &drawing.spec, drawing.seed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment;
    use flate2::{Compression, write::GzEncoder};
    use moesim_traces::synth::fitted;
    use std::io::Write;

    #[test]
    fn the_quickstarts_router_is_what_the_generator_draws() {
        let drawing = Drawing::of(experiment::load("quickstart", &[]).unwrap().routing()).unwrap().unwrap();
        let fit = fitted(drawing.spec.experts).unwrap();
        let router = Router::drawn(&fit, &drawing.spec, drawing.seed).to_bytes();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/presets/quickstart.router.gz");
        if std::env::var_os("MOESIM_REMAKE").is_some() {
            let mut file = drawing.key(&fit).into_bytes();
            let mut packer = GzEncoder::new(&mut file, Compression::best());
            packer.write_all(&router).unwrap();
            packer.finish().unwrap();
            std::fs::write(path, file).unwrap();
            return;
        }
        assert!(QUICKSTART.len() < 1 << 20, "{}", QUICKSTART.len());
        assert_eq!(&QUICKSTART[..KEY], drawing.key(&fit).as_bytes(), "remake it, see the module");
        let mut shipped = Vec::new();
        GzDecoder::new(&QUICKSTART[KEY..]).read_to_end(&mut shipped).unwrap();
        assert!(shipped == router, "remake it, see the module");
        assert_eq!(quickstart(&drawing.key(&fit), &drawing, &fit).unwrap().hash(), drawing.draw().unwrap().hash());
        assert!(quickstart("0123456789abcdef", &drawing, &fit).is_none());
    }
}
