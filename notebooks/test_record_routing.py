"""Tests of record_routing.py on small randomly initialised models of eight families, on the CPU.

    MOESIM=target/release/moesim python notebooks/test_record_routing.py

Without the binary (default: target/release or target/debug) what needs it is skipped, and said so.
"""

import contextlib
import csv
import functools
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pyarrow as pa
import tokenizers
import torch
import transformers as tf

import record_routing
from record_routing import Recorder, Refused, TraceWriter, gumbel, record

HERE = Path(__file__).resolve().parent
BINARIES = [os.environ.get("MOESIM", ""), *(HERE.parent / "target" / kind / "moesim" for kind in ("release", "debug"))]
MOESIM = next((str(Path(b).resolve()) for b in BINARIES if b and Path(b).is_file()), None)

SMALL = dict(vocab_size=256, hidden_size=64, num_attention_heads=4, num_hidden_layers=3, max_position_embeddings=128)
GQA = dict(SMALL, num_key_value_heads=2)
MLA = dict(q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, rope_theta=10000.0)
# Family: configuration, the numbers of its MoE layers, experts, k.
FAMILIES = {
    "mixtral": (tf.MixtralConfig(**GQA, intermediate_size=48, num_local_experts=8, num_experts_per_tok=2), [0, 1, 2], 8, 2),
    "qwen2_moe": (tf.Qwen2MoeConfig(**GQA, intermediate_size=64, moe_intermediate_size=32, num_experts=8,
                                    shared_expert_intermediate_size=32, num_experts_per_tok=2), [0, 1, 2], 8, 2),
    "qwen3_moe": (tf.Qwen3MoeConfig(**GQA, head_dim=16, intermediate_size=64, moe_intermediate_size=32, num_experts=12,
                                    num_experts_per_tok=3, norm_topk_prob=True, mlp_only_layers=[1]), [0, 2], 12, 3),
    "olmoe": (tf.OlmoeConfig(**GQA, intermediate_size=32, num_experts=16, num_experts_per_tok=4), [0, 1, 2], 16, 4),
    "gpt_oss": (tf.GptOssConfig(**GQA, head_dim=16, intermediate_size=32, num_local_experts=8, num_experts_per_tok=4,
                                sliding_window=8, rope_parameters=YARN), [0, 1, 2], 8, 4),
    "deepseek_v3": (tf.DeepseekV3Config(**SMALL, **MLA, num_key_value_heads=4, intermediate_size=64, n_group=4, topk_group=2,
                                        moe_intermediate_size=32, n_routed_experts=16, num_experts_per_tok=4,
                                        n_shared_experts=1, first_k_dense_replace=1), [1, 2], 16, 4),
    "llama4_text": (tf.Llama4TextConfig(**GQA, head_dim=16, intermediate_size=32, intermediate_size_mlp=64, num_local_experts=8,
                                        num_experts_per_tok=2, interleave_moe_layer_step=1), [0, 1, 2], 8, 2),
    "phimoe": (tf.PhimoeConfig(**GQA, intermediate_size=32, num_local_experts=8, num_experts_per_tok=2), [0, 1, 2], 8, 2),
}
NO_OWN_RULE = {"phimoe"}  # its sparse mixer is not recomputed here


def make(family):
    """A small model with random weights; what is initialised to 0 but decides selections is made random too."""
    torch.manual_seed(7)
    model = tf.AutoModelForCausalLM.from_config(FAMILIES[family][0], dtype=torch.float32).eval()
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("e_score_correction_bias") or name.endswith("router.bias"):
                tensor.normal_(std=0.1)
            elif "gate.weight" in name or "router.weight" in name:
                tensor.normal_(std=0.2)
    model.generation_config.eos_token_id = None
    return model


MODELS = {}


def model_of(family):
    if family not in MODELS:
        MODELS[family] = make(family)
    return MODELS[family]


def prompts(*lengths):
    rng = np.random.default_rng(3)
    return [rng.integers(256, size=n).tolist() for n in lengths]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected(family, logits, bias):
    """Ids and weights [tokens, k] by the family's rule, in numpy and in double precision, from the logits [tokens, experts]."""
    config, _, experts, k = FAMILIES[family]
    logits = logits.astype(np.float64)
    top = lambda scores: np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    if family == "gpt_oss":
        ids = top(logits)
        return ids, softmax(np.take_along_axis(logits, ids, -1))
    if family == "llama4_text":
        ids = top(logits)
        return ids, 1 / (1 + np.exp(-np.take_along_axis(logits, ids, -1)))
    if family == "deepseek_v3":
        scores = 1 / (1 + np.exp(-logits))
        biased = (scores + bias).reshape(len(logits), config.n_group, -1)
        groups = np.sort(biased, -1)[:, :, -2:].sum(-1)
        kept = np.argsort(-groups, axis=-1)[:, : config.topk_group]
        allowed = np.full(groups.shape, -np.inf)
        np.put_along_axis(allowed, kept, 0.0, -1)
        ids = top((biased + allowed[:, :, None]).reshape(len(logits), experts))
        weights = np.take_along_axis(scores, ids, -1)
        return ids, weights / weights.sum(-1, keepdims=True) * config.routed_scaling_factor
    probabilities = softmax(logits)
    ids = top(probabilities)
    weights = np.take_along_axis(probabilities, ids, -1)
    normalised = family == "mixtral" or config.norm_topk_prob
    return ids, weights / weights.sum(-1, keepdims=True) if normalised else weights


def in_id_order(ids, weights):
    order = np.argsort(ids, axis=-1)
    return np.take_along_axis(ids, order, -1), np.take_along_axis(weights, order, -1)


def every_family(test):
    @functools.wraps(test)
    def run(self):
        for family in FAMILIES:
            with self.subTest(family):
                test(self, family, model_of(family))

    return run


class Families(unittest.TestCase):
    @every_family
    def test_layers_experts_and_k(self, family, model):
        recorder = Recorder(model)
        self.assertEqual((recorder.layers, recorder.experts), FAMILIES[family][1:3])
        [(ids, weights, output)] = record(model, prompts(9), 5)
        self.assertEqual(ids.shape, (9 + 5 - 1, len(recorder.layers), FAMILIES[family][3]))
        self.assertEqual((weights.shape, ids.dtype, weights.dtype, len(output)), (ids.shape, np.uint16, np.float32, 5))
        self.assertGreater(len(set(map(tuple, np.sort(ids, -1).reshape(-1, ids.shape[2])))), 3, "always the same experts")
        self.assertTrue((np.diff(np.sort(ids, -1).astype(int), axis=-1) > 0).all(), "an expert twice")

    @every_family
    def test_a_cache_and_none_select_the_same_by_the_rule_of_the_family(self, family, model):
        """One pass without cache over prompt and output; its `output_router_logits`, selected from in numpy."""
        [prompt] = prompts(17)
        [(ids, weights, output)] = record(model, [prompt], 12)
        tokens = torch.tensor([prompt + output[:-1]])
        with torch.no_grad(), Recorder(model) as recorder:
            out = model.model(tokens, use_cache=False, output_router_logits=True)
            # The hooks end with the model's own pass; this was the inner model's.
            recorder._collect()
        again, weights_again = recorder.forwards[0]
        np.testing.assert_array_equal(ids, again)
        np.testing.assert_allclose(weights, weights_again, atol=2e-5)
        if family in NO_OWN_RULE:
            return
        self.assertEqual(len(out.router_logits), ids.shape[1])
        biases = [b.numpy() for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")] or [0] * ids.shape[1]
        for layer, (logits, bias) in enumerate(zip(out.router_logits, biases)):
            self.assertEqual(logits.shape, (len(ids), FAMILIES[family][2]))
            by_rule = expected(family, logits.numpy(), bias)
            if family != "deepseek_v3":  # whose gate takes an unsorted top-k
                np.testing.assert_array_equal(by_rule[0], ids[:, layer])
            for mine, theirs in zip(in_id_order(*by_rule), in_id_order(ids[:, layer], weights[:, layer])):
                np.testing.assert_allclose(mine, theirs, atol=2e-5)

    @every_family
    def test_a_batch_selects_as_single_prompts(self, family, model):
        texts = prompts(5, 23, 1, 14, 9)
        one_by_one, batched = list(record(model, texts, 8)), list(record(model, texts, 8, batch=3))
        self.assertEqual(len(batched), 5)
        for prompt, (ids, weights, output), (ids_b, weights_b, output_b) in zip(texts, one_by_one, batched):
            self.assertEqual((len(ids), output), (len(prompt) + 7, output_b))
            np.testing.assert_array_equal(np.sort(ids, -1), np.sort(ids_b, -1))
            np.testing.assert_allclose(in_id_order(ids, weights)[1], in_id_order(ids_b, weights_b)[1], atol=2e-5)

    @every_family
    def test_the_end_of_a_sequence_ends_its_rows(self, family, model):
        texts = prompts(6, 11)
        whole = list(record(model, texts, 10))
        eos = [whole[0][2][3]]
        short = list(record(model, texts, 10, batch=2, eos=eos))
        for prompt, (ids, _, output), (ids_s, _, output_s) in zip(texts, whole, short):
            n = output.index(eos[0]) + 1 if eos[0] in output else 10
            self.assertEqual((output_s, len(ids_s)), (output[:n], len(prompt) + n - 1))
            np.testing.assert_array_equal(np.sort(ids[: len(ids_s)], -1), np.sort(ids_s, -1))


class Sampling(unittest.TestCase):
    def test_batches_and_seeds(self):
        draw = lambda **options: [output for _, _, output in record(model_of("olmoe"), prompts(7, 12, 3), 9, **options)]
        self.assertEqual(draw(temperature=1.0, seed=5), draw(temperature=1.0, seed=5, batch=3))
        self.assertNotEqual(draw(temperature=1.0, seed=5), draw(temperature=1.0, seed=6))
        self.assertEqual(draw(temperature=1e-6, seed=5), draw())

    def test_noise_draws_from_the_softmax(self):
        logits, n = torch.tensor([[0.0, 1.0, 2.0, -1.0]]), 20_000
        process = gumbel(0.7, 11, [0])
        counts = np.bincount([int(process(None, logits).argmax()) for _ in range(n)], minlength=4)
        p = softmax(logits.numpy()[0].astype(np.float64) / 0.7)
        # Chi square of 3 degrees of freedom: above 16.27 once in a thousand seeds.
        self.assertLess(((counts - n * p) ** 2 / (n * p)).sum(), 16.27)


class Container(unittest.TestCase):
    def test_rows_types_and_batches(self):
        model = model_of("qwen3_moe")
        texts = prompts(9, 4, 13, 2, 6)
        recorded = list(record(model, texts, 5))
        limit, record_routing.BATCH_SELECTIONS = record_routing.BATCH_SELECTIONS, 100
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "t.arrow"
                with TraceWriter(path, dict(model="m", layers="0,2", experts=12, source="s", licence="l"), True) as writer:
                    for prompt, (ids, weights, _) in zip(texts, recorded):
                        writer.push(ids, weights, len(prompt))
                self.assertEqual(os.listdir(folder), ["t.arrow"])
                with pa.OSFile(str(path)) as file:
                    reader = pa.ipc.open_file(file)
                    batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        finally:
            record_routing.BATCH_SELECTIONS = limit
        sequences = [set(b["sequence"].to_pylist()) for b in batches]
        self.assertGreater(len(batches), 2)
        self.assertEqual(sum(map(len, sequences)), 5, "a sequence straddles two record batches")
        schema = batches[0].schema
        self.assertFalse(any(f.nullable for f in schema) or any(schema.field(i).type.value_field.nullable for i in (3, 4)))
        table = pa.Table.from_batches(batches)
        self.assertEqual(table["phase"].to_pylist(), sum(([0] * len(p) + [1] * 4 for p in texts), []))
        self.assertEqual(table["position"].to_pylist(), sum((list(range(len(p) + 4)) for p in texts), []))
        self.assertEqual(table["experts"].to_pylist(), [r.ravel().tolist() for ids, _, _ in recorded for r in ids])
        self.assertEqual(table["weights"].to_pylist(), [r.ravel().tolist() for _, weights, _ in recorded for r in weights])
        self.assertEqual({k.decode(): v.decode() for k, v in schema.metadata.items()},
                         {"moesim.format": "1", "moesim.model": "m", "moesim.layers": "0,2", "moesim.experts": "12",
                          "moesim.k": "3", "moesim.source": "s", "moesim.licence": "l"})


class CommandLine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.tmp.name)
        for family in FAMILIES:
            model_of(family).save_pretrained(cls.folder / family)
        dense = tf.LlamaConfig(**GQA, intermediate_size=32)
        tf.AutoModelForCausalLM.from_config(dense).save_pretrained(cls.folder / "dense")

    @classmethod
    def tearDownClass(cls):
        cls.tmp.cleanup()

    def call(self, *arguments):
        """Exit status, standard output, standard error of the command line, in this process."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            with contextlib.chdir(self.folder):
                try:
                    record_routing.main(list(map(str, arguments)))
                    status = 0
                except SystemExit as e:
                    status = e.code
        return status, out.getvalue(), err.getvalue()

    def moesim(self, *arguments):
        done = subprocess.run([MOESIM, *map(str, arguments)], capture_output=True, text=True, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_what_is_wrong_is_said(self):
        lines = {"empty.txt": "\n\n", "not.jsonl": "{", "keys.jsonl": '{"text": 1}', "void.jsonl": '{"tokens": []}',
                 "large.jsonl": '{"tokens": [1]}\n{"tokens": [256]}', "long.jsonl": json.dumps({"tokens": [1] * 120}),
                 "fine.jsonl": '{"tokens": [1, 2, 3]}'}
        for name, text in lines.items():
            (self.folder / name).write_text(text)
        (self.folder / "bytes.txt").write_bytes(b"\xff\xfe")
        (self.folder / "is-a-folder").mkdir()
        (self.folder / "remote").mkdir()
        (self.folder / "remote" / "config.json").write_text('{"model_type": "of-its-own", "auto_map": {"AutoConfig": "x.Y"}}')
        cases = [("dense", "fine.jsonl", "MoE layers"), ("none", "fine.jsonl", "cannot be loaded"),
                 ("remote", "fine.jsonl", "cannot be loaded"), ("mixtral", "empty.txt", "no prompts"),
                 ("mixtral", "not.jsonl", "not.jsonl:1: cannot be read"), ("mixtral", "keys.jsonl", "keys.jsonl:1: is not"),
                 ("mixtral", "void.jsonl", "void.jsonl:1: is not"), ("mixtral", "large.jsonl", "large.jsonl:2: is not"),
                 ("mixtral", "long.jsonl", "--max-prompt-tokens"), ("mixtral", "bytes.txt", "bytes.txt:1: cannot be read"),
                 ("mixtral", "missing.txt", "missing.txt")]
        runs = [(message, ("--model", model, "--prompts", file, "--out", "x.arrow")) for model, file, message in cases]
        fine = ("--model", "mixtral", "--prompts", "fine.jsonl")
        runs += [("is a folder", (*fine, "--out", "is-a-folder")), ("permissions", (*fine, "--out", "nowhere/x.arrow")),
                 ("--temperature", (*fine, "--temperature", "nan", "--out", "x.arrow")),
                 ("--batch", (*fine, "--batch", "0", "--out", "x.arrow")),
                 ("not allowed with", (*fine, "--random-tokens", "3", "--out", "x.arrow")),
                 ("a device it fits", (*fine, "--device", "none", "--out", "x.arrow"))]
        for message, arguments in runs:
            with self.subTest(message, arguments=arguments):
                status, out, err = self.call(*arguments, "--output-tokens", "10")
                self.assertEqual((status, out), (2, ""), err)
                self.assertIn(message, err.splitlines()[-1])
        self.assertFalse([f for f in os.listdir(self.folder) if "x.arrow" in f], "something was left behind")

    def test_a_full_disk_leaves_nothing(self):
        command = [sys.executable, str(HERE / "record_routing.py"), "--model", "mixtral", "--random-tokens", "50",
                   "--output-tokens", "9", "--out", "full.arrow"]
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, preexec_fn=limit)
        self.assertEqual((done.returncode, "free space" in done.stderr.splitlines()[-1]), (2, True), done.stderr)
        self.assertFalse([f for f in os.listdir(self.folder) if "full.arrow" in f])

    def test_prompts_are_cut_and_the_configuration_is_enough(self):
        (self.folder / "two.jsonl").write_text('{"tokens": [5, 6, 7, 8]}\n\n{"tokens": [9]}\n')
        status, out, err = self.call("--model", "gpt_oss", "--random-weights", "--prompts", "two.jsonl", "--max-prompt-tokens", 2,
                                     "--output-tokens", 3, "--ignore-eos", "--out", "two.arrow")
        self.assertEqual((status, out), (0, "two.arrow: 2 sequences, 7 rows, MoE layers 0,1,2, top-4\n"), err)

    def test_text_goes_through_the_tokenizer(self):
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0, "one": 5, "two": 6}, unk_token="?"))
        words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        tf.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(self.folder / "mixtral")
        (self.folder / "text.txt").write_text("one two two\n\ntwo\n")
        (self.folder / "text.jsonl").write_text('{"prompt": "one two two"}\n{"tokens": [6]}\n')
        for name in ("text.txt", "text.jsonl"):
            arguments = ("--model", "mixtral", "--prompts", name, "--output-tokens", 4, "--out", f"{name}.arrow")
            status, out, err = self.call(*arguments)
            self.assertEqual((status, out), (0, f"{name}.arrow: 2 sequences, 10 rows, MoE layers 0,1,2, top-2\n"), err)
            with pa.OSFile(str(self.folder / f"{name}.arrow")) as file:
                written = pa.ipc.open_file(file).read_all()["experts"].to_pylist()
            recorded = record(model_of("mixtral"), [[5, 6, 6], [6]], 4)
            self.assertEqual(written, [row.ravel().tolist() for ids, _, _ in recorded for row in ids])

    @unittest.skipUnless(MOESIM, "no moesim binary: set MOESIM")
    def test_moesim_replays_every_selection(self):
        """Every sequence is replayed once, so the run's load of every expert is its count in the recorded rows."""
        count, prompt, output = 6, 12, 7
        for family, (_, layers, experts, k) in FAMILIES.items():
            with self.subTest(family):
                trace, toml, run = f"{family}.arrow", f"{family}.toml", f"run-{family}"
                weights = ["--gate-weights"] if family in ("gpt_oss", "deepseek_v3") else []
                status, _, err = self.call("--model", family, "--random-tokens", prompt, "--count", count, "--output-tokens",
                                           output, "--batch", 4, "--ignore-eos", "--out", trace, *weights)
                self.assertEqual(status, 0, err)
                info = json.loads(self.moesim("trace", "info", trace, "--format", "json"))
                rows = count * (prompt + output - 1)
                self.assertEqual((info["sequences"], info["rows"], info["layers"], info["k"], info["experts"]),
                                 (count, rows, len(layers), k, experts))
                self.moesim("model", "import", f"{family}/config.json", "--out", toml)
                (self.folder / f"{family}-experiment.toml").write_text(f"""
                    name = "{family}"
                    model = "{toml}"
                    hardware = "h100-8"
                    [workload]
                    routing = {{ kind = "trace", path = "{trace}", missing = "refuse" }}
                    [workload.arrivals]
                    kind = "closed-loop"
                    concurrency = 4
                    requests = {count}
                    prompt_tokens = {{ mean = {prompt}, spread = 0.0 }}
                    output_tokens = {{ mean = {output}, spread = 0.0 }}
                """)
                summary = json.loads(self.moesim("run", f"{family}-experiment.toml", "--out", run, "--format", "json"))
                self.assertEqual(summary["assignments"], {"traced": rows * len(layers) * k, "wrapped": 0, "drawn": 0})
                with pa.OSFile(str(self.folder / trace)) as file:
                    ids = np.array(pa.ipc.open_file(file).read_all()["experts"].to_pylist()).reshape(rows, len(layers), k)
                with open(self.folder / run / "experts.csv", newline="") as file:
                    load = {(int(r["layer"]), int(r["expert"])): int(r["assignments"]) for r in csv.DictReader(file)}
                counted = {(layer, e): int((ids[:, i] == e).sum()) for i, layer in enumerate(layers) for e in range(experts)}
                self.assertEqual(load, counted)


class Refusals(unittest.TestCase):
    def test_a_layer_that_selects_in_another_way_is_refused(self):
        for change, message in ((lambda m: setattr(m, "forward", lambda h: h), "MoE layers were seen"),
                                (lambda m: m.gate.register_forward_hook(lambda *_: (None, *[torch.zeros(3, 2, 2)] * 2)), "called")):
            model = make("mixtral")
            change(model.model.layers[1].mlp)
            with self.subTest(message), self.assertRaisesRegex(Refused, message):
                list(record(model, prompts(3), 2))

    def test_weights_that_are_not_finite_are_refused(self):
        model = make("olmoe")
        with torch.no_grad():
            model.model.layers[0].mlp.gate.weight.fill_(float("nan"))
        with self.assertRaisesRegex(Refused, "not finite"):
            list(record(model, prompts(3), 2))


if __name__ == "__main__":
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    if not MOESIM:
        print("skipped: what needs the moesim binary; set MOESIM", file=sys.stderr)
    unittest.main()
