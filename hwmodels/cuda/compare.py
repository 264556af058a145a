"""The same layer by PyTorch's grouped product, cuBLAS expert by expert, and a Triton fused MoE, beside the driver's times.

    python compare.py measured.csv          # measured.csv: ./driver --out measured.csv, on the same device

Needs PyTorch with CUDA; vLLM's fused MoE is compared with where vllm is installed. What is missing is said and left out. Weights are
random and come in turn from several times the L2, as the driver's; times are medians of 21 calls between CUDA events, of the
whole layer but its gate: permutation, both products, the activation, the weighted sum.
"""

import csv
import statistics
import sys

try:
    import torch
except ImportError:
    sys.exit("PyTorch is not installed: nothing to compare with")


def timed(call, repeats=21, warm=3):
    for turn in range(warm):
        call(turn)
    times = []
    for turn in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call(turn)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times)


class Layer:
    """Random weights of several sets, and balanced routing: pairs by expert, the p-th to token p mod T."""

    def __init__(self, tokens, hidden, inner, top_k, active):
        l2 = torch.cuda.get_device_properties(0).L2_cache_size
        one = active * 3 * hidden * inner * 2
        free = torch.cuda.mem_get_info()[0] // 2
        self.sets = max(1, min(8, free // one, -(-4 * l2 // one) + 1))
        make = lambda *shape: torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * 0.02
        self.first = [make(active, 2 * inner, hidden) for _ in range(self.sets)]
        self.second = [make(active, hidden, inner) for _ in range(self.sets)]
        self.x = make(tokens, hidden)
        pairs = tokens * top_k
        expert = torch.arange(pairs, device="cuda") * active // pairs
        token = torch.arange(pairs, device="cuda") % tokens
        ids = torch.empty(tokens, top_k, device="cuda", dtype=torch.int64)
        ids[token, torch.arange(pairs, device="cuda") // tokens] = expert
        self.ids, self.token = ids, token
        self.weights = torch.full((tokens, top_k), 1.0 / top_k, device="cuda", dtype=torch.float32)
        counts = torch.bincount(expert, minlength=active)
        self.ends = torch.cumsum(counts, 0).to(torch.int32)
        self.sizes = counts.tolist()
        self.top_k, self.hidden = top_k, hidden

    def combine(self, y):
        out = torch.zeros(self.x.shape, device="cuda", dtype=torch.float32)
        return out.index_add_(0, self.token, y.float() / self.top_k)

    def grouped(self, turn):
        product = getattr(torch.nn.functional, "grouped_mm", None) or torch._grouped_mm
        first, second = self.first[turn % self.sets], self.second[turn % self.sets]
        a = product(self.x[self.token], first.transpose(1, 2), offs=self.ends)
        gate, up = a.chunk(2, dim=1)
        h = torch.nn.functional.silu(gate) * up
        return self.combine(product(h, second.transpose(1, 2), offs=self.ends))

    def each(self, turn):
        first, second = self.first[turn % self.sets], self.second[turn % self.sets]
        parts = []
        for e, rows in enumerate(self.x[self.token].split(self.sizes)):
            gate, up = (rows @ first[e].T).chunk(2, dim=1)
            parts.append((torch.nn.functional.silu(gate) * up) @ second[e].T)
        return self.combine(torch.cat(parts))

    def triton(self, turn):
        from vllm.model_executor.layers.fused_moe import fused_experts

        first, second = self.first[turn % self.sets], self.second[turn % self.sets]
        return fused_experts(self.x, first, second, self.weights, self.ids.to(torch.int32))


def main():
    rows = [r for r in csv.DictReader(open(sys.argv[1])) if r["what"] == "experts" and r["precision"] == "bfloat16"]
    print(f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}; us, and how many times as long as moesim's kernel")
    ways = {"grouped": Layer.grouped, "cuBLAS each": Layer.each, "Triton (vLLM)": Layer.triton}
    for row in rows:
        size = [int(row[c]) for c in ("tokens", "hidden_size", "inter_size", "topk", "active_experts")]
        own = float(row["latency_us"])
        text = "tokens {} hidden {} inner {} top-{} active {}".format(*size)
        try:
            layer = Layer(*size)
            wanted = layer.each(0)
        except torch.cuda.OutOfMemoryError:
            print(f"{text}: does not fit")
            continue
        parts = []
        for name, way in ways.items():
            try:
                off = (way(layer, 0).float() - wanted).norm() / wanted.norm()
                if not off < 0.02:
                    parts.append(f"{name}: off by {off:.2g}")
                    continue
                t = timed(lambda turn: way(layer, turn))
                parts.append(f"{name} {t:.1f} ({t / own:.2f})")
            except Exception as e:  # Whatever a library lacks for a shape or a device.
                parts.append(f"{name}: {type(e).__name__}")
        print(f"{text}: moesim {own:.1f}; " + "; ".join(parts))
        del layer


if __name__ == "__main__":
    main()
