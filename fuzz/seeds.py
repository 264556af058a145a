"""Writes seeds for the fuzz targets to fuzz/corpus: python3 fuzz/seeds.py target/debug/moesim

Takes the tests' files of other tools, the presets, and what the binary imports and exports.
"""

import gzip
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

FUZZ = pathlib.Path(__file__).resolve().parent
ROOT = FUZZ.parent
GOLDEN = ROOT / "traces" / "testdata"
MOESIM = str(pathlib.Path(sys.argv[1]).resolve())


def seed(target, name, data):
    folder = FUZZ / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def npy(descr, shape, body):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def npz(method, **members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, data in members.items():
            z.writestr(f"{name}.npy", data)
    return out.getvalue()


# Twelve tokens of two layers, two different experts of eight each.
rows = [[[(t + l) % 8, (t + l + 3) % 8] for l in range(2)] for t in range(12)]
flat = bytes(e for row in rows for layer in row for e in layer)
for descr, size in [("|u1", 1), ("<i2", 2), ("<i4", 4), ("<i8", 8)]:
    body = b"".join(e.to_bytes(size, "little") for e in flat)
    seed("npy", f"three{size}", npy(descr, (12, 2, 2), body))
    seed("npy", f"four{size}", npy(descr, (2, 6, 2, 2), body))
seed("npz", "stored", npz(zipfile.ZIP_STORED, expert_ids=npy("|u1", (12, 2, 2), flat)))
seed("npz", "deflated", npz(zipfile.ZIP_DEFLATED, expert_ids=npy("|u1", (12, 2, 2), flat), other=b"x"))
seed("npz_index", "two", '[{"seq": 0, "offset": 0, "n_tokens": 5, "first_pos": 7}, {"seq": 3, "offset": 5, "n_tokens": 7}]')
seed("wafer_json", "one", json.dumps([{"0": None, "1": [layer for layer, _ in rows[:4]], "2": [l for _, l in rows[:4]]}]))
steps = [{"0": [[1, 2]] * (3 if i == 0 else 1), "1": [[3, 4]] * (3 if i == 0 else 1)} for i in range(3)]
seed("wafer_json", "steps", json.dumps(steps))
line = {"seq": 4, "first_pos": 2, "prefill": rows[:3], "decode": rows[3:6]}
plain = {"experts": [[1, 2, 3, -1], [4, 5, 6, 7]], "n_layers": 2, "top_k": 2, "n_experts": 8, "phase": "prefill"}
seed("json_lines", "lines", json.dumps(line) + "\n" + json.dumps({**line, "seq": 9}) + "\n")
seed("json_lines", "flat", json.dumps(plain) + "\n")
table = "".join(
    f"{t // 6},{'prefill' if t % 6 < 2 else 'decode'},{t % 6},{l},{a},{b}\n"
    for t in range(12)
    for l, (a, b) in enumerate(rows[t])
)
table = "sequence,phase,position,layer,expert0,expert1\n" + table
seed("csv", "table", table)
seed("csv", "token", "sequence,token,layer,expert_0,expert_1,x\n0,5,3,1,-1,a\n0,6,3,,2,b\n")
usage = {"prompt_tokens": 3, "completion_tokens": 4}
seed("vllm", "lists", json.dumps({"object": "c", "choices": [{"routed_experts": rows[:6]}], "usage": usage}))
seed("vllm", "apart", json.dumps({"choices": [{"routed_experts": rows[3:5]}], "prompt_routed_experts": rows[:3]}) * 2)
packed = subprocess.run(["base64", "-w0"], input=npy("|u1", (12, 2, 2), flat), capture_output=True).stdout.decode()
seed("vllm", "packed", json.dumps({"choices": [{"routed_experts": packed}], "usage": usage}))
for path in GOLDEN.glob("*.pt"):
    data = path.read_bytes()
    seed("torch_archive", path.stem, data)
    if zipfile.is_zipfile(path):
        z = zipfile.ZipFile(path)
        name = next(n for n in z.namelist() if n.endswith("/data.pkl"))
        seed("torch_pickle", path.stem, z.read(name))
for path in (GOLDEN / "tensorrt_llm").glob("*.safetensors"):
    seed("safetensors", path.stem, path.read_bytes())
seed("imatrix", "golden", (GOLDEN / "imatrix.gguf").read_bytes())
loads = npy("<i8", (3, 4), b"".join(i.to_bytes(8, "little") for i in range(12)))
seed("eplb", "npy", b"\0" + loads)
seed("eplb", "npz", b"\1" + npz(zipfile.ZIP_DEFLATED, weight=loads))
seed("eplb", "json", b"\2" + json.dumps({"logical_count": [[1, 2, 3], [4, 5, 6]]}).encode())
seed("eplb", "lists", b"\2" + json.dumps([[[1.5, 2, 3], [4, 5, 6]]]).encode())
seed("eplb", "csv", b"\3" + b"1,2,3\n4,5.5,6\n")
own = {"format": "moesim-placement", "version": 1, "experts": 3, "devices": 2, "layer_numbers": [3, 5]}
slots = [[0, 1, 2, 0], [2, 1, 0, 1]]
own["layers"] = [[s[:2], s[2:]] for s in slots]
recorded = [{"layer_id": i, "device_count": 2, "device_list": [{"device_id": d, "device_expert": s[2 * d : 2 * d + 2]} for d in range(2)]} for i, s in enumerate(slots)]
slot_map = npy("<i8", (2, 4), b"".join(e.to_bytes(8, "little") for s in slots for e in s))
pattern = npy("|u1", (2, 2, 3), bytes(int(e in s[2 * d : 2 * d + 2]) for d in range(2) for s in slots for e in range(3)))
balancer = "initial_global_assignments:\n  3: &a [0, 1, 2, 0]\n  4: *a\n  5:\n  - 2\n  - 1\n  - 0\n  - 1\nlayer_updates_per_iter: 0\nnum_slots: 4\n"
for i, data in enumerate([
    json.dumps({**own, "model": "m", "result": {"gap": 0.5}}).encode(),
    json.dumps({"moe_layer_count": 2, "layer_list": recorded}).encode(),
    json.dumps({"physical_to_logical_map": slots}).encode(),
    (GOLDEN / "sglang_per_pass.pt").read_bytes(),
    balancer.encode(),
    pattern,
    npz(zipfile.ZIP_DEFLATED, pattern=pattern),
    slot_map,
    npz(zipfile.ZIP_STORED, phy2log=slot_map),
    json.dumps(slots).encode(),
    b"0,1,2,0\n2,1,0,1\n",
    json.dumps(slots).encode(),
]):
    # One device, and two.
    seed("placement", f"{i}", bytes([i]) + data)
    seed("placement", f"{i}-2", bytes([i + 12]) + data)
layer = {"heat": [5, 4, 3, 0], "pairs": [[0, 1, 3, 0.5], [1, 2, 2]]}
mbolt = {"model": "m", "n_expert_per_layer": 4, "k": 2, "layers": [{"layer": 0, **layer}, {"abs_layer": 3, **layer}]}
seed("coactivation", "plain", json.dumps(mbolt))
seed("coactivation", "packed", gzip.compress(json.dumps(mbolt).encode(), mtime=0))
seed("sglang_table", "rows", "\n0,0,5\n0,1,7\n3,1,9\n")
for path in (ROOT / "traces" / "presets").glob("*.toml"):
    seed("model", path.stem, path.read_bytes())
seed("model", "based", 'base = "mixtral-8x7b"\nname = "x"\n[decoder.moe]\nzero_experts = 1\ncapacity_factor = 1.25\n')
for path in (ROOT / "hwmodels" / "presets").glob("*.toml"):
    seed("hardware", path.stem, path.read_bytes())
config = {
    "model_type": "mixtral", "hidden_size": 64, "vocab_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 128, "num_local_experts": 4, "num_experts_per_tok": 2,
}
mla = {
    "model_type": "deepseek_v3", "hidden_size": 64, "vocab_size": 100, "num_hidden_layers": 3, "num_attention_heads": 4,
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "intermediate_size": 128, "moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "num_nextn_predict_layers": 1,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}
window = {**config, "model_type": "gpt_oss", "head_dim": 16, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
for name, c in [("mixtral", config), ("mla", mla), ("window", window), ("wrapped", {"text_config": config})]:
    seed("hf_config", name, json.dumps(c))
seed("arrivals", "plain", "arrived_at_s,prompt_tokens,output_tokens\n0,10,3\n0.25,7,1\n1e1,3,3\n")
seed("arrivals", "azure", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50,396,109\n")
chat = ",ChatGPT,1087,230,1317,Conversation log\n"
columns = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
seed("burstgpt", "rows", f"{columns}5{chat}45{chat}118,GPT-4,417,276,693,API log\n200.5,GPT-4,1,0,1,API log\n")
lines = "".join(
    json.dumps({"timestamp": 3000 * (i // 2), "input_length": 700 * i + 5, "output_length": 7, "hash_ids": list(range(n))}) + "\n"
    for i, n in enumerate([1, 2, 3, 5])
)
seed("mooncake", "lines", lines)
seed("mooncake", "packed", gzip.compress(lines.encode(), mtime=0))
windows = "0,0.5,2,Weibull,0.55,1.1\n600,0,0,,0,0\n1200,0.25,0.5,Gamma,4,0.99\n"
drawn = {"input_tokens": "{10: 0.5, 20: 0.5}", "output_tokens": "{0: 0.25, 7: 0.75}", "reason_ratio": "{0.0: 1}"}
lengths = json.dumps({"0": drawn, "1200": {"input_tokens": "{}", "output_tokens": "{}"}})
seed("servegen", "client", f"{windows}\0{lengths}")
archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
    for name, text in [("d/chunk-1-trace.csv", windows), ("d/chunk-1-dataset.json", lengths)]:
        member = tarfile.TarInfo(name)
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
seed("servegen_tar", "archive", archive.getvalue())
seed("parquet", "golden", (GOLDEN / "parquet" / "long.parquet").read_bytes())
for name in ["ragged.parquet", "short.parquet", "iter_0001/layer_02.parquet"]:
    seed("flame", pathlib.Path(name).stem, (GOLDEN / "parquet" / name).read_bytes())
seed("experiment", "quickstart", (ROOT / "sim" / "presets" / "quickstart.toml").read_bytes())
seed("sweep", "machines", (ROOT / "sim" / "presets" / "machines.toml").read_bytes())
points = """model,system,backend,version,precision,gpus,tp,dp,moe_tp,moe_ep,batched_tokens,isl,osl,conc,date,mean_ttft_ms,mean_tpot_ms,role
gpt-oss-120b,h100_sxm,vllm,0.18.0,fp4,2,2,1,2,1,"32768 (2026-04), default before",64,16,4,2026-03-01,25.0,5.0,figure
DeepSeek-R1,b200_sxm,sglang,0.5.9,fp8,8,8,1,1,8,32768 (chunked prefill),64,16,2,2026-03-01,20.0,4.0,calibration
"""
seed("points", "two", points.encode())
with tempfile.TemporaryDirectory() as tmp:
    source, out = pathlib.Path(tmp, "t.csv"), pathlib.Path(tmp, "t.arrow")
    source.write_text(table)
    run = [MOESIM, "trace", "import", str(source), "--experts", "8", "--out", str(out)]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    seed("container", "table", out.read_bytes())
    for form in ["json-lines", "csv", "wafer-json"]:
        exported = pathlib.Path(tmp, form)
        run = [MOESIM, "trace", "export", str(out), "--format", form, "--out", str(exported)]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        files = [exported] if exported.is_file() else sorted(exported.iterdir())
        seed(form.replace("-", "_"), "exported", files[0].read_bytes())
