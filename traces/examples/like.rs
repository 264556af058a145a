//! x
use moesim_traces::import::{Options, load};
use moesim_traces::synth::Like;
use std::path::Path;
fn main() {
    let o = Options { model: Some("gpt-oss-20b".into()), ..Default::default() };
    let trace = load(Path::new("/work/shared/data/routing/gpt-oss-20b"), None, &o).unwrap();
    for seed in std::env::args().skip(1) {
        let (_, c) = Like::fit(&trace, seed.parse().unwrap()).unwrap();
        for r in c.rows {
            println!("{:50} {:>4} {:8.3} {:8.3} {:8.3} {:+6.1}% {:8.3} {:+6.1}%", r.statistic, r.size.unwrap_or(0), r.held_out, r.fitted, r.synthetic, (r.synthetic / r.held_out - 1.0) * 100.0, r.independent, (r.independent / r.held_out - 1.0) * 100.0);
        }
    }
}
