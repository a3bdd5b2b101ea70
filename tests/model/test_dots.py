"""Rows in 4 bits, and in two planes of 4, by products of whole numbers, beside torch's product."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from swarm.bits import Form
from swarm.model.experts import ExpertWeights
from swarm.model.quant import planes
from swarm.model.quant.dots import MOST_BESIDE, PART_ROWS, Dots, dots
from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.int8_groups import Int8Groups
from swarm.model.quant.matrix import matrix_of
from swarm.model.quant.matrix_unit import MatrixUnit
from swarm.weights.quantize import quantize

pytestmark = pytest.mark.skipif(dots() is None, reason="this CPU has no AVX2, or no C compiler was there")
ROWS = (1, 2, 3, 4, 5, 6, 7, 13, PART_ROWS + 1)
"""Of every number that is summed at once, of several such, and of more than a thread takes at a time."""


def here() -> Dots:
    found = dots()
    assert found is not None
    return found


@pytest.fixture(params=["wide", "narrow"])
def few(request: pytest.FixtureRequest) -> Dots:
    """By the widest vectors that this CPU has, and by those that most have."""
    found = here()
    if request.param == "wide" and not found.wide:
        pytest.skip("this CPU has no such vectors")
    return replace(found, wide=request.param == "wide")


def drawn(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows + seed)).to(torch.bfloat16)


def made(form: str, rows: int = 640, columns: int = 1024) -> Int4Matrix | Int8Groups:
    matrix = matrix_of([quantize(drawn(rows, columns).float(), Form.of(form)).codes], torch.bfloat16)
    assert isinstance(matrix, Int4Matrix | Int8Groups)
    return matrix


def quantized(form: str, rows: int = 640, columns: int = 1024) -> Int4Matrix:
    matrix = made(form, rows, columns)
    assert isinstance(matrix, Int4Matrix)
    return matrix


@pytest.mark.parametrize("form", ["int4/32", "int4", "int4/128"])
def test_it_answers_as_near_as_torch_s_own_product_and_always_the_same(form: str, few: Dots, threads: int) -> None:
    matrix = quantized(form)
    truth = matrix.dense().float()
    for n in ROWS:
        x = drawn(n, 1024)
        x[:, ::100] *= 300  # the largest of a group leaves the others few bits
        answer, exact = few.product(x, matrix.packed, matrix.scales), x.float() @ truth.T
        other = planes.few(x, matrix.packed, matrix.group, matrix.scales)
        assert float((answer.float() - exact).abs().max()) <= 1.2 * float((other.float() - exact).abs().max()), (n, threads)
        assert torch.equal(answer, few.product(x, matrix.packed, matrix.scales))


@pytest.mark.parametrize("form", ["int8/32", "int8/16"])
def test_two_planes_are_nearer_than_torch_s_own_product_of_the_matrix_unpacked(form: str, few: Dots, threads: int) -> None:
    matrix = made(form)
    truth = replace(matrix, scales=matrix.scales.float()).dense()
    for n in ROWS:
        x = drawn(n, 1024)
        x[:, ::100] *= 300
        answer, exact = few.product(x, matrix.packed, matrix.scales), x.float() @ truth.T
        other = planes.many(x, matrix.packed.unbind(), matrix.scales)
        assert float((answer.float() - exact).abs().max()) <= 1.2 * float((other.float() - exact).abs().max()), (n, threads)
        assert float((answer.float() - exact).abs().mean()) <= float((other.float() - exact).abs().mean()), (n, threads)
        if n <= few.most:
            assert torch.equal(matrix.product(x), here().product(x, matrix.packed, matrix.scales))


@pytest.mark.parametrize("forms", [("int4", "int4/32"), ("int8/16", "int8/32")], ids=str)
def test_a_row_is_the_same_beside_any_others_and_on_any_threads(forms: tuple[str, str], few: Dots) -> None:
    first, second, x = made(forms[0], 1152, 256), made(forms[1], 320, 576), drawn(150, 256)
    codes, before = ((first.packed, first.scales), (second.packed, second.scales)), torch.get_num_threads()
    together = few.product(x, *codes[0]), few.expert(x, *codes)
    torch.set_num_threads(2)
    shared = few.product(x, *codes[0]), few.expert(x, *codes)
    torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(together, shared, strict=True))
    for some in (slice(0, 1), slice(4, 6), slice(20, 23), slice(31, 44), slice(50, 130), slice(149, 150)):
        assert torch.equal(together[0][some], few.product(x[some], *codes[0]))
        assert torch.equal(together[1][some], few.expert(x[some], *codes))


def at_the_end(x: Tensor) -> Tensor:
    """The same numbers, behind which no memory may be touched."""
    size = x.numel() * x.element_size()
    room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, room + mmap.PAGESIZE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(begin + room), mmap.PAGESIZE, 0) == 0
    return torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=room - size).view(x.shape).copy_(x)


@pytest.mark.parametrize("form", ["int4/32", "int4/128", "int8/16"])
def test_nothing_is_read_behind_rows_codes_and_scales(form: str, few: Dots) -> None:
    matrix = made(form, 192, 384)
    packed, scales = at_the_end(matrix.packed), at_the_end(matrix.scales)
    for n in (1, 3, 8, 70):
        x = drawn(n, 384)
        assert torch.equal(few.product(at_the_end(x), packed, scales), few.product(x, matrix.packed, matrix.scales))


@pytest.mark.parametrize("forms", [("int4", "int4/32"), ("int8/16", "int8/32")], ids=str)
def test_both_kinds_of_vectors_answer_the_same_bits(forms: tuple[str, str]) -> None:
    few = here()
    if not few.wide:
        pytest.skip("this CPU has one kind of vectors only")
    other = replace(few, wide=False)
    first, second = made(forms[0], 1024, 256), made(forms[1], 256, 512)
    codes = (first.packed, first.scales), (second.packed, second.scales)
    for n in ROWS:
        x = drawn(n, 256) * 5
        assert torch.equal(few.product(x, *codes[0]), other.product(x, *codes[0]))
        assert torch.equal(few.expert(x, *codes), other.expert(x, *codes))


@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
def test_a_row_that_is_no_number_spoils_no_other(wrong: str, few: Dots) -> None:
    first, second = quantized("int4", 512, 128), quantized("int4", 128, 256)
    codes = (first.packed, first.scales), (second.packed, second.scales)
    for n in (3, 20):
        x = drawn(n, 128)
        x[1, 7] = float(wrong)
        assert few.product(x, *codes[0]).isfinite().all(1).tolist() == [row != 1 for row in range(n)]
        assert few.expert(x, *codes).isfinite().all(1).tolist() == [row != 1 for row in range(n)]


@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-20, 1e20])
def test_rows_of_nothing_and_of_any_size_are_answered(size: float, few: Dots) -> None:
    matrix, x = quantized("int4"), drawn(1, 1024)
    exact = few.product(x, matrix.packed, matrix.scales).float() * size
    answer = few.product((x.float() * size).to(torch.bfloat16), matrix.packed, matrix.scales).float()
    assert float((answer - exact).abs().max()) <= max(0.02 * float(exact.abs().max()), 1e-30)


@pytest.mark.parametrize("form", ["int8/16", "int8/32"])
def test_an_expert_of_two_planes_is_one_call_and_as_near_as_three(form: str, few: Dots) -> None:
    w13, w2 = made(form, 1024, 256), made("int8/32", 256, 512)
    truth = ExpertWeights(*(replace(w, scales=w.scales.float()).dense() for w in (w13, w2)))
    for n in ROWS:
        x = drawn(n, 256, seed=1) * 4
        at_once, exact = few.expert(x, (w13.packed, w13.scales), (w2.packed, w2.scales)), truth.forward(x.float())
        apart = ExpertWeights(w13.dense(), w2.dense()).forward(x)
        assert float((at_once.float() - exact).abs().max()) <= 1.2 * float((apart.float() - exact).abs().max()), n
        if n <= few.most:
            answer = here().expert(x, (w13.packed, w13.scales), (w2.packed, w2.scales))
            assert torch.equal(ExpertWeights(w13, w2).forward(x), answer)


def test_an_expert_in_one_call_is_as_near_as_in_three(few: Dots, threads: int) -> None:
    w13, w2 = quantized("int4", 1024, 256), quantized("int4/32", 256, 512)
    truth = ExpertWeights(w13.dense().float(), w2.dense().float())
    for n in ROWS:
        x = drawn(n, 256, seed=1) * 4  # gates far from nothing, on both sides
        at_once = few.expert(x, (w13.packed, w13.scales), (w2.packed, w2.scales))
        gate, up = planes.few(x, w13.packed, 64, w13.scales).chunk(2, -1)
        apart = planes.few(torch.nn.functional.silu(gate) * up, w2.packed, 32, w2.scales)
        exact = truth.forward(x.float())
        assert float((at_once.float() - exact).abs().max()) <= 1.2 * float((apart.float() - exact).abs().max()), (n, threads)


def test_it_is_what_computes_here() -> None:
    few = here()
    matrix, padded = quantized("int4"), quantized("int4", 624, 1000)
    x = drawn(4, 1024)
    assert torch.equal(matrix.product(x), few.product(x, matrix.packed, matrix.scales))
    assert few.takes(x, matrix.packed, matrix.group) and not few.takes(x.float(), matrix.packed, matrix.group)
    w13, w2 = quantized("int4", 1024, 256), quantized("int4", 256, 512)
    for n in {2, min(few.most, 40)}:
        x = drawn(n, 256)
        assert torch.equal(ExpertWeights(w13, w2).forward(x), few.expert(x, (w13.packed, w13.scales), (w2.packed, w2.scales)))
    assert ExpertWeights(padded, quantized("int4", 1000, 312)).forward(drawn(2, 1000)).shape == (2, 1000), (
        "what is padded is taken apart"
    )


def test_a_matrix_unit_has_more_rows_than_a_few_where_torch_packs_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for packs in (True, False):
        unit = MatrixUnit(here().functions, packs)
        monkeypatch.setattr("swarm.model.quant.dots.matrix_unit", lambda unit=unit: unit)
        found = dots.__wrapped__()
        assert found is not None and (found.most == MOST_BESIDE) == packs
        assert found.takes(drawn(MOST_BESIDE + 1, 1024), quantized("int4").packed, 64) != packs
