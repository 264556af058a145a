"""Writes the files of this folder with the libraries of the tools that write such files.

Needs numpy, torch, safetensors, gguf and pyarrow: python make.py
"""

import json
import pathlib

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent
LAYERS, LOGICAL, PHYSICAL, K, COLUMNS = 3, 6, 8, 2, 8
MAP = torch.tensor([[(p + l) % LOGICAL for p in range(PHYSICAL)] for l in range(LAYERS)])


def logical(request, position, layer, column):
    return (request * 5 + position * 3 + layer * 2 + column) % LOGICAL


def physical(request, position, layer, column):
    found = [p for p in range(PHYSICAL) if MAP[layer][p] == logical(request, position, layer, column)]
    return found[position % len(found)]


# (forward mode, [(request, first position, tokens)]): a cached prefix, a prompt in chunks, a mixed pass, ends.
PASSES = [
    (1, [(0, 0, 3), (1, 0, 4)]),
    (1, [(1, 4, 2), (2, 2, 2)]),
    (2, [(0, 3, 1), (1, 6, 1), (2, 4, 1)]),
    (2, [(1, 7, 1), (2, 5, 1)]),
    (3, [(3, 0, 2), (1, 8, 1), (2, 6, 1)]),
    (2, [(2, 7, 1), (3, 2, 1)]),
    (4, []),
]


def record(number, mode, chunks, tokens):
    """As SGLang's detail gatherer collects it; layer 0 is dense."""
    flat = [(r, p) for r, first, n in chunks for p in range(first, first + n)]
    ids = torch.full((LAYERS, 64, COLUMNS), -1, dtype=torch.int32)
    for t, (r, p) in enumerate(flat):
        for layer in range(1, LAYERS):
            for c in range(K):
                ids[layer, t, c] = physical(r, p, layer, c)
    ids = ids[:, : len(flat), :].clone()
    count = torch.zeros(LAYERS, PHYSICAL, dtype=torch.int32)
    for layer in range(LAYERS):
        for p in ids[layer].flatten():
            if p >= 0:
                count[layer, p] += 1
    out = dict(forward_pass_id=number, rank=0, gatherer_key="primary")
    if tokens:
        out |= dict(
            input_ids=[1000 + r for r, _ in flat],
            positions=[p for _, p in flat],
            extend_seq_lens=[n for _, _, n in chunks] if mode in (1, 3) else None,
            forward_mode=mode,
            topk_ids_of_layer=ids,
            misc_objects=[],
        )
    return out | dict(global_physical_count=count)


def sglang():
    for name, tokens in (("per_token", True), ("per_pass", False)):
        records = [record(i, m, c, tokens) for i, (m, c) in enumerate(PASSES)]
        torch.save(dict(records=records, last_physical_to_logical_map=MAP), HERE / f"sglang_{name}.pt")
    logical_count = torch.zeros(len(PASSES) + 1, LAYERS, LOGICAL, dtype=torch.int32)
    for i, (mode, chunks) in enumerate(PASSES):
        count = record(i, mode, chunks, False)["global_physical_count"]
        logical_count[i].scatter_add_(1, MAP, count)
    stat = dict(rank=0, logical_count=logical_count, average_utilization_rate_over_window=None)
    torch.save(stat, HERE / "sglang_stat.pt")
    legacy = dict(logical_count=logical_count[0])
    torch.save(legacy, HERE / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(1, 1), HERE / "module.pt")
    # Another type and a transposed view.
    torch.save(torch.arange(8, dtype=torch.bfloat16).reshape(4, 2).t(), HERE / "eplb.pt")


def tensorrt_llm():
    folder = HERE / "tensorrt_llm"
    folder.mkdir(exist_ok=True)
    (folder / "meta_info.json").write_text(json.dumps(dict(num_experts=4, num_experts_per_token=2)))
    for rank in range(2):
        counts, raw = {}, {}
        for step in (5, 6):
            for layer in (3, 10):
                ids = torch.tensor([[(rank + step + t + layer + c) % 4 for c in range(2)] for t in range(3 - rank)])
                counts[f"{step}_{layer}"] = torch.bincount(ids.flatten(), minlength=4)
                raw[f"{step}_{layer}"] = ids.to(torch.int32)
        safetensors.torch.save_file(counts, folder / f"rank{rank}.safetensors")
        safetensors.torch.save_file(raw, folder / f"rank{rank}_raw.safetensors")


def imatrix():
    w = gguf.GGUFWriter(HERE / "imatrix.gguf", arch="", use_temp_file=False)
    w.add_type("imatrix")
    w.add_array("imatrix.datasets", ["calibration.txt"])
    w.add_uint32("imatrix.chunk_count", 2)
    w.add_uint32("imatrix.chunk_size", 512)
    for layer in (1, 2, 10):
        w.add_tensor(f"blk.{layer}.attn_q.weight.in_sum2", np.ones((1, 8), np.float32))
        w.add_tensor(f"blk.{layer}.attn_q.weight.counts", np.full((1, 1), 1024, np.float32))
        for part in ("gate", "up", "down"):
            counts = np.array([[layer * 100 + e] for e in range(4)], np.float32)
            w.add_tensor(f"blk.{layer}.ffn_{part}_exps.weight.in_sum2", np.ones((4, 2), np.float32))
            w.add_tensor(f"blk.{layer}.ffn_{part}_exps.weight.counts", counts)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def parquet():
    """A table of rows as any tool may write it, and router traces in FLAME-MoE's schema (list<int16>, list<float16>)."""
    folder = HERE / "parquet"
    (folder / "iter_0001").mkdir(parents=True, exist_ok=True)
    ident = lambda p, l, n: (p * 3 + l * 2 + n) % 8
    rows = [(s, int(p > 2), p, l) for s in (0, 5) for p in range(4) for l in (1, 2)]
    table = pa.table(
        dict(
            note=pa.array(["not read"] * len(rows)),
            layer=pa.array([r[3] for r in rows], pa.uint8()),
            e0=pa.array([ident(r[2], r[3], 0) for r in rows], pa.int64()),
            e1=pa.array([None if r[2] == 1 else ident(r[2], r[3], 1) for r in rows], pa.int16()),
            sequence=pa.array([r[0] for r in rows], pa.uint64()),
            phase=pa.array([r[1] for r in rows], pa.int8()),
            position=pa.array([r[2] for r in rows], pa.int32()),
        )
    )
    table = table.select(["layer", "e0", "e1", "sequence", "phase", "position", "note"])
    pq.write_table(table, folder / "long.parquet", compression="snappy", row_group_size=10)

    def layer(path, number, tokens, k=2, **options):
        ids = [[ident(t, number, n) for n in range(k)] for t in range(tokens)]
        scores = pa.array([[0.5] * k] * tokens, pa.list_(pa.float16()))
        table = pa.table(dict(scores=scores, indices=pa.array(ids, pa.list_(pa.int16()))))
        pq.write_table(table, folder / path, compression="zstd", **options)

    # One sequence of 2048 tokens and a rest; row groups and pages that do not end together.
    layer("iter_0001/layer_02.parquet", 2, 2050)
    layer("iter_0001/layer_03.parquet", 3, 2050, row_group_size=700, data_page_version="2.0")
    layer("short.parquet", 3, 2)
    layer("ragged.parquet", 3, 2050, k=1)


sglang()
tensorrt_llm()
imatrix()
parquet()
