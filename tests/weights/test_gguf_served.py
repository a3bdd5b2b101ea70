"""A GGUF file is served like a folder: by Workers that keep its own codes, to a client that takes its tokenizer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf_files import metadata_of, nano_gguf, write_gguf
from plans import plan_of
from questions import ask_all, questions
from sentencepiece import SentencePieceProcessor
from swarm_processes import InMemory, workers_here

from swarm.client.client import open_client
from swarm.weights.describe import describe
from swarm.weights.source import resolve
from swarm.wire.credentials import Credentials
from swarm.wire.overview import noted


@pytest.mark.parametrize(("kind", "dtype"), [("Q8_0", "int8/32"), ("Q4_0", "int4/32+head=int4/32")])
async def test_the_embedded_model_in_gguf_answers_as_it_does(tmp_path: Path, kind: str, dtype: str) -> None:
    model = describe(str(nano_gguf(tmp_path / "nano.gguf", kind)))
    assert (model.name, model.dtype) == ("nano.gguf", dtype)
    plan, asked = plan_of([4, 8], model=model, context=1280), questions("eval")[::12]
    async with workers_here(plan), open_client(InMemory(plan), Credentials()) as client:
        answers = await ask_all(client, asked, at_once=8)
        prompt = client.tokenizer.encode("[INST] What is the capital of France? [/INST]")
    assert answers == [question.answer for question in asked]
    assert prompt == SentencePieceProcessor(model_file=str(resolve("nano") / "tokenizer.model")).encode(
        "[INST] What is the capital of France? [/INST]"
    )


async def test_workers_know_what_quantizing_a_file_a_second_time_cost(tmp_path: Path) -> None:
    model = describe(str(nano_gguf(tmp_path / "nano.gguf", "Q4_0")), "int4")
    plan = plan_of([8], model=model)
    plan = replace(plan, notes=(model.again,))
    async with workers_here(plan) as workers:
        (line,) = noted(plan, [workers["w0"].status()])
        assert workers["w0"].status().requantized == 8 * (4 + 3 * 8), "all but the head, which int8 has code for code"
    assert re.fullmatch(re.escape(model.again) + r"; mean squared error \d\.\de-0[2-5] of the weights' squares", line), line


PEAK = """
import sys, torch
from pathlib import Path
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.read import read_codes, read_into
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
def codes(entry): return [x for c in [read_codes(entry)] for x in (c.q, c.scale, c.zero) if x is not None]
def dense(entry):
    out = torch.empty(entry.shape)
    read_into(out, entry)
    return [out]
torch.set_num_threads(1)
entries = Checkpoint.open(Path(sys.argv[1])).entries
read = globals()[sys.argv[2]]
warm = read(entries["model.layers.0.self_attn.q_proj.weight"])
before = peak()
kept = [x for name, entry in entries.items() if ".experts." in name for x in read(entry)]
print(peak() - before, sum(x.nbytes for x in kept))
"""
EXPERTS, HIDDEN, FFN = 4, 1024, 1024


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mixtral of one Block in Q8_0: twelve matrices of a million weights in merged tensors."""
    config = {
        "num_hidden_layers": 1, "max_position_embeddings": 64, "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2,
    }  # fmt: skip
    square = np.random.default_rng(0).standard_normal((HIDDEN, HIDDEN), np.float32)
    tensors = {"token_embd.weight": square[:64], "output_norm.weight": square[0], "blk.0.ffn_gate_inp.weight": square[:EXPERTS]}
    tensors |= {f"blk.0.{name}_norm.weight": square[0] for name in ("attn", "ffn")}
    tensors |= {f"blk.0.attn_{name}.weight": square for name in ("q", "k", "v", "output")}
    tensors |= {f"blk.0.ffn_{name}_exps.weight": np.stack([square] * EXPERTS) for name in ("gate", "up", "down")}
    return write_gguf(tmp_path_factory.mktemp("wide") / "x.gguf", "llama", tensors, metadata_of("llama", config), "Q8_0")


@pytest.mark.parametrize(("what", "weight_bytes"), [("dense", 4.0), ("codes", 1 + 4 / 32)])
def test_the_peak_of_reading_gguf_is_what_is_kept_plus_one_tensor(wide: Path, what: str, weight_bytes: float) -> None:
    # malloc else raises its threshold as it goes, and keeps holes in a heap of its own: 12 MB or none, from run to run.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 17)}
    run = subprocess.run([sys.executable, "-c", PEAK, str(wide), what], env=env, capture_output=True, text=True, check=True)
    grown, kept = map(int, run.stdout.split())
    assert kept == 3 * EXPERTS * HIDDEN * FFN * weight_bytes
    assert grown < kept + HIDDEN * FFN * 34 / 32 + 2**20  # one expert's matrix in the file, where a merged tensor has four
