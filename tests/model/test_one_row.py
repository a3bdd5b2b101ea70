"""One row times a matrix of bf16 or of 8 bits, beside torch's products."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from swarm.bits import Form
from swarm.model.experts import ExpertWeights
from swarm.model.native.one_row import OneRow, one_row
from swarm.model.product import product
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.quant.matrix import matrix_of
from swarm.weights.quantize import quantize

pytestmark = pytest.mark.skipif(one_row() is None, reason="this CPU has no AVX2, or no C compiler was there")


@pytest.fixture(params=["wide", "narrow"])
def one(request: pytest.FixtureRequest) -> OneRow:
    """By the widest vectors that this CPU has, and by those that most have."""
    found = one_row()
    assert found is not None
    if request.param == "wide" and not found.wide:
        pytest.skip("this CPU has no such vectors")
    return replace(found, wide=request.param == "wide")


def drawn(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(torch.bfloat16)


def in_8_bits(rows: int, columns: int) -> Int8Matrix:
    matrix = matrix_of([quantize(drawn(rows, columns).float(), Form.of("int8")).codes], torch.bfloat16)
    assert isinstance(matrix, Int8Matrix)
    return matrix


@pytest.mark.parametrize("columns", [32, 96, 1024, 3584])
@pytest.mark.parametrize("outputs", [4, 8, 100, 1536])
def test_it_answers_as_near_as_torch_s_own_products(columns: int, outputs: int, one: OneRow, threads: int) -> None:
    x, w, eight = drawn(1, columns), drawn(outputs, columns), in_8_bits(outputs, columns)
    pairs = (
        (one.product(x, w), torch.mv(w, x[0]).unsqueeze(0), w),
        (one.product(x, eight.q, eight.scale), torch._weight_int8pack_mm(x, eight.q, eight.scale), eight.dense()),
    )
    for answer, other, matrix in pairs:
        exact = x.float() @ (matrix.float() if matrix is w else eight.q.float() * eight.scale.float().unsqueeze(1)).T
        assert answer.shape == other.shape == (1, outputs)
        assert float((answer.float() - exact).abs().max()) <= 1.2 * float((other.float() - exact).abs().max()), (columns, outputs)


def test_an_expert_in_one_call_is_as_near_as_in_three(one: OneRow, threads: int) -> None:
    x = drawn(1, 256) * 4
    w13, w2 = drawn(1024, 256), drawn(256, 512)
    first, second = in_8_bits(1024, 256), in_8_bits(256, 512)
    for at_once, parts in (
        (one.expert(x, (w13, None), (w2, None)), (w13, w2)),
        (one.expert(x, (first.q, first.scale), (second.q, second.scale)), (first.dense(), second.dense())),
    ):
        exact = ExpertWeights(parts[0].float(), parts[1].float()).forward(x.float())
        assert float((at_once.float() - exact).abs().max()) <= 0.01 * float(exact.abs().max())


@pytest.mark.parametrize("wrong", ["nan", "inf"])
def test_what_is_no_number_stays_none(wrong: str, one: OneRow) -> None:
    x = drawn(1, 128)
    x[0, 7] = float(wrong)
    assert not one.product(x, drawn(64, 128)).isfinite().any()
    assert not one.expert(x, (drawn(64, 128), None), (drawn(128, 32), None)).isfinite().any()


def test_it_is_what_computes_here() -> None:
    one = one_row()
    assert one is not None
    x, w, eight = drawn(1, 1024), drawn(64, 1024), in_8_bits(64, 1024)
    assert torch.equal(product(x, w), one.product(x, w))
    assert torch.equal(eight.product(x), one.product(x, eight.q, eight.scale))
    assert not one.takes(drawn(2, 1024), w) and not one.takes(x.float(), w) and not one.reads(w[:, :1000].contiguous())
    w13, w2 = drawn(256, 64), drawn(64, 128)
    assert torch.equal(ExpertWeights(w13, w2).forward(x[:, :64].contiguous()), one.expert(x[:, :64], (w13, None), (w2, None)))
