use super::*;
use crate::stats::Statistics;
use std::path::Path;

fn spec(layers: u32, experts: u32, k: u32, sequences: u32, decode_rows: u32) -> SynthSpec {
    let layer_numbers = (0..layers).collect();
    SynthSpec { model: "m".into(), layer_numbers, experts, k, sequences, prompt_rows: 0, decode_rows }
}

#[test]
fn refitting_reproduces_the_file() {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/routing/gpt-oss-20b"));
    if !source.exists() {
        println!("skipped: {} is absent", source.display());
        return;
    }
    let file = fitted().unwrap();
    let options = crate::import::Options {
        model: Some(file.model.clone()),
        source: Some(file.source.clone()),
        licence: Some(file.licence.clone()),
        ..Default::default()
    };
    let trace = crate::import::load(source, None, &options).unwrap();
    let text = Fit::of(&trace).unwrap().to_text().unwrap();
    assert!(text == include_str!("../../data/gpt-oss-20b.toml"), "run the example fit_synth");
}

#[test]
fn the_fitted_shape_has_the_fitted_figures() {
    let (fit, rows) = (fitted().unwrap(), 20_000.0);
    let trace = synthesize(&spec(24, 32, 4, 40, 500), 3).unwrap();
    assert_eq!(trace.hash(), synthesize(&spec(24, 32, 4, 40, 500), 3).unwrap().hash());
    let s = Statistics::of(&trace).unwrap();
    for (l, layer) in fit.layer.iter().enumerate() {
        let total: u64 = layer.counts.iter().sum();
        let r = layer.retention(4);
        for (ours, theirs) in s.layer(l).iter().zip(&layer.counts) {
            // Binomial with the autocorrelation r of successive tokens; five standard errors.
            let p = 4.0 * *theirs as f64 / total as f64;
            let error = 5.0 * (rows * p * (1.0 - p) * (1.0 + r) / (1.0 - r)).sqrt();
            assert!((*ours as f64 - rows * p).abs() < error, "layer {l}: {ours}, {}", rows * p);
        }
        let overlap = s.repeats[l] as f64 / s.successors[l] as f64;
        assert!((overlap - layer.overlap()).abs() < 0.02, "layer {l}: {overlap}, {}", layer.overlap());
    }
}

#[test]
fn other_shapes_are_sound() {
    for (layers, experts, k) in [(58, 256, 8), (1, 1, 1), (3, 8, 8), (2, 128, 1), (30, 5, 3)] {
        let trace = synthesize(&SynthSpec { prompt_rows: 7, ..spec(layers, experts, k, 3, 50) }, 1).unwrap();
        assert_eq!((trace.rows(), trace.sequence(2).decode_first_position), (171, 7));
        for i in 0..3 {
            trace.check_sequence(i).unwrap();
            for ids in trace.sequence(i).decode.chunks(k as usize) {
                assert!((0..ids.len()).all(|a| !ids[..a].contains(&ids[a])), "{ids:?} repeats an expert");
            }
        }
    }
    // The imbalance of the middle layer is that of the fit's, less what 256 quantiles smooth.
    let trace = synthesize(&spec(58, 256, 8, 20, 200), 1).unwrap();
    let imbalance = Statistics::of(&trace).unwrap().imbalance(57);
    assert!((3.0..5.0).contains(&imbalance), "{imbalance}");
}

#[test]
fn a_model_gives_its_shape_and_nonsense_is_refused() {
    let v3 = SynthSpec::for_model(&Model::load("deepseek-v3").unwrap(), 1, 2, 3).unwrap();
    assert_eq!((v3.layer_numbers.len(), v3.layer_numbers[0], v3.experts, v3.k), (58, 3, 256, 8));
    for bad in [
        spec(0, 8, 2, 1, 1),
        spec(1, 8, 9, 1, 1),
        spec(1, 8, 2, 0, 1),
        spec(4000, 65_000, 2, 1, 1),
        spec(1, 8, 2, u32::MAX, u32::MAX),
    ] {
        let e = synthesize(&bad, 1).unwrap_err();
        assert!(e.exit_code() == 2 && !e.cure.is_empty(), "{e}");
    }
}
