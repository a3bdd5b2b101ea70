"""How matrices are quantized: so that they answer nearly the same, and said how far off."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.bits import Form
from swarm.config import Activation
from swarm.weights.inputs import Inputs, Rehearsal
from swarm.weights.quantize import quantize, rounded

FORMS = ["int4", "int4/32", "int4/128", "int8", "int8/16", "int8/32"]


def drawn(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def error(got: Tensor, w: Tensor) -> float:
    return float((got - w).square().sum() / w.square().sum())


def correlated(rows: int, columns: int) -> Tensor:
    """Inputs that lie together, as a trained model's do."""
    random = torch.Generator().manual_seed(1)
    few = torch.randn(rows, columns // 8, generator=random) @ torch.randn(columns // 8, columns, generator=random)
    return few / few.std() + 0.3 * torch.randn(rows, columns, generator=random)


@pytest.mark.parametrize("form", ["int4", "int4/32", "int4/128"])
def test_what_four_bits_answer_is_much_nearer_than_by_rounding_in_every_group_size(form: str) -> None:
    w, x = drawn(64, 512), correlated(4096, 512)
    inputs = Inputs(x[:2048], 0.1)
    found, plain = (
        error(x[2048:] @ made.codes.dense().t(), x[2048:] @ w.t())
        for made in (quantize(w, Form.of(form), inputs), rounded(w, Form.of(form)))
    )
    assert found < 0.5 * plain


def test_rows_of_a_matrix_tell_what_it_meets() -> None:
    x = correlated(2048, 512)
    w = drawn(64, 2048) @ x  # as training would leave it
    found, plain = (
        error(x @ made.codes.dense().t(), x @ w.t()) for made in (quantize(w, Form.of("int4")), rounded(w, Form.of("int4")))
    )
    assert found < 0.8 * plain


def test_a_matrix_behind_others_is_made_for_what_these_answer() -> None:
    sizes = torch.logspace(-1, 1, 512)[torch.randperm(512, generator=torch.Generator().manual_seed(2))]
    w1, w3, w2 = drawn(512, 256) / 16 * sizes[:, None], drawn(512, 256).flip(0) / 16, drawn(256, 512)
    rehearsal = Rehearsal(Activation())
    rehearsal.see(w1)
    rehearsal.see(w3)
    x = drawn(1024, 256).flip(1)
    met = F.silu(x @ w1.t()) * (x @ w3.t())
    known, own = (
        error(met @ quantize(w2, Form.of("int4"), inputs).codes.dense().t(), met @ w2.t()) for inputs in (rehearsal.gated(), None)
    )
    assert known < 0.9 * own


@pytest.mark.parametrize("form", ["int4", "int8/32"])
def test_codes_are_the_same_whatever_the_number_of_threads(form: str) -> None:
    w, before = drawn(2100, 300), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            rehearsal = Rehearsal()
            rehearsal.see(w)
            assert rehearsal.answers is not None
            inputs = Inputs(torch.cat((rehearsal.answers, rehearsal.answers), 1)[:, :300], 0.1)
            found.append(quantize(w, Form.of(form), inputs).codes)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(getattr(found[0], name), getattr(found[1], name)) for name in ("q", "scale", "zero"))


def test_eight_bits_in_groups_leave_a_smaller_error_than_rounding() -> None:
    w = drawn(64, 512)
    searched, plain = (error(f(w, Form.of("int8/32")).codes.dense(), w) for f in (quantize, rounded))
    assert searched < plain


def test_scales_are_ones_that_the_dtype_of_the_rows_has() -> None:
    codes = quantize(drawn(64, 512), Form.of("int4"), dtype=torch.bfloat16).codes
    assert codes.zero is not None
    assert all(torch.equal(lines, lines.bfloat16().float()) for lines in (codes.scale, codes.zero))


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
