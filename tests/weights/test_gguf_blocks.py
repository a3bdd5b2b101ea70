"""Codes of GGUF's blocks stand for the numbers that the gguf package reads, and are the file's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from gguf_blocks import CODED, SCALES_AT, Bytes, random_rows, sizes, with_scales
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from swarm.weights.codes import Codes
from swarm.weights.file import LocalFile
from swarm.weights.gguf.blocks import DECODERS
from swarm.weights.gguf.entry import GgufEntry
from swarm.weights.gguf.kinds import KINDS
from swarm.weights.read import form_of, read_codes, read_into

BY_NAME = {kind.name: kind for kind in KINDS.values()}
halves = st.floats(allow_nan=False, allow_infinity=False, width=16)


def entry_of(folder: Path, kind: str, rows: Bytes, columns: int) -> GgufEntry:
    path = folder / "x.gguf"
    path.write_bytes(b"before" + rows.tobytes() + b"after")
    return GgufEntry(LocalFile(path), "x", BY_NAME[kind], (len(rows), columns), 6)


def dense(entry: GgufEntry, dtype: torch.dtype = torch.float32) -> Tensor:
    out = torch.empty(entry.shape, dtype=dtype)
    read_into(out, entry)
    return out


@pytest.mark.parametrize("kind", CODED)
@given(data=st.data(), d=halves, low=halves)
@settings(max_examples=60, deadline=None)
def test_codes_of_any_block_are_the_weights_that_gguf_reads(kind: str, data: st.DataObject, d: float, low: float) -> None:
    weights, num_bytes = sizes(kind)
    raw = data.draw(st.binary(min_size=num_bytes, max_size=num_bytes))
    blocks = with_scales(np.frombuffer(raw, np.uint8).reshape(1, -1), kind, d, low)
    want = torch.from_numpy(dequantize(blocks, GGMLQuantizationType[kind]))
    q, scale, zero = DECODERS[kind](torch.from_numpy(blocks))
    form = BY_NAME[kind].form
    assert form is not None
    got = Codes(q, scale, zero, form).dense()
    # A weight is a sum of two terms: where they cancel, what is left cannot be nearer than the terms themselves.
    terms = got.abs() if zero is None else got.abs() + zero.abs().repeat_interleave(form.group, 1)
    assert ((got - want).abs() <= 1e-6 * terms).all()
    assert q.shape == (1, weights)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_what_gguf_quantizes_keeps_its_integer_codes(kind: str, tmp_path: Path) -> None:
    w = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    rows = quantize(w, GGMLQuantizationType[kind])
    codes = read_codes(entry_of(tmp_path, kind, rows, 64))
    assert codes is not None
    # The obvious way: a code is the number of steps of its own block's scale.
    d = rows.reshape(-1, sizes(kind)[1])[:, :2].copy().view(np.float16).astype(np.float32)
    back = dequantize(rows, GGMLQuantizationType[kind]).reshape(-1, 32)
    low = rows.reshape(-1, sizes(kind)[1])[:, 2:4].copy().view(np.float16).astype(np.float32) if kind.endswith("1") else 0
    steps = np.rint((back - low) / d).astype(int) + (8 if kind == "Q4_0" else 0)
    assert (codes.q.numpy().reshape(-1, 32) == steps).all()
    assert (codes.scale.numpy().reshape(-1, 1) == d).all()  # in fp32, not even scales are rounded


def test_q4_k_keeps_its_integer_codes(tmp_path: Path) -> None:
    rows = random_rows("Q4_K", 4, 512)
    codes = read_codes(entry_of(tmp_path, "Q4_K", rows, 512))
    assert codes is not None
    nibbles = [
        b[16 + 32 * c + i] >> (4 * h) & 15 for b in rows.reshape(-1, 144) for c in range(4) for h in (0, 1) for i in range(32)
    ]
    assert codes.q.flatten().tolist() == nibbles


@pytest.mark.parametrize("kind", [*SCALES_AT, "F32", "F16", "BF16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_kind_reads_as_gguf_reads_it(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    if kind in SCALES_AT:
        rows = random_rows(kind, 5, 512)
    else:
        rows = quantize(np.random.default_rng(0).standard_normal((5, 512)).astype(np.float32), GGMLQuantizationType[kind])
    want = torch.from_numpy(dequantize(rows, GGMLQuantizationType[kind]).copy())
    rows = rows.view(np.uint8).reshape(5, -1)
    got = dense(entry_of(tmp_path, kind, rows, 512), dtype)
    assert torch.allclose(
        got.float(), want.to(dtype).float(), rtol=1e-6 if dtype == torch.float32 else 2**-7, atol=1e-6 * want.abs().max().item()
    )


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "F32"])
def test_a_kind_without_a_form_has_no_codes(kind: str, tmp_path: Path) -> None:
    entry = GgufEntry(LocalFile(tmp_path / "x.gguf"), "x", BY_NAME[kind], (2, 256), 0)
    assert form_of(entry) is None
    assert read_codes(entry) is None
    assert str(entry.auto_form) == ("None" if kind == "F32" else "int4/32")


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "F16"])
def test_rows_that_llama_cpp_moved_are_put_back(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads, size, columns = 3, 8, 256
    if kind == "F16":
        rows = np.random.default_rng(0).standard_normal((heads * size, columns)).astype(np.float16).view(np.uint8)
    else:
        rows = random_rows(kind, heads * size, columns)
    # What llama.cpp's converter does to q and k.
    moved = rows.reshape(heads, 2, size // 2, -1).swapaxes(1, 2).reshape(rows.shape)
    plain = entry_of(tmp_path, kind, rows, columns)
    want, codes = dense(plain), read_codes(plain)
    entry = GgufEntry(plain.file, "x", plain.kind, plain.shape, 6, paired_heads=heads)
    plain.path.write_bytes(b"before" + moved.tobytes())
    monkeypatch.setattr("swarm.weights.gguf.read.CHUNK_WEIGHTS", 5 * columns)  # pieces that end inside a head
    assert torch.equal(dense(entry), want)
    got = read_codes(entry)
    assert (got is None) == (codes is None)
    if got is not None and codes is not None:
        assert torch.equal(got.q, codes.q)
        assert torch.equal(got.dense(), codes.dense())


def test_only_the_bytes_of_what_is_asked_for_are_read(tmp_path: Path) -> None:
    rows = np.stack([random_rows("Q4_0", 4, 64, seed) for seed in range(3)])
    plain = entry_of(tmp_path, "Q4_0", rows[1], 64)
    want = dense(plain)
    read: list[tuple[int, int]] = []

    class Watched(LocalFile):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            read.append((offset, offset + len(buffer)))
            super().read_into(offset, buffer)

    plain.path.write_bytes(b"before" + rows.tobytes())
    stack = GgufEntry(Watched(plain.path), "x", plain.kind, (3, 4, 64), 6)
    assert torch.equal(dense(stack.part(1)), want)
    assert read == [(6 + rows[0].nbytes, 6 + 2 * rows[0].nbytes)]
