"""Records which experts a mixture-of-experts language model selects, as a trace that moesim replays.

    python notebooks/record_routing.py --model allenai/OLMoE-1B-7B-0924 --prompts prompts.jsonl --out olmoe.arrow

The model generates after each prompt. A row of the trace is one token: the ids of the k experts of every MoE layer, in gate
order. The last generated token is never fed back, so a sequence has prompt + output - 1 rows. Padding is not recorded.
Ids and weights are those that a layer's experts are called with; README.md says where Llama 4 differs.
"""

import argparse
import json
import os
import sys
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, __version__

BATCH_SELECTIONS = 4 << 20  # a record batch is written as soon as it holds so many; sequences are not divided


class Refused(Exception):
    """Wrong input, or a model that cannot be recorded: one message with its cure."""


class Recorder:
    """Hooks on the MoE layers of a model; while it is entered, `forwards` gains one item a forward pass.

    An item is (ids int32, weights float32), both [tokens, MoE layers, k], the tokens one sequence of the batch after another.
    `layers` are the MoE layers' numbers, `experts` the routed experts of each. Raises `Refused` where it cannot tell them.
    """

    def __init__(self, model):
        self.model, self.forwards, self.seen, self.modules, counts = model, [], {}, {}, set()
        named = dict(model.get_decoder().named_modules())
        # LongCat's ids run over `total_experts`, those without weights included.
        counted = {n: getattr(m, "total_experts", None) or getattr(m, "num_experts", None) for n, m in named.items()}
        blocks = {n.rpartition(".")[0]: n for n in named if n.endswith(".experts") and counted[n]}
        blocks |= {n.rpartition(".")[0]: n for n, m in named.items() if type(m).__name__ == "Llama4Router"}
        for name in blocks.values():
            number = next((int(part) for part in name.split(".") if part.isdigit()), None)
            if number is None or number in self.modules:
                raise Refused(f"{name} is not the only MoE block of a numbered layer; give a model of another family")
            self.modules[number] = named[name]
            counts.add(counted[name])
        if len(counts) != 1:
            raise Refused(f"{type(model).__name__} has {'unlike' if counts else 'no known'} MoE layers; give a model with as "
                          "many experts in every MoE layer, and use transformers 5 or later")
        self.layers, self.experts = sorted(self.modules), counts.pop()

    def __enter__(self):
        self.handles = [self.model.register_forward_pre_hook(lambda *_: self.seen.clear()),
                        self.model.register_forward_hook(lambda *_: self._collect())]
        for layer, module in self.modules.items():
            if type(module).__name__ == "Llama4Router":
                self.handles.append(module.register_forward_hook(partial(self._llama4, layer)))
            else:
                self.handles.append(module.register_forward_pre_hook(partial(self._called, layer), with_kwargs=True))
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def _llama4(self, layer, router, _, output):
        scores, logits = output  # scores of all experts, 0 for those not selected
        ids = torch.topk(logits, router.top_k, dim=1).indices
        if scores.scatter(1, ids, 0).any():
            raise Refused(f"layer {layer}: scores outside of the top-k; use the transformers version in README.md")
        self._see(layer, ids, scores.gather(1, ids))

    def _called(self, layer, _, args, kwargs):
        tensors = [t for t in (*args, *kwargs.values()) if torch.is_tensor(t)]
        ids = [t for t in tensors if t.dim() == 2 and not t.is_floating_point()]
        weights = [t for t in tensors if ids and t.shape == ids[0].shape and t.is_floating_point()]
        if len(ids) != 1 or len(weights) != 1:
            raise Refused(f"layer {layer}: experts are not called with ids and weights; give a model of another family")
        self._see(layer, ids[0], weights[0])

    def _see(self, layer, ids, weights):
        if layer in self.seen:
            raise Refused(f"layer {layer}: experts are called twice in one pass; give a model of another family")
        # Copies: nothing that happens later in the pass may change them.
        self.seen[layer] = ids.detach().to(torch.int32, copy=True), weights.detach().to(torch.float32, copy=True)

    def _collect(self):
        if len({ids.shape for ids, _ in self.seen.values()}) != 1 or len(self.seen) != len(self.layers):
            raise Refused(f"{len(self.seen)} of {len(self.layers)} MoE layers were seen, or their k differs; load the model "
                          "without fused MoE kernels, or give one of another family")
        parts = zip(*(self.seen[layer] for layer in self.layers))
        self.forwards.append([torch.stack([t.cpu() for t in part], dim=1).numpy() for part in parts])


def gumbel(temperature, seed, sequences):
    """Makes the largest logit a draw from softmax(logits / temperature), by noise of (seed, sequence, step) alone."""
    streams = [np.random.default_rng([seed, sequence]) for sequence in sequences]
    draw = lambda n: torch.from_numpy(np.stack([stream.gumbel(size=n) for stream in streams]))
    return lambda _, scores: scores.float() / temperature + draw(scores.shape[1]).to(scores.device, torch.float32)


def record(model, prompts, output_tokens, batch=1, temperature=0.0, seed=1, eos=()):
    """Generates after prompts (lists of token ids), `batch` at a time. Yields (ids, weights, output tokens) of each.

    ids: uint16 [prompt + output - 1, MoE layers, k]; weights: float32 of that shape. Temperature 0 takes the likeliest token;
    one of `eos` ends the output. The model's generation defaults (beams, penalties, assistants) are removed from it.
    """
    model.generation_config = GenerationConfig()  # it would join in wherever ours is silent
    config = GenerationConfig(max_new_tokens=output_tokens, eos_token_id=list(eos) or None, pad_token_id=0)
    prompts, first = iter(prompts), 0
    with Recorder(model) as recorder:
        while group := list(islice(prompts, batch)):
            width, n = max(map(len, group)), len(group)
            tokens = torch.tensor([[0] * (width - len(p)) + p for p in group], device=model.device)
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in group], device=model.device)
            noise = [gumbel(temperature, seed, range(first, first + n))] if temperature > 0 else []
            recorder.forwards.clear()
            made = model.generate(tokens, attention_mask=mask, generation_config=config, logits_processor=noise)
            made = made[:, width:].tolist()
            if [len(ids) for ids, _ in recorder.forwards] != [n * width] + [n] * (len(made[0]) - 1):
                raise Refused("the model does not compute one token a step; give a model of another family")
            for i, (prompt, output) in enumerate(zip(group, made)):
                output = output[: next((j + 1 for j, t in enumerate(output) if t in eos), len(output))]
                rows = [slice((i + 1) * width - len(prompt), (i + 1) * width)] + [slice(i, i + 1)] * (len(output) - 1)
                ids, weights = (np.concatenate([f[part][r] for f, r in zip(recorder.forwards, rows)]) for part in (0, 1))
                if ids.min() < 0 or ids.max() >= recorder.experts or not np.isfinite(weights).all():
                    raise Refused(f"sequence {first + i}: an expert id is not below {recorder.experts}, or a gate weight is "
                                  "not finite; use --dtype float32, or a model of another family")
                yield ids.astype(np.uint16), weights, output
            first += n


class TraceWriter:
    """Writes moesim's container, under a temporary name until it is left without an exception. Holds one record batch.
    `meta` has model, layers (comma separated), experts, source and licence; k comes from the first sequence."""

    def __init__(self, path, meta, gate_weights=False):
        self.path, self.meta, self.gate_weights, self.rows, self.sequences, self.held = path, meta, gate_weights, 0, 0, []
        self.partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def __enter__(self):
        if self.path.is_dir():
            raise Refused(f"{self.path}: is a folder, not a file; choose another --out")
        self.file = pa.OSFile(str(self.partial), "wb")
        return self

    def push(self, ids, weights, prompt_rows):
        """Appends a sequence: ids and weights [rows, MoE layers, k], the first `prompt_rows` of them prefill."""
        if not self.sequences:
            lists = {"experts": pa.uint16()} | ({"weights": pa.float32()} if self.gate_weights else {})
            kinds = {"sequence": pa.uint32(), "phase": pa.uint8(), "position": pa.uint32()}
            kinds |= {name: pa.list_(pa.field("item", kind, nullable=False), ids[0].size) for name, kind in lists.items()}
            meta = {f"moesim.{key}": str(value) for key, value in {"format": 1, "k": ids.shape[2], **self.meta}.items()}
            self.schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()], metadata=meta)
            self.writer = pa.ipc.new_file(self.file, self.schema)
        position = np.arange(len(ids), dtype=np.uint32)
        columns = [np.full_like(position, self.sequences), (position >= prompt_rows).astype(np.uint8), position, ids.ravel()]
        self.held.append(columns + ([weights.ravel()] if self.gate_weights else []))
        self.rows, self.sequences = self.rows + len(ids), self.sequences + 1
        if sum(c[3].size for c in self.held) >= BATCH_SELECTIONS:
            self._flush()

    def _flush(self):
        arrays = [pa.array(np.concatenate(parts)) for parts in zip(*self.held)]
        lists = [pa.FixedSizeListArray.from_arrays(a, type=self.schema.field(i + 3).type) for i, a in enumerate(arrays[3:])]
        if arrays:
            self.writer.write_batch(pa.record_batch(arrays[:3] + lists, schema=self.schema))
        self.held = []

    def __exit__(self, error, *_):
        try:
            if error is None:
                self._flush()
                self.writer.close()
                self.file.close()
                os.replace(self.partial, self.path)
        finally:
            self.partial.unlink(missing_ok=True)
            self.file.close()


def load(name, make):
    """What `make` makes; `name` is named if it fails."""
    try:
        return make()
    except Exception as e:  # the library raises what its parts raise
        raise Refused(f"{name}: cannot be loaded: {(str(e).strip() or type(e).__name__).splitlines()[0]}; give a folder or "
                      "hub name of a causal language model that transformers itself supports, and a device it fits") from e


def make_model(args):
    """The model, ready to run. Code that comes with a model is never run."""
    if args.random_weights:
        torch.manual_seed(args.seed)
        config = AutoConfig.from_pretrained(args.model, trust_remote_code=False)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    else:
        place = "auto" if args.device == "auto" else None
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=args.dtype, device_map=place, trust_remote_code=False)
    return (model if args.device == "auto" else model.to(args.device)).eval()


def file_prompts(args):
    """(Token ids, where) of every prompt: a line of text, or a line of JSON with `prompt` or `tokens` (`.jsonl`)."""
    tokenizer, is_json = None, args.prompts.suffix == ".jsonl"
    with open(args.prompts, "rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(1 << 24), b""), 1):
            where = f"{args.prompts}:{number}"
            try:
                if len(line) == 1 << 24:
                    raise ValueError("16 MiB are too long")
                text = line.decode("utf-8").strip()
                entry = json.loads(text) if is_json and text else {"prompt": text}
            except (ValueError, RecursionError) as e:
                raise Refused(f"{where}: cannot be read: {e}; correct the line") from e
            ids, prompt = (entry.get("tokens"), entry.get("prompt")) if isinstance(entry, dict) else (None, None)
            if text and isinstance(prompt, str) and ids is None:
                make = partial(AutoTokenizer.from_pretrained, args.model, trust_remote_code=False)
                tokenizer = tokenizer or load(args.model, make)
                ids = tokenizer(prompt)["input_ids"]
            if text:  # empty lines are none
                yield ids, where


def checked_prompts(args, model):
    """Token ids of the prompts, cut to the longest allowed; refuses what the model cannot run."""
    vocabulary = model.get_input_embeddings().num_embeddings
    room = (getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize) - args.output_tokens
    rng = np.random.default_rng(args.seed)
    drawn = ((rng.integers(vocabulary, size=args.random_tokens).tolist(), f"prompt {i}") for i in range(args.count))
    for ids, where in file_prompts(args) if args.prompts else drawn:
        ids = ids[: args.max_prompt_tokens] if isinstance(ids, list) else []
        if not 0 < len(ids) <= room or not all(type(t) is int and 0 <= t < vocabulary for t in ids):
            raise Refused(f"{where}: is not 1 to {room} tokens, numbers below {vocabulary}; give text, `prompt` or `tokens` "
                          "that are not empty, and --max-prompt-tokens or fewer --output-tokens if they are long")
        yield ids


def run(args):
    if not 0 <= args.temperature < float("inf") or not 0 <= args.seed < 2**63:
        raise Refused("--temperature or --seed is out of range; give numbers of at least 0")
    model = load(args.model, lambda: make_model(args))
    recorder = Recorder(model)
    if not sum(1 for _ in checked_prompts(args, model)):  # what is wrong shows before anything is generated
        raise Refused("there are no prompts; give at least one")
    name = args.name or Path(args.model).resolve().name.lower()
    source = f"{name}, {'random weights, ' * args.random_weights}{args.prompts.name if args.prompts else 'random tokens'}, " \
             f"temperature {args.temperature}, seed {args.seed}, {model.dtype}, transformers {__version__}"
    layers = ",".join(map(str, recorder.layers))
    meta = dict(model=name, layers=layers, experts=recorder.experts, source=source, licence=args.licence)
    eos = model.generation_config.eos_token_id
    eos = [] if args.ignore_eos or eos is None else np.ravel(eos).tolist()
    with TraceWriter(args.out, meta, args.gate_weights) as writer:
        prompts = checked_prompts(args, model)
        for ids, weights, output in record(model, prompts, args.output_tokens, args.batch, args.temperature, args.seed, eos):
            writer.push(ids, weights, len(ids) + 1 - len(output))
    print(f"{args.out}: {writer.sequences} sequences, {writer.rows} rows, MoE layers {layers}, top-{ids.shape[2]}")


def positive(text):
    if int(text) < 1:
        raise ValueError
    return int(text)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="folder or hub name")
    add("--out", required=True, type=Path, help="the trace to write")
    prompts = parser.add_mutually_exclusive_group(required=True).add_argument
    prompts("--prompts", type=Path, help="text, one prompt a line; or .jsonl with `prompt` or `tokens`")
    prompts("--random-tokens", type=positive, metavar="N", help="prompts of N uniformly drawn tokens")
    add("--count", type=positive, default=8, help="how many random prompts [8]")
    add("--max-prompt-tokens", type=positive, metavar="N", help="keep the first N tokens of a prompt")
    add("--output-tokens", type=positive, default=128, metavar="N", help="tokens to generate at most [128]")
    add("--ignore-eos", action="store_true", help="generate all of them")
    add("--temperature", type=float, default=0.0, help="0 takes the likeliest token [0]")
    add("--seed", type=int, default=1, help="of sampling, random prompts and random weights [1]")
    add("--batch", type=positive, default=1, help="prompts at a time [1]")
    add("--gate-weights", action="store_true", help="record the weights of the experts too")
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    add("--device", default="cpu", help="cpu, cuda, or auto to spread over devices (needs accelerate) [cpu]")
    add("--random-weights", action="store_true", help="take the configuration alone, in its dtype")
    add("--name", help="the model's name in the trace [the last part of --model]")
    add("--licence", default="unknown", help="of the data, for the record")
    args = parser.parse_args(argv)
    try:
        run(args)
    except (Refused, OSError, MemoryError, RuntimeError) as e:  # torch says with the last that it lacks memory
        cure = "check paths, permissions and free space" if isinstance(e, OSError) else "try a smaller --batch, or another --dtype"
        parser.exit(2, f"error: {e}\n" if isinstance(e, Refused) else f"error: {e}; {cure}\n")


if __name__ == "__main__":
    main()
