"""Many rows in 4 bits on a CPU's matrix unit, beside torch's product with the matrix unpacked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from swarm.bits import Form
from swarm.model.experts import ExpertWeights, gated
from swarm.model.native import many_rows
from swarm.model.quant import int4_layout
from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.many_codes import FEWEST, ManyCodes, many_codes
from swarm.model.quant.matrix import matrix_of
from swarm.weights.quantize import quantize

pytestmark = pytest.mark.skipif(many_codes() is None, reason="this CPU has no matrix unit for bf16, or no C compiler was there")
ROWS = (1, 16, 17, 31, 33, 48, 100)


@pytest.fixture
def many() -> ManyCodes:
    found = many_codes()
    assert found is not None
    return found


def drawn(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(torch.bfloat16)


def quantized(form: str, rows: int, columns: int) -> Int4Matrix:
    matrix = matrix_of([quantize(drawn(rows, columns).float() / 16, Form.of(form)).codes], torch.bfloat16)
    assert isinstance(matrix, Int4Matrix)
    return matrix


def codes(matrix: Int4Matrix) -> tuple[Tensor, Tensor]:
    return matrix.packed, matrix.scales


@pytest.mark.parametrize("columns", [128, 1152, 2176], ids=["one unit", "two", "three, the last one smaller"])
@pytest.mark.parametrize("form", ["int4/32", "int4", "int4/128"])
def test_it_answers_as_near_as_the_matrix_unpacked_and_always_the_same(
    form: str, columns: int, many: ManyCodes, threads: int
) -> None:
    matrix = quantized(form, 192, columns)
    unpacked = matrix.dense()
    for n in ROWS:
        x = drawn(n, columns)
        answer, other = many.product(x, *codes(matrix)), torch.mm(x, unpacked.t())
        exact = x.double() @ unpacked.double().T
        assert answer.shape == other.shape and answer.dtype is torch.bfloat16
        assert float((answer.double() - exact).abs().max()) <= 1.2 * float((other.double() - exact).abs().max()), n
        assert torch.equal(answer, many.product(x, *codes(matrix)))


def test_codes_become_the_numbers_that_they_are_unpacked_to_elsewhere(many: ManyCodes) -> None:
    matrix = quantized("int4", 128, 256)
    each = torch.eye(256, dtype=torch.bfloat16)
    assert torch.allclose(many.product(each, *codes(matrix)).t().float(), matrix.dense().float(), rtol=2**-7, atol=0)


def test_an_expert_in_one_call_is_as_near_as_in_three(many: ManyCodes, threads: int) -> None:
    w13, w2 = quantized("int4", 2432, 256), quantized("int4/32", 256, 1216)
    truth = ExpertWeights(w13.dense().double(), w2.dense().double())
    for n in ROWS:
        x = drawn(n, 256) * 8  # gates far from nothing, on both sides
        gate, up = torch.mm(x, w13.dense().t()).chunk(2, -1)
        apart, exact = torch.mm(gated(gate, up, truth.activation), w2.dense().t()), truth.forward(x.double())
        answer, error = many.expert(x, codes(w13), codes(w2)), float((apart.double() - exact).abs().max())
        assert float((answer.double() - exact).abs().max()) <= 1.2 * error, n


def test_a_row_is_the_same_beside_any_others_and_on_any_threads(many: ManyCodes, monkeypatch: pytest.MonkeyPatch) -> None:
    x, first, second = drawn(100, 256), codes(quantized("int4", 1152, 256)), codes(quantized("int4", 256, 576))
    before, answers = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        answers += [(many.product(x, *first), many.expert(x, first, second))]
    torch.set_num_threads(before)
    some = slice(20, 57)
    answers += [(many.product(x[some], *first), many.expert(x[some], first, second))]
    monkeypatch.setattr(many_rows, "MOST_BYTES", 256 * 2 * 48)  # they do not fit, and meet the matrix some at a time
    answers += [(many.product(x, *first), many.expert(x, first, second))]
    for one, other in (answers[:2], answers[::3]):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert torch.equal(answers[0][0][some], answers[2][0]) and torch.equal(answers[0][1][some], answers[2][1])


@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
def test_a_row_that_is_no_number_spoils_no_other(wrong: str, many: ManyCodes) -> None:
    x = drawn(20, 128)
    x[4, 7] = float(wrong)
    first, second = codes(quantized("int4", 512, 128)), codes(quantized("int4", 128, 256))
    for answer in (many.product(x, *first), many.expert(x, first, second)):
        assert answer.isfinite().all(1).tolist() == [row != 4 for row in range(20)]


def test_it_is_what_computes_here(many: ManyCodes) -> None:
    w13, w2, padded = quantized("int4", 1152, 256), quantized("int4", 256, 576), quantized("int4", 624, 1000)
    x = drawn(64, 256)
    assert torch.equal(w13.product(x), many.product(x, *codes(w13)))
    assert torch.equal(ExpertWeights(w13, w2).forward(x), many.expert(x, codes(w13), codes(w2)))
    assert not many.takes(x[: FEWEST - 1], w13.packed, 64) and not many.takes(x.float(), w13.packed, 64)
    expert = ExpertWeights(padded, quantized("int4", 1000, 312))
    assert expert.forward(drawn(40, 1000)).shape == (40, 1000), "what is padded is taken apart"
    narrow = ExpertWeights(quantized("int4/32", 192, 256), quantized("int4/32", 256, 96))
    assert narrow.forward(x).shape == (64, 256), "and what meets w2 in no whole blocks"


def test_it_computes_only_where_torch_packs_as_it_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int4_layout, "block_rows", lambda: 32)
    assert many_codes.__wrapped__() is None
