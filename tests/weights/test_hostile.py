"""Whatever a weight file says, it is opened or refused by a sentence of ours, and costs little memory either way."""

from __future__ import annotations

import os
import random
import shutil
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import write_gguf
from hostile import CORPUS, GGUF, SAFETENSORS, array, header, key, safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from little_memory import costs_little

from swarm.errors import MissingWeights, ModelError
from swarm.shapes import known_shape
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.describe import assets
from swarm.weights.file import LocalFile
from swarm.weights.gguf.header import gguf_header_of
from swarm.weights.header import read_header
from swarm.weights.source import resolve

MOST_BYTES = 4 << 20
"""What refusing, or opening, one of these small files may take."""
MODEL: dict[str, Any] = {
    "llama.block_count": 1, "llama.context_length": 64, "llama.embedding_length": 32, "llama.feed_forward_length": 32,
    "llama.attention.head_count": 2, "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.expert_count": 2,
    "llama.expert_used_count": 1, "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a"],
    "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -1.0], "tokenizer.ggml.token_type": [2, 3, 3, 1], "tokenizer.chat_template": "{{ x }}",
}  # fmt: skip


def sound_gguf(path: Path) -> bytes:
    """A whole model of 10 kB."""
    square, experts = np.zeros((32, 32), np.float32), np.zeros((2, 32, 32), np.float32)
    tensors = {"token_embd.weight": np.zeros((4, 32), np.float32), "output_norm.weight": square[0]}
    for name in ("attn_norm", "ffn_norm"):
        tensors[f"blk.0.{name}.weight"] = square[0]
    tensors |= {f"blk.0.attn_{name}.weight": square for name in ("q", "k", "v", "output")}
    tensors |= {f"blk.0.ffn_{name}_exps.weight": experts for name in ("gate", "up", "down")}
    tensors["blk.0.ffn_gate_inp.weight"] = square[:2]
    return write_gguf(path, "llama", tensors, MODEL, "Q8_0").read_bytes()


def open_or_refuse(path: Path) -> bool:
    """Whether it could be opened; anything but a refusal of ours is raised."""
    try:
        checkpoint = Checkpoint.open(path)
        checkpoint.model_id()
        assets(path)
    except ModelError as error:
        assert str(error).isprintable()
        return False
    return True


def test_the_corpus_is_what_makes_it() -> None:
    kept = {path.name: path.read_bytes() for path in CORPUS.iterdir()}
    made = {f"{name}.gguf": raw for name, raw in GGUF.items()} | {f"{name}.safetensors": raw for name, raw in SAFETENSORS.items()}
    assert kept == made


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.gguf")), ids=lambda path: path.stem)
def test_a_hostile_gguf_is_refused_in_little_memory(path: Path) -> None:
    def refused() -> None:
        with pytest.raises(ModelError) as caught:
            Checkpoint.open(path)
        assert path.name in str(caught.value)
        assert str(caught.value).isprintable()

    costs_little(refused, MOST_BYTES)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_hostile_safetensors_is_refused_in_little_memory(path: Path) -> None:
    def refused() -> None:
        with pytest.raises(ModelError) as caught:
            read_header(path)
        assert path.name in str(caught.value)
        assert str(caught.value).isprintable()

    costs_little(refused, MOST_BYTES)


def test_a_header_that_is_all_there_and_far_too_long_costs_no_more_than_its_bytes(tmp_path: Path) -> None:
    lists = b"[" + b"[]," * 1_000_000 + b"[]]"
    (tmp_path / "x.safetensors").write_bytes(safetensors(b'{"__metadata__": ' + lists + b"}"))
    flags = key("k", 9, array(0, 2**21)) + bytes(2**21)
    (tmp_path / "x.gguf").write_bytes(header(key("j", 9, array(8, 100_000)) + bytes(800_000), flags, keys=2))
    tracemalloc.start()
    with pytest.raises(ModelError, match="more than 1048576 values"):
        read_header(tmp_path / "x.safetensors")
    gguf_header_of(LocalFile(tmp_path / "x.gguf"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15e6  # a million lists would take 64 MB, two million numbers as many


NUMBERS = (0, 1, 255, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def mutated(raw: bytes, seed: int) -> bytes:
    """Some bytes flipped, a number of 8 bytes replaced, a piece cut out, doubled, or the end lost."""
    rng, made = random.Random(seed), bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(made) or 1)
        match rng.randrange(5):
            case 0:
                made[at] ^= 1 << rng.randrange(8)
            case 1:
                made[at : at + 8] = struct.pack("<Q", rng.choice([*NUMBERS, rng.getrandbits(64)]))
            case 2:
                del made[at : at + rng.randrange(1, 40)]
            case 3:
                made[at:at] = made[at : at + rng.randrange(1, 40)]
            case _:
                del made[max(1, at) :]
    return bytes(made)


def test_a_sound_file_that_was_damaged_anywhere_is_opened_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    raw = sound_gguf(path)
    assert open_or_refuse(path)
    table = raw.index(b"blk.0.ffn_gate_inp.weight") + 64

    def all_of_them() -> None:
        refused = 0
        for seed in range(800):
            path.write_bytes(mutated(raw[:table], seed) + raw[table:])
            refused += not open_or_refuse(path)
        assert 300 < refused < 800  # most damage shows; some is in a template's text

    costs_little(all_of_them, MOST_BYTES)


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_safetensors_header_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    table = {n: {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * i, 16 * i + 16]} for i, n in enumerate("abc")}
    (tmp_path / "x.safetensors").write_bytes(mutated(safetensors(table, bytes(48)), seed))
    try:
        read_header(tmp_path / "x.safetensors")
    except ModelError as error:
        assert str(error).isprintable()


values = st.integers(0, 12).flatmap(
    lambda kind: st.tuples(st.just(kind), st.binary(max_size=24) | st.integers(0, 2**64 - 1).map(lambda n: struct.pack("<Q", n)))
)


@given(st.lists(st.tuples(st.text(max_size=5), values), max_size=4), st.integers(0, 5), st.integers(0, 5), st.binary(max_size=80))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_header_is_read_or_refused(tmp_path: Path, keys: list[Any], more: int, tensors: int, rest: bytes) -> None:
    parts = [key(name, kind, value) for name, (kind, value) in keys]
    (tmp_path / "x.gguf").write_bytes(header(*parts, rest, keys=len(keys) + more, tensors=tensors))
    open_or_refuse(tmp_path / "x.gguf")


def test_a_pipe_in_the_place_of_weights_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    shutil.copy(resolve("nano") / "config.json", tmp_path)
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(MissingWeights, match="is not a file"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_a_pickle_is_never_read_and_its_folder_says_what_to_give(tmp_path: Path, name: str) -> None:
    shutil.copy(resolve("nano") / "config.json", tmp_path)
    (tmp_path / name).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(ModelError, match=rf"only as {name}, a pickle, .* never read: give a folder with safetensors"):
        Checkpoint.open(tmp_path)
    assert known_shape(str(tmp_path)) is None, "nothing is planned that could not be loaded"
