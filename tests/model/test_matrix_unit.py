"""Products in few bits on a CPU's matrix unit, beside torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from swarm.bits import Form
from swarm.model.quant import int4_layout, planes
from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.quant.matrix import matrix_of
from swarm.model.quant.matrix_unit import matrix_unit
from swarm.weights.quantize import quantize

pytestmark = pytest.mark.skipif(matrix_unit() is None, reason="this CPU has no matrix unit for bf16, or no C compiler was there")
ROWS = (1, *range(2, 19), 31, 33, 100, 130, 256)
INPUTS, OUTPUTS = 992, 640


def drawn(rows: int, columns: int = INPUTS) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(torch.bfloat16)


def quantized(form: str) -> Int4Matrix | Int8Matrix:
    matrix = matrix_of([quantize(drawn(OUTPUTS).float(), Form.of(form)).codes], torch.bfloat16)
    assert isinstance(matrix, Int4Matrix | Int8Matrix)
    return matrix


def torch_s_own(matrix: Int4Matrix | Int8Matrix, x: Tensor) -> Tensor:
    if isinstance(matrix, Int8Matrix):
        return torch._weight_int8pack_mm(torch.nn.functional.pad(x, (0, matrix.q.shape[1] - INPUTS)), matrix.q, matrix.scale)
    return planes.few(planes.widened(x, matrix.packed), matrix.packed, matrix.group, matrix.scales)[:, :OUTPUTS]


@pytest.mark.parametrize("form", ["int4/32", "int4", "int4/128", "int8"])
def test_it_answers_as_near_as_torch_s_own_product_and_always_the_same(form: str, threads: int) -> None:
    matrix = quantized(form)
    truth = matrix.dense().float()
    for n in ROWS:
        x = drawn(n)
        exact = x.float() @ truth.T
        answer, other = matrix.product(x), torch_s_own(matrix, x)
        assert answer.shape == other.shape and answer.dtype is torch.bfloat16
        assert float((answer.float() - exact).abs().max()) <= 1.2 * float((other.float() - exact).abs().max()), (n, threads)
        assert torch.equal(answer, matrix.product(x))


@pytest.mark.parametrize("form", ["int4", "int8"])
def test_a_row_that_is_no_number_spoils_no_other(form: str) -> None:
    x = drawn(9).index_fill_(0, torch.tensor([4]), float("nan"))
    assert quantized(form).product(x).isnan().any(1).tolist() == [row == 4 for row in range(9)]


@pytest.mark.parametrize("form", ["int4", "int8"])
def test_products_of_torch_in_between_change_nothing(form: str) -> None:
    matrix, x, other = quantized(form), drawn(24), drawn(64)
    answer, own = matrix.product(x), other @ other.t()
    for _ in range(3):
        assert torch.equal(other @ other.t(), own)
        assert torch.equal(matrix.product(x), answer)


def test_it_is_what_computes_here() -> None:
    unit = matrix_unit()
    assert unit is not None
    four, eight = quantized("int4"), quantized("int8")
    assert isinstance(four, Int4Matrix) and isinstance(eight, Int8Matrix)
    wide = planes.widened(drawn(64), four.packed)
    assert unit.takes4(wide, four.packed, four.group) == unit.packs
    assert not unit.takes4(wide[:1], four.packed, four.group)
    assert not unit.takes4(wide.float(), four.packed, four.group)
    assert not unit.takes8(drawn(64), eight.q[:, :976]), "inputs are no multiple of what it wants"


def test_it_computes_4_bits_only_where_torch_packs_as_it_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    four, eight = quantized("int4"), quantized("int8")
    assert isinstance(four, Int4Matrix) and isinstance(eight, Int8Matrix)
    monkeypatch.setattr(int4_layout, "block_rows", lambda: 32)
    unit = matrix_unit.__wrapped__()
    assert unit is not None and unit.takes8(drawn(64), eight.q)
    assert not unit.takes4(planes.widened(drawn(64), four.packed), four.packed, four.group)
