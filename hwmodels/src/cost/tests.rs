use super::*;
use crate::Hardware;
use crate::calibrate::data::moe::widths;
use crate::calibrate::profile::{Kernel, KernelForm, Profile};
use crate::form::{FusedMoeForm, MoeLoad, MoeRow, MoeShape, Peaks, Tiling};
use proptest::prelude::*;

fn h100() -> Engine {
    Engine::gpu(&Hardware::load("h100-8").unwrap().device)
}

#[track_caller]
fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-12 * b.abs(), "{a} against {b}");
}

const LAUNCH: f64 = 2e-6;
const MEMORY: f64 = 3.35e12 * 0.9;

#[test]
fn a_gemm_by_hand() {
    // FP8 in, BF16 out, 128 x 4096 x 7168: 7,516,192,768 operations; 128 x 7168 + 4096 x 7168 + 2 x 128 x 4096 bytes.
    let c = gemm(&h100(), Gemm { m: 128, n: 4096, k: 7168, weight_bits: 8.0, activation_bits: 8.0 });
    assert_eq!((c.flop, c.bytes), (7_516_192_768, 917_504 + 29_360_128 + 1_048_576));
    close(c.compute_s, 7_516_192_768.0 / (1978.9e12 * 0.7));
    close(c.memory_s, 31_326_208.0 / MEMORY);
    close(c.time_s(), LAUNCH + 31_326_208.0 / MEMORY);
    assert_eq!(c.term(), Term::Memory);
    // Four-bit weights with 16-bit activations: a quarter of the weight bytes, the 16-bit rate.
    let c = gemm(&h100(), Gemm { m: 4096, n: 4096, k: 4096, weight_bits: 4.25, activation_bits: 16.0 });
    close(c.compute_s, 2.0 * 4096f64.powi(3) / (989.4e12 * 0.7));
    assert_eq!((c.bytes, c.term()), (4096 * 4096 * 17 / 32 + 2 * 2 * 4096 * 4096, Term::Compute));
    assert_eq!(gemm(&h100(), Gemm { m: 0, n: 1, k: 1, weight_bits: 8.0, activation_bits: 8.0 }), Cost::default());
    let rows = Gemm { m: 12, n: 256, k: 512, weight_bits: 16.0, activation_bits: 16.0 };
    let c = grouped_gemm(&h100(), rows, 2.5);
    assert_eq!((c.flop, c.bytes), (2 * 12 * 256 * 512, 2 * (256 * 512 * 5 / 2 + 12 * (256 + 512))));
    assert_eq!(grouped_gemm(&h100(), Gemm { m: 0, ..rows }, 2.5), Cost::default());
    let tiny = gemm(&h100(), Gemm { m: 1, n: 64, k: 64, weight_bits: 16.0, activation_bits: 16.0 });
    assert_eq!(tiny.term(), Term::Launch);
}

#[test]
fn the_bound_changes_at_the_ridge() {
    // With m much smaller than n and k the intensity is m operations a byte in 16 bits; the ridge is where compute and
    // memory take as long: 989.4 x 0.7 / (3.35 x 0.9) = 229.7.
    let at = |m| gemm(&h100(), Gemm { m, n: 1 << 20, k: 1 << 20, weight_bits: 16.0, activation_bits: 16.0 }).term();
    assert_eq!((at(229), at(231)), (Term::Memory, Term::Compute));
}

#[test]
fn experts_by_hand() {
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
    let c = grouped_mlp(&h100(), &mlp, &[5, 0, 3, 0]);
    let matrix = 7168 * 2048u64;
    // Two experts read, three matrices each; eight tokens in, product out and in, result out in BF16.
    assert_eq!(c.flop, 2 * 8 * 3 * matrix);
    assert_eq!(c.bytes, 2 * 3 * matrix + 8 * (7168 + 2048 + 2048 + 2 * 7168));
    close(c.time_s(), 2.0 * LAUNCH + c.bytes as f64 / MEMORY);
    close(c.compute_s, c.flop as f64 / (1978.9e12 * 0.69));
    assert_eq!(grouped_mlp(&h100(), &mlp, &[0; 4]), Cost::default());
    // One width after the other, and all alike.
    let sized = |list: [(u32, u64); 3]| grouped_mlp_sized(&h100(), &mlp, list.into_iter());
    assert_eq!(sized([(5, 2048), (0, 9), (3, 2048)]), c);
    let c = sized([(5, 1024), (0, 9), (3, 4096)]);
    assert_eq!(c.flop, 2 * 3 * 7168 * (5 * 1024 + 3 * 4096));
    assert_eq!(c.bytes, 3 * 7168 * (1024 + 4096) + 8 * 3 * 7168 + 2 * (5 * 1024 + 3 * 4096));
    assert_eq!(sized([(0, 1); 3]), Cost::default());
    // Rank 512: 3 x 512 (7168 + 2048) weights an expert, and as many multiply-adds a token.
    let factored = GroupedMlp { rank: 512, ..mlp };
    let c = grouped_mlp(&h100(), &factored, &[5, 0, 3, 0]);
    let (weights, between) = (3 * 512 * (7168 + 2048u64), 2 * 3 * 512);
    assert_eq!(c.flop, 2 * 8 * weights);
    assert_eq!(c.bytes, 2 * weights + 8 * (7168 + 2048 + 2048 + 2 * 7168 + between));
    close(c.launch_s, 4.0 * LAUNCH);
    let sized = grouped_mlp_sized(&h100(), &factored, [(5, 2048), (3, 2048)].into_iter());
    assert_eq!((sized.flop, sized.bytes), (c.flop, c.bytes));
    let two = grouped_mlp(&h100(), &GroupedMlp { matrices: 2, ..mlp }, &[5, 0, 3, 0]);
    assert_eq!(two.flop, 2 * 8 * 2 * matrix);
}

#[test]
fn attention_by_hand() {
    // gpt-oss-like: 64 heads of 64, 8 key-value heads; one query each in 4 sequences of 1,000 tokens.
    let kind = AttentionKind::Grouped { heads: 64, kv_heads: 8, head_dim: 64 };
    let shape = AttentionShape { kind, kv_bits: 16.0, activation_bits: 16.0 };
    let work = AttentionWork {
        query_tokens: 4,
        query_key_pairs: 4000,
        kv_tokens_read: 4000,
        kv_tokens_written: 4,
        ..AttentionWork::default()
    };
    let batch = AttentionBatch { decode: work, ..AttentionBatch::default() };
    let c = attention(&h100(), &shape, &batch);
    assert_eq!(shape.kv_bytes_per_token(), 2048.0);
    assert_eq!((c.flop, c.bytes), (4 * 64 * 64 * 4000, 4004 * 2048 + 4 * 2 * 64 * 64 * 2));
    close(c.time_s(), LAUNCH + c.bytes as f64 / MEMORY);
    // DeepSeek-V3: 128 heads, latent 512 + 64: 1,088 multiply-adds a pair and head, 1,152 bytes a token.
    let kind = AttentionKind::Latent { heads: 128, rank: 512, rope: 64, nope: 128, value: 128 };
    let shape = AttentionShape { kind, ..shape };
    let c = attention(&h100(), &shape, &batch);
    assert_eq!(shape.kv_bytes_per_token(), 1152.0);
    assert_eq!((c.flop, c.bytes), (4000 * 128 * 1088 * 2, 4004 * 1152 + 4 * 128 * 1088 * 2));
    close(c.compute_s, c.flop as f64 / (989.4e12 * 0.75));
    // One chunk of four tokens instead: 320 multiply-adds a pair and head, expanded keys and values of 640 bytes a
    // head.
    let chunk = attention(&h100(), &shape, &AttentionBatch { prefill: work, ..AttentionBatch::default() });
    assert_eq!(chunk.flop, 4000 * 128 * 320 * 2);
    assert_eq!(chunk.bytes, 4000 * 128 * 640 + 4 * 1152 + 4 * 128 * 320 * 2);
    // Both kernels, one after the other.
    let both = attention(&h100(), &shape, &AttentionBatch { prefill: work, ..batch });
    assert_eq!(both, c.then(chunk));
    assert_eq!(attention(&h100(), &shape, &AttentionBatch::default()), Cost::default());
}

#[test]
fn streams_and_the_gate_by_hand() {
    close(elementwise(&h100(), 3.015e9).time_s(), LAUNCH + 1e-3);
    close(copy(1e9, 50e9, 10e-6).time_s(), 0.02 + 10e-6);
    assert_eq!((copy(0.0, 50e9, 10e-6), elementwise(&h100(), 0.0)), (Cost::default(), Cost::default()));
    let c = gate(&h100(), 64, 7168, 256, 16.0, 16.0);
    assert_eq!((c.flop, c.bytes), (2 * 64 * 256 * 7168, (64 + 256) * 7168 * 2 + 64 * 256 * 2 + 64 * 256 * 4));
    close(c.launch_s, 2.0 * LAUNCH);
}

#[test]
fn a_sequence_keeps_the_time() {
    let compute = Cost::kernel(1.0, 10.0, 4.0, 1, 2);
    let memory = Cost::kernel(1.0, 0.0, 8.0, 3, 4);
    let both = compute.then(memory);
    assert_eq!((both.time_s(), both.launch_s, both.compute_s, both.memory_s), (20.0, 2.0, 10.0, 12.0));
    // More of the time was bound by compute, although memory's demands add up to more.
    assert_eq!((both.term(), both.flop, both.bytes), (Term::Compute, 4, 6));
    assert_eq!(Cost::default().then(compute), compute);
}

#[test]
fn engines_take_the_precision_they_have() {
    let engine = |name| Engine::gpu(&Hardware::load(name).unwrap().device);
    let (a100, h100, b200) = (engine("a100-8"), h100(), engine("b200-8"));
    let precisions = |e: &Engine| [16.0, 8.0, 4.0].map(|bits| e.precision(bits));
    use Precision::*;
    assert_eq!(precisions(&a100), [Bf16, Int8, Int8]);
    assert_eq!(precisions(&h100), [Bf16, Fp8, Fp8]);
    assert_eq!(precisions(&b200), [Bf16, Fp8, Fp4]);
    close(b200.flop_per_s(Family::Dense, 4.0), 9000e12 * 0.7);
    let duplex = Hardware::load("duplex-1").unwrap().device;
    let pim = Engine::pim(&duplex).unwrap();
    close(pim.bytes_per_s, 4.0 * 3.35e12 * 0.9);
    // The point of the device: few tokens an expert are faster in memory, many on the GPU's cores.
    let mlp = GroupedMlp {
        hidden: 4096,
        intermediate: 14336,
        rank: 0,
        matrices: 3,
        weight_bits: 16.0,
        activation_bits: 16.0,
        choices: 1.0,
        everywhere: [0.0; 2],
    };
    let time = |e: &Engine, t| grouped_mlp(e, &mlp, &[t; 8]).time_s();
    let gpu = Engine::gpu(&duplex);
    assert!(time(&pim, 4) < time(&gpu, 4) && time(&pim, 64) > time(&gpu, 64));
    assert!(Engine::pim(&Hardware::load("h100-8").unwrap().device).is_none());
}

proptest! {
    #[test]
    fn more_work_is_never_cheaper(
        tokens in prop::collection::vec(0u32..5000, 1..40), at in 0usize..40, more in 1u32..5000, bits in 4.0..16.0f64,
    ) {
        let engine = h100();
        let mlp = GroupedMlp { hidden: 2880, intermediate: 2880, rank: 0, matrices: 3, weight_bits: bits, activation_bits: 16.0, choices: 1.0, everywhere: [0.0; 2] };
        let before = grouped_mlp(&engine, &mlp, &tokens).time_s();
        let mut larger = tokens.clone();
        larger[at % tokens.len()] += more;
        prop_assert!(grouped_mlp(&engine, &mlp, &larger).time_s() > before);

        let dense = |m| gemm(&engine, Gemm { m, n: 2880, k: 4096, weight_bits: bits, activation_bits: bits }).time_s();
        prop_assert!(dense(u64::from(tokens[0]) + u64::from(more)) > dense(u64::from(tokens[0])));

        let kind = AttentionKind::Latent { heads: 16, rank: 512, rope: 64, nope: 128, value: 128 };
        let shape = AttentionShape { kind, kv_bits: bits, activation_bits: 16.0 };
        let cost = |context| {
            let decode = AttentionWork {
                query_tokens: 1,
                query_key_pairs: context,
                kv_tokens_read: context,
                kv_tokens_hidden: 0,
                kv_tokens_written: 1,
            };
            attention(&engine, &shape, &AttentionBatch { decode, ..AttentionBatch::default() }).time_s()
        };
        prop_assert!(cost(u64::from(more) + 7) > cost(7));
    }

    #[test]
    fn a_kernel_takes_at_least_each_of_its_parts(launch in 0.0..1.0, compute in 0.0..1.0, memory in 0.0..1.0) {
        let c = Cost::kernel(launch, compute, memory, 1, 1);
        prop_assert_eq!(c.time_s(), launch + f64::max(compute, memory));
    }
}

/// Inputs rounded to 8 bits: the product runs at the 8-bit peak behind a kernel that rounds; weights that are wider are
/// left alone.
#[test]
fn rounded_inputs_run_at_their_own_peak() {
    let engine = h100().with_gemm_input(Some(8.0));
    let g = Gemm { m: 4096, n: 4096, k: 4096, weight_bits: 8.001953125, activation_bits: 16.0 };
    let (wide, narrow) = (gemm(&h100(), g), gemm(&engine, g));
    assert!((narrow.compute_s / wide.compute_s - 0.5).abs() < 1e-3, "{} {}", narrow.compute_s, wide.compute_s);
    assert_eq!(narrow.launch_s, 2.0 * wide.launch_s);
    // 24 bits an input are moved to round it, and 8 of 16 less to multiply it.
    assert_eq!(narrow.bytes - wide.bytes, 4096 * 4096 * (24 - 8) / 8);
    let router = Gemm { weight_bits: 16.0, ..g };
    assert_eq!(gemm(&engine, router), gemm(&h100(), router));
    let mlp = GroupedMlp {
        hidden: 2048,
        intermediate: 1024,
        rank: 0,
        matrices: 3,
        weight_bits: 8.0,
        activation_bits: 16.0,
        choices: 1.0,
        everywhere: [0.0; 2],
    };
    let (wide, narrow) = (grouped_mlp(&h100(), &mlp, &[4096; 8]), grouped_mlp(&engine, &mlp, &[4096; 8]));
    assert!((narrow.compute_s / wide.compute_s - 0.5).abs() < 1e-3 && narrow.launch_s == 1.5 * wide.launch_s);
}

/// Where all tokens come to every device, a fused kernel's tile follows all their selections, and its passes move them
/// all: as the form says of the same load.
#[test]
fn tokens_that_come_everywhere_pass_through_the_kernel() {
    let profile = Profile::load("b200-sxm").unwrap();
    let rows = |k: &&Kernel| matches!(k.form(), KernelForm::FusedMoe { tiling: Tiling::Rows, .. });
    let kernel = profile.kernels.iter().find(rows).unwrap();
    let peaks = Peaks { flop_per_s: 9e15, bytes_per_s: 8e12, units: 148.0, l2_bytes: 126e6 };
    let mut engine = Engine::gpu(&Hardware::load("b200-8").unwrap().device);
    engine.kernels.experts = Some(ExpertKernel::new(kernel, peaks).unwrap());
    let [weight_bytes, activation_bytes] = widths(&kernel.precision).unwrap();
    let form = FusedMoeForm { tiling: Tiling::Rows };
    // 16 of 128 experts with 8 of 1024 selections each; all experts' selections are 8 times as many.
    let counts = [8u32; 16];
    for (everywhere, off, tokens) in [([0.0; 2], 0.0, 128.0), ([128.0, 1024.0], 896.0, 128.0)] {
        let mlp = GroupedMlp {
            hidden: 4096,
            intermediate: 2048,
            rank: 0,
            matrices: 3,
            weight_bits: 8.0 * weight_bytes,
            activation_bits: 16.0,
            choices: 1.0,
            everywhere,
        };
        let load = MoeLoad { off, tokens, ..MoeLoad::of(counts) };
        let shape = MoeShape {
            hidden: 4096.0,
            intermediate: 2048.0,
            first: 2.0,
            experts: 16.0,
            weight_bytes,
            activation_bytes,
            tuned: false,
        };
        let wanted = form.time(&kernel.values().unwrap(), &MoeRow { load, shape, peaks }).seconds();
        close(grouped_mlp(&engine, &mlp, &counts).time_s(), wanted);
    }
}
