"""Several rows times a matrix of bf16 or of 8 bits on a CPU's vectors, beside torch's products."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from swarm.model.experts import ExpertWeights
from swarm.model.native import several_rows as module
from swarm.model.native.several_rows import Kind, SeveralRows, quickest, several_rows
from swarm.model.product import product
from swarm.model.quant.int8 import Int8Matrix

pytestmark = pytest.mark.skipif(quickest() is None, reason="this CPU has no AVX2, or no C compiler was there")
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 16, 17, 33, 70)


@pytest.fixture(params=list(Kind), ids=lambda kind: kind.name.lower())
def several(request: pytest.FixtureRequest) -> SeveralRows:
    """By each kind of vectors that this CPU has."""
    found = quickest()
    assert found is not None
    if request.param > found.kind:
        pytest.skip("this CPU has no such vectors")
    return replace(found, kind=request.param)


def drawn(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(torch.bfloat16)


def in_8_bits(rows: int, columns: int) -> Int8Matrix:
    """With every code that there is."""
    codes = torch.randint(-128, 128, (rows, columns), generator=torch.Generator().manual_seed(rows)).to(torch.int8)
    return Int8Matrix(columns, codes, drawn(rows, 1)[:, 0] / 64)


@pytest.mark.parametrize("columns", [64, 1024, 1600])
@pytest.mark.parametrize("outputs", [1, 8, 100, 259])
def test_it_answers_as_near_as_torch_s_own_products(columns: int, outputs: int, several: SeveralRows, threads: int) -> None:
    w, eight = drawn(outputs, columns), in_8_bits(outputs, columns)
    truth = eight.q.double() * eight.scale.double().unsqueeze(1)
    for n in ROWS:
        x = drawn(n, columns)
        for answer, matrix in ((several.product(x, w), w.double()), (several.product(x, eight.q, eight.scale), truth)):
            exact = x.double() @ matrix.T
            rounded = float((exact.to(torch.bfloat16).double() - exact).abs().max())
            assert answer.shape == (n, outputs) and answer.dtype is torch.bfloat16
            assert float((answer.double() - exact).abs().max()) <= 1.05 * rounded + 1e-5 * float(exact.abs().max()), n


def test_an_expert_in_one_call_is_as_near_as_in_three(several: SeveralRows, threads: int) -> None:
    w13, w2 = drawn(1152, 256) / 16, drawn(256, 576) / 16
    first, second = in_8_bits(1152, 256), in_8_bits(256, 576)
    for n in ROWS:
        x = drawn(n, 256) * 4
        for at_once, parts in (
            (several.expert(x, (w13, None), (w2, None)), (w13, w2)),
            (several.expert(x, (first.q, first.scale), (second.q, second.scale)), (first.dense(), second.dense())),
        ):
            exact = ExpertWeights(parts[0].double(), parts[1].double()).forward(x.double())
            assert float((at_once.double() - exact).abs().max()) <= 0.01 * float(exact.abs().max()), n


def test_a_row_is_the_same_beside_any_others_and_on_any_threads(several: SeveralRows, monkeypatch: pytest.MonkeyPatch) -> None:
    w13, w2, eight, x = drawn(1152, 1088) / 16, drawn(100, 576) / 16, in_8_bits(100, 1088), drawn(70, 1088)

    def answers(rows: Tensor) -> tuple[Tensor, ...]:
        one = several.product(rows, w13), several.product(rows, eight.q, eight.scale)
        return *one, several.expert(rows, (w13, None), (w2, None))

    before, together = torch.get_num_threads(), answers(x)
    for n in ROWS:
        for some in (slice(0, n), slice(70 - n, 70), slice(min(13, 70 - n), min(13, 70 - n) + n)):
            assert all(torch.equal(one[some], other) for one, other in zip(together, answers(x[some].contiguous()), strict=True)), n
    torch.set_num_threads(2)
    assert all(map(torch.equal, together, answers(x)))
    torch.set_num_threads(before)
    monkeypatch.setattr(module, "MOST_ROWS", 11)  # they do not fit, and meet the matrix some at a time
    assert all(map(torch.equal, together, answers(x)))


@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
def test_a_row_that_is_no_number_spoils_no_other(wrong: str, several: SeveralRows) -> None:
    w13, w2, eight = drawn(512, 128), drawn(128, 256), in_8_bits(128, 128)
    for n in (5, 20):
        x = drawn(n, 128)
        x[4, 7] = float(wrong)
        for answer in (
            several.product(x, w13),
            several.expert(x, (w13, None), (w2, None)),
            several.product(x, eight.q, eight.scale),
        ):
            assert answer.isfinite().all(1).tolist() == [row != 4 for row in range(n)]


def test_gates_of_any_size_are_answered(several: SeveralRows) -> None:
    w13, w2 = torch.eye(64, dtype=torch.bfloat16).repeat(2, 1), torch.eye(64, dtype=torch.bfloat16)
    x = torch.tensor([-300.0, -200.0, -90.0, -20.0, 0.0, 20.0, 90.0, 1e15]).to(torch.bfloat16).repeat(16, 8)
    exact = torch.nn.functional.silu(x.double()) * x.double()
    assert torch.allclose(several.expert(x, (w13, None), (w2, None)).double(), exact, rtol=2**-7, atol=1e-6)


@pytest.fixture
def fenced() -> Callable[[Tensor], Tensor]:
    """A copy of a tensor that ends where memory does that may be read."""
    kept, libc, page = [], ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE

    def moved(x: Tensor) -> Tensor:
        data, size = x.contiguous().view(torch.uint8).numpy().tobytes(), x.numel() * x.element_size()
        whole = -(-size // page) * page
        memory = mmap.mmap(-1, whole + page)
        kept.append(memory)
        memory[whole - size : whole] = data
        behind = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + whole
        assert libc.mprotect(ctypes.c_void_p(behind), ctypes.c_size_t(page), 0) == 0
        return torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=whole - size).view(x.shape)

    return moved


@pytest.mark.parametrize("shape", [(8, 64), (13, 1088)], ids=str)
def test_nothing_is_read_behind_what_it_is_given(
    shape: tuple[int, int], several: SeveralRows, fenced: Callable[[Tensor], Tensor]
) -> None:
    w, eight = drawn(*shape), in_8_bits(*shape)
    there, codes, scales = fenced(w), fenced(eight.q), fenced(eight.scale)
    for n in ROWS:
        x = drawn(n, shape[1])
        assert torch.equal(several.product(fenced(x), there), several.product(x, w))
        assert torch.equal(several.product(fenced(x), codes, scales), several.product(x, eight.q, eight.scale))


@pytest.mark.skipif(several_rows() is None, reason="this CPU has a matrix unit")
def test_it_is_what_computes_here() -> None:
    several = several_rows()
    assert several is not None
    x, w, eight = drawn(5, 1024), drawn(64, 1024), in_8_bits(64, 1024)
    assert torch.equal(product(x, w), several.product(x, w))
    assert torch.equal(product(x.t().contiguous().t(), w), several.product(x, w))
    assert torch.equal(eight.product(x), several.product(x, eight.q, eight.scale))
    assert not several.takes(x[:1], w) and not several.takes(x.float(), w) and not several.reads(w[:, :1000].contiguous())
    w13, w2, some = drawn(256, 64), drawn(64, 128), x[:, :64].contiguous()
    assert torch.equal(ExpertWeights(w13, w2).forward(some), several.expert(some, (w13, None), (w2, None)))
    first, second = in_8_bits(256, 64), in_8_bits(64, 128)
    at_once = several.expert(some, (first.q, first.scale), (second.q, second.scale))
    assert torch.equal(ExpertWeights(first, second).forward(some), at_once)
