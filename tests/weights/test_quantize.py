"""How matrices are quantized: by least error, and said how far off."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from swarm.bits import Form
from swarm.weights.quantize import quantize, rounded

FORMS = ["int4", "int4/32", "int4/128", "int8", "int8/16", "int8/32"]


def drawn(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def error(got: Tensor, w: Tensor) -> float:
    return float((got - w).square().sum() / w.square().sum())


@pytest.mark.parametrize("form", ["int4", "int4/32", "int4/128"])
def test_the_search_leaves_a_smaller_error_than_rounding_in_every_group_size(form: str) -> None:
    w = drawn(64, 512)
    searched, plain = (error(f(w, Form.of(form)).codes.dense(), w) for f in (quantize, rounded))
    assert searched < 0.9 * plain


@pytest.mark.parametrize("form", FORMS)
def test_the_error_that_is_reported_is_the_error_that_was_made(form: str) -> None:
    for columns in (512, 100):
        w = drawn(300, columns)
        made = quantize(w, Form.of(form))
        assert made.error == pytest.approx(error(made.codes.dense(), w), rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_groups_of_equal_weights_and_of_zeros_come_back_as_they_were(form: str) -> None:
    w = torch.cat((torch.zeros(4, 128), torch.full((4, 128), -0.75)))
    assert torch.allclose(quantize(w, Form.of(form)).codes.dense(), w, atol=1e-6)
    assert quantize(torch.zeros(3, 16), Form.of(form)).error == 0.0


def test_more_bits_and_smaller_groups_leave_less_error() -> None:
    w = drawn(64, 512)
    errors = [quantize(w, Form.of(form)).error for form in ("int8/16", "int8/32", "int8", "int4/32", "int4", "int4/128")]
    assert errors == sorted(errors)
