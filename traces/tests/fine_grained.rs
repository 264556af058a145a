//! What synthetic routing of fine-grained models is like beside counts of such models. Skipped where the counts are absent.

// The example's `main` and its argument reading are not called from this test.
#[allow(dead_code)]
#[path = "../examples/fit_fine_grained.rs"]
mod example;

use moesim_core::Result;
use moesim_traces::stats::Statistics;
use moesim_traces::synth::{Fit, Router, Subjects, SynthSpec, fitted, synthesize_with};
use std::path::Path;

fn folder() -> Option<&'static Path> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/routing"));
    let there = folder.exists();
    if !there {
        println!("skipped: {} is absent", folder.display());
    }
    there.then_some(folder)
}

#[test]
fn refitting_reproduces_the_file() {
    let Some(folder) = folder() else { return };
    let file = include_str!("../data/fine-grained.toml");
    assert!(example::text(folder).unwrap() == file, "run the example fit_fine_grained");
}

/// Layers, experts, experts a token.
type Shape = (u32, u32, u32);

/// The most selected expert over the mean of a drawn trace's outputs, averaged over the layers.
fn imbalance(fit: &Fit, (layers, experts, k): Shape, subjects: Subjects, seed: u64) -> Result<f64> {
    let layer_numbers: Vec<u32> = (0..layers).collect();
    let (model, prompt_rows, decode_rows) = ("m".to_string(), 0, 128);
    let spec = SynthSpec { model, layer_numbers, experts, k, sequences: 256, prompt_rows, decode_rows, subjects };
    let trace = synthesize_with(&Router::drawn(fit, &spec, seed), fit, &spec, seed)?;
    let statistics = Statistics::of(&trace)?;
    Ok((0..layers as usize).map(|l| statistics.imbalance(l)).sum::<f64>() / f64::from(layers))
}

/// A batch of many subjects is as uneven as Qwen3-30B-A3B's counts, whose popularity it has: settled on few sequences, it may
/// be a tenth off. Drawn after gpt-oss-20b it is far from that.
#[test]
fn many_subjects_are_as_uneven_as_counted() {
    let Some(folder) = folder() else { return };
    let counts = example::qwen3(folder).unwrap();
    let counted = (0..48).map(|l| counts.imbalance(l)).sum::<f64>() / 48.0;
    let [drawn, coarse] =
        [128, 32].map(|like| imbalance(&fitted(like).unwrap(), (48, 128, 8), Subjects::Many, 1).unwrap());
    println!("Qwen3-30B-A3B: counted {counted:.2}, drawn {drawn:.2}, after gpt-oss-20b {coarse:.2}");
    assert!((drawn / counted - 1.0).abs() < 0.1, "{drawn} {counted}");
    assert!(coarse < 0.7 * counted, "{coarse} {counted}");
}

/// A batch of one subject is more uneven than one of many: how much so is printed beside what was counted.
#[test]
fn one_subject_is_more_uneven_than_many() {
    let Some(folder) = folder() else { return };
    let (counted, shape) = (example::olmoe(folder).unwrap().imbalance(), (16, 64, 8));
    let fit = fitted(64).unwrap();
    let [one, many] = [Subjects::One, Subjects::Many].map(|s| imbalance(&fit, shape, s, 1).unwrap());
    println!("OLMoE-1B-7B: counted {:.2} and {:.2}, drawn {one:.2} and {many:.2}", counted[0], counted[1]);
    assert!(one > many, "{one} {many}");
}
