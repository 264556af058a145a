use super::*;
use crate::experiment;
use crate::network::dispatch::Flat;

fn costs(set: &[&str]) -> Calibrated {
    let set: Vec<String> = set.iter().map(|s| (*s).to_string()).collect();
    Calibrated::new(&experiment::load("quickstart", &set).unwrap(), &Flat).unwrap()
}

/// A kernel in a precision that the device has no peak rate for is none of that device's: no preset refuses a model's precision.
#[test]
fn every_preset_prices_every_precision() {
    let narrow = "model.precision.gemm_input=4.5";
    for preset in moesim_hwmodels::hardware::presets() {
        let hardware = format!("hardware={}", preset.name);
        for model in [&["model=minimax-m2"][..], &["model=qwen3-30b-a3b"], &["model=minimax-m2", narrow]] {
            let costs = costs(&[&[hardware.as_str()], model].concat());
            assert_eq!(costs.words.len(), WHAT.len() + BETWEEN.len(), "{hardware} {model:?}");
        }
    }
    let die = costs(&["hardware=wafer-5x5", "model=minimax-m2"]);
    assert!(die.kernels.experts.is_none() && die.words["experts"].starts_with(ROOFLINE), "{:?}", die.words);
}

/// Products whose weights have no kernel say so beside those that have one.
#[test]
fn words_tell_of_products_without_a_kernel() {
    let of = |set: &[&str]| costs(&[&["hardware=h100-8", "model=minimax-m2"], set].concat()).words["gemm"].clone();
    assert!(!of(&[]).contains(ROOFLINE), "{}", of(&[]));
    let named = of(&["engine.kernels.gemm=sglang_deepgemm_gemm_nt_f8f8bf16"]);
    assert!(named.contains("roofline with assumed fractions for weights of 16 bits"), "{named}");
}

/// Without graphs a family that the experiment names stays, and of others the one that was measured so is taken.
#[test]
fn all_reduces_are_launched_as_the_engine_says() {
    let of = |set: &[&str]| {
        let base = ["hardware=h100-8", "deployment.attention_tp=8", "engine.framework=vllm"];
        costs(&[&base, set].concat()).words["all-reduce"].clone()
    };
    assert!(of(&[]).contains("vLLM_custom_graph"), "{}", of(&[]));
    assert!(of(&["engine.graphs=false"]).contains("vLLM_custom_eager"), "{}", of(&["engine.graphs=false"]));
    let named = of(&["engine.graphs=false", "engine.kernels.all_reduce=vLLM_custom_graph"]);
    assert!(named.contains("vLLM_custom_graph"), "{named}");
}

/// A family that no profile has is refused, where rooflines alone count too.
#[test]
fn unknown_families_are_refused() {
    for costs in ["calibrated", "roofline"] {
        let set = ["engine.kernels.all_reduce=nonsense".to_string(), format!("fidelity.costs={costs}")];
        let resolved = experiment::load("quickstart", &set).unwrap();
        let e = Calibrated::new(&resolved, &Flat).unwrap_err().to_string();
        assert!(e.contains("nonsense") && e.contains("engine.kernels.all_reduce"), "{e}");
    }
}
