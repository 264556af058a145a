//! Costs that a simulated iteration asks for per layer and device.

use divan::{Bencher, black_box};
use moesim_hwmodels::Hardware;
use moesim_hwmodels::cost::{Engine, GroupedMlp, grouped_mlp};

fn main() {
    divan::main();
}

#[divan::bench(args = [4, 32, 256])]
fn experts(bencher: Bencher, experts: usize) {
    let hardware = Hardware::load("h100-8").expect("a preset loads");
    let engine = Engine::gpu(&hardware.device);
    let mlp = GroupedMlp {
        hidden: 7168,
        intermediate: 2048,
        rank: 0,
        matrices: 3,
        weight_bits: 8.0,
        activation_bits: 8.0,
        choices: 1.0,
        everywhere: [0.0; 2],
    };
    let tokens: Vec<u32> = (0..experts as u32).map(|e| e % 7).collect();
    bencher.bench_local(|| grouped_mlp(black_box(&engine), black_box(&mlp), black_box(&tokens)));
}
