"""4-bit and 8-bit matrices: their products, at every width and row count, and how they are made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from swarm.model.quant.int4 import FEW_ROWS, Int4Matrix
from swarm.model.quant.int8 import Int8Matrix
from swarm.weights.quantize import Codes, quantize_int4, quantize_int8, rounded_int4

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ROW_COUNTS = [1, 3, FEW_ROWS, FEW_ROWS + 1, 40]


def drawn(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def dense(codes: Codes) -> Tensor:
    """What the codes mean, in fp32, computed from the formula."""
    q = codes.q.float().view(*codes.scale.shape, codes.group)
    return ((q - 8) * codes.scale.unsqueeze(-1) + codes.zero.unsqueeze(-1)).flatten(1)


def far(answer: Tensor, truth: Tensor) -> float:
    """The greatest error, beside the size of what was summed up."""
    return float((answer.float() - truth).abs().max() / truth.square().mean().sqrt().clamp(min=truth.new_tensor(1.0)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 33, 48, 63, 64, 65, 80, 112, 129, 192])
def test_int4_products_are_those_of_the_codes_at_every_height(rows: int, group: int, dtype: torch.dtype) -> None:
    codes = quantize_int4(drawn(rows, 2 * group), group)
    matrix = Int4Matrix.of(codes.q, codes.scale, codes.zero, group, dtype)
    for n in ROW_COUNTS:
        x = drawn(n, 2 * group, seed=n).to(dtype)
        answer = matrix.product(x)
        assert answer.shape == (n, rows)
        assert answer.dtype == dtype
        assert far(answer, x.float() @ dense(codes).T) < (2e-5 if dtype is torch.float32 else 1e-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [*range(1, 40), 63, 65, 127])
def test_int8_products_are_right_at_every_odd_width(columns: int, dtype: torch.dtype) -> None:
    q, scale = quantize_int8(drawn(24, columns))
    matrix = Int8Matrix.of(q, scale, dtype)
    for n in ROW_COUNTS:
        x = drawn(n, columns, seed=n).to(dtype)
        assert far(matrix.product(x), x.float() @ (q * scale.unsqueeze(1)).T) < (2e-5 if dtype is torch.float32 else 1e-1)


def test_what_is_unpacked_is_what_was_packed_but_for_the_rounding_of_the_scales() -> None:
    codes = quantize_int4(drawn(208, 256), 64)
    exact = Int4Matrix.of(codes.q, codes.scale, codes.zero, 64, torch.float32)
    assert far(exact.dense(), dense(codes)) < 1e-6
    rounded = Int4Matrix.of(codes.q, codes.scale, codes.zero, 64, torch.bfloat16)
    assert far(rounded.dense(), dense(codes)) < 2**-6


def test_the_search_leaves_a_smaller_error_than_rounding_in_every_group_size() -> None:
    w = drawn(64, 512)
    for group in (32, 64, 128):
        searched, rounded = ((dense(f(w, group)) - w).square().mean() for f in (quantize_int4, rounded_int4))
        assert searched < 0.9 * rounded


def test_groups_of_equal_weights_and_of_zeros_come_back_as_they_were() -> None:
    w = torch.cat((torch.zeros(4, 64), torch.full((4, 64), -0.75)), 1)
    assert torch.equal(dense(quantize_int4(w, 64)), w)
    q, scale = quantize_int8(torch.zeros(3, 16))
    assert torch.equal(q * scale.unsqueeze(1), torch.zeros(3, 16))


def test_a_quantized_matrix_weighs_what_the_plan_counts() -> None:
    codes = quantize_int4(drawn(256, 512), 64)
    assert Int4Matrix.of(codes.q, codes.scale, codes.zero, 64, torch.bfloat16).num_bytes == 256 * (512 // 2 + 4 * 512 // 64)
    assert Int8Matrix.of(*quantize_int8(drawn(256, 512)), torch.bfloat16).num_bytes == 256 * (512 + 2)
