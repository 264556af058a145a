//! What measured servers were started with beyond the columns of a point, as the public scripts that started them say:
//! SemiAnalysis InferenceX, `benchmarks/single_node` (Apache-2.0), one script a model, precision, device and framework.

use super::Point;
use toml::Value;

/// The month from which servers of vLLM were started with a cache in 8 bits and a wide budget.
const NARROW_CACHE: &str = "2026-04";

/// What stands in for something that servers were started with.
pub fn stand_in(point: &Point) -> Option<&'static str> {
    on_marlin(point).then_some(
        "experts by Marlin's kernel for INT4, measured on seven shapes; servers had the one for MXFP4, measured on one",
    )
}

/// Whether MXFP4 experts ran on Marlin (VLLM_MXFP4_USE_MARLIN).
fn on_marlin(point: &Point) -> bool {
    point.model.starts_with("gpt-oss") && point.system.starts_with('h') && point.backend == "vllm"
}

/// Keys of an experiment and their values.
pub fn settings(point: &Point) -> Vec<(&'static str, Value)> {
    let (model, backend) = (point.model.as_str(), point.backend.as_str());
    let blackwell = point.system.starts_with('b') || point.system.starts_with("gb");
    let mut out: Vec<(&'static str, Value)> = vec![("engine.framework", backend.into())];
    let narrow_cache = match (model, backend) {
        ("gpt-oss-120b" | "gpt-oss-20b", _) => blackwell,
        // Of DeepSeek-R1 the caches of SGLang on Hopper are as wide as the checkpoint says.
        ("DeepSeek-R1" | "DeepSeek-V3", "sglang") => blackwell,
        ("DeepSeek-R1" | "DeepSeek-V3", _) => true,
        (_, "vllm") => blackwell && point.date.as_str() >= NARROW_CACHE,
        _ => false,
    };
    if narrow_cache {
        out.push(("model.precision.kv", 8.0.into()));
    }
    if on_marlin(point) {
        // One source for both kinds of weights: they differ in scales and in how elements are widened.
        out.push(("engine.kernels.experts", "sglang_marlin_moe".into()));
    }
    if model.starts_with("gpt-oss") && blackwell {
        // Inputs of MXFP4 experts in MXFP8: vLLM's VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8, and TensorRT-LLM's backend TRTLLM.
        out.push(("model.precision.gemm_input", 8.0.into()));
    }
    if model == "MiniMax-M2.5" && point.precision == "fp8" && blackwell && point.date.as_str() < NARROW_CACHE {
        // VLLM_USE_FLASHINFER_MOE_FP8=0 and VLLM_MOE_USE_DEEP_GEMM=0, which leave Triton.
        out.push(("engine.kernels.experts", "vllm_fused_moe 0.19.0".into()));
    }
    if model.starts_with("DeepSeek") && blackwell && backend == "trtllm" {
        out.push(("engine.kernels.experts", deepseek_experts(point).into()));
    }
    // vLLM's pass fuse_allreduce_rms, SGLang's --enable-flashinfer-allreduce-fusion; TensorRT-LLM does so unasked.
    let fused = match (model, backend) {
        ("gpt-oss-120b" | "gpt-oss-20b" | "Kimi-K2.5", "vllm") | ("DeepSeek-R1" | "DeepSeek-V3", "sglang") => blackwell,
        ("MiniMax-M2.5", "vllm") => blackwell && point.precision == "fp4",
        _ => false,
    };
    if fused {
        out.push(("engine.fused", vec!["all-reduce-norm"].into()));
    }
    if model.starts_with("DeepSeek") && blackwell && backend == "sglang" {
        // --scheduler-recv-interval of `dsr1_fp4_b200.sh` and `dsr1_fp8_b200.sh`.
        let interval = if point.conc >= 16 { 30 } else { 10 };
        out.push(("engine.receive_interval", interval.into()));
    }
    out
}

/// MOE_BACKEND of `dsr1_fp4_b200_trt.sh` and `dsr1_fp8_b200_trt.sh`. The generated kernels (TRTLLM) were measured under
/// SGLang, which takes them from FlashInfer; many clients have CUTLASS in 4 bits and DeepGEMM in 8.
fn deepseek_experts(point: &Point) -> &'static str {
    let narrow = point.precision == "fp4";
    let many = match point.isl {
        8192 => narrow && point.conc > 32,
        _ => point.conc >= 256,
    };
    match (many, narrow) {
        (false, _) => "sglang_flashinfer_trtllm_moe",
        (true, true) => "moe_torch_flow_cutlass",
        (true, false) => "deepgemm",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::point;
    use super::*;

    #[test]
    fn scripts_say_cache_and_kernels() {
        let of = |change: fn(&mut Point)| {
            let mut p = point();
            change(&mut p);
            settings(&p).into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        let hopper = of(|p| (p.model, p.system, p.backend) = ("gpt-oss-120b".into(), "h200_sxm".into(), "vllm".into()));
        assert_eq!(hopper, ["engine.framework=\"vllm\"", "engine.kernels.experts=\"sglang_marlin_moe\""]);
        let blackwell =
            of(|p| (p.model, p.system, p.backend) = ("gpt-oss-120b".into(), "gb200".into(), "trtllm".into()));
        assert_eq!(blackwell[1..], ["model.precision.kv=8.0", "model.precision.gemm_input=8.0"]);
        let minimax = |date: &str| {
            let mut p = point();
            (p.model, p.system, p.backend) = ("MiniMax-M2.5".into(), "b200_sxm".into(), "vllm".into());
            (p.date, p.precision) = (date.into(), "fp8".into());
            settings(&p).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(minimax("2026-03-31"), ["engine.framework", "engine.kernels.experts"]);
        assert_eq!(minimax("2026-04-01"), ["engine.framework", "model.precision.kv"]);
    }
}
