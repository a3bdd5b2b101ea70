"""Matrices in few bits: their products, at every width, height and row count."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from swarm.bits import Form
from swarm.model.native.compiled import compiled
from swarm.model.quant import planes
from swarm.model.quant.int4 import FEW_ROWS
from swarm.model.quant.int4_layout import pack
from swarm.model.quant.matrix import matrix_of
from swarm.model.quant.ordered import Ordered
from swarm.model.quant.stacked import Stacked
from swarm.weights.codes import MIDDLE, Codes
from swarm.weights.quantize import quantize

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
FORMS = ["int4", "int4/32", "int4/128", "int8", "int8/16", "int8/32"]
ROW_COUNTS = [1, 2, 7, 8, 12, 13, 16, 17, FEW_ROWS, FEW_ROWS + 1]


def drawn(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def made(rows: int, columns: int, form: str, seed: int = 0) -> Codes:
    return quantize(drawn(rows, columns, seed), Form.of(form)).codes


def meant(codes: Codes) -> Tensor:
    """What the codes mean, in fp32, a weight at a time from the formula."""
    w, middle = torch.empty(codes.q.shape), MIDDLE[codes.form.kind]
    for j in range(w.shape[1]):
        group = j // codes.form.group if codes.form.group else 0
        zero = codes.zero[:, group] if codes.zero is not None else 0.0
        w[:, j if codes.order is None else int(codes.order[j])] = (codes.q[:, j].float() - middle) * codes.scale[:, group] + zero
    return w


def far(answer: Tensor, truth: Tensor) -> float:
    """The greatest error, beside the size of what was summed up."""
    return float((answer.float() - truth).abs().max() / truth.square().mean().sqrt().clamp(min=truth.new_tensor(1.0)))


def check(codes: Codes, dtype: torch.dtype) -> None:
    matrix, truth = matrix_of([codes], dtype), meant(codes)
    for n in ROW_COUNTS:
        x = drawn(n, codes.q.shape[1], seed=n).to(dtype)
        answer = matrix.product(x)
        assert answer.shape == (n, codes.q.shape[0])
        assert answer.dtype == dtype
        assert far(answer, x.float() @ truth.T) < (2e-5 if dtype is torch.float32 else 1e-1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_products_are_those_of_the_codes_at_every_height(form: str, dtype: torch.dtype) -> None:
    for rows in (1, 15, 16, 17, 33, 48, 63, 64, 65, 80, 112, 129, 257, 336):
        check(made(rows, 256, form), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_products_are_those_of_the_codes_at_every_odd_width(form: str, dtype: torch.dtype) -> None:
    for columns in (*range(1, 36, 2), 2, 16, 34, 63, 65, 127, 129, 191):
        check(made(24, columns, form), dtype)


@pytest.mark.parametrize("form", FORMS)
def test_in_fp32_what_is_unpacked_is_what_the_codes_mean(form: str) -> None:
    codes = made(208, 320, form)
    assert far(matrix_of([codes], torch.float32).dense(), meant(codes)) < 2e-6
    assert far(matrix_of([codes], torch.bfloat16).dense(), meant(codes)) < 2**-5
    assert far(codes.dense(), meant(codes)) < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_inputs_in_another_order_meet_their_own_columns(form: str) -> None:
    order = torch.randperm(128, generator=torch.Generator().manual_seed(1))
    codes = made(48, 128, form)
    turned = Codes(codes.q, codes.scale, codes.zero, codes.form, order)
    assert not torch.equal(meant(turned), meant(codes))
    check(turned, torch.float32)
    check(turned, torch.bfloat16)
    assert far(turned.dense(), meant(turned)) < 1e-6
    assert far(matrix_of([turned], torch.float32).dense(), meant(turned)) < 2e-6


def test_neighbours_of_one_form_are_one_matrix_and_others_stay_apart() -> None:
    q, k, v = made(32, 128, "int4/32"), made(16, 128, "int4/32", 1), made(16, 128, "int8/16", 2)
    mixed = matrix_of([q, k, v], torch.float32)
    assert isinstance(mixed, Stacked) and len(mixed.parts) == 2
    x = drawn(5, 128)
    assert far(mixed.product(x), x @ torch.cat([meant(c) for c in (q, k, v)]).T) < 2e-5
    assert mixed.shape == (64, 128)
    order = torch.arange(128).flip(0)
    turned = [Codes(c.q, c.scale, c.zero, c.form, order.clone()) for c in (q, k)]
    assert isinstance(matrix_of(turned, torch.float32), Ordered)
    assert isinstance(matrix_of([q, turned[1]], torch.float32), Stacked)


@pytest.mark.parametrize("form", FORMS)
def test_a_quantized_matrix_weighs_what_the_plan_counts(form: str) -> None:
    assert matrix_of([made(256, 512, form)], torch.bfloat16).num_bytes == Form.of(form).matrix_bytes(256, 512)


@pytest.mark.parametrize("rows", [16, 48, 1024, 1040, 1104, 2048, 3088])
def test_packing_some_rows_at_a_time_changes_no_byte(rows: int) -> None:
    q = torch.randint(0, 16, (rows, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(rows))
    at_once = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q.to(torch.int32), 1)
    assert torch.equal(pack(q), at_once)


@pytest.mark.skipif(compiled() is None, reason="no C compiler was there when swarm was installed")
@pytest.mark.parametrize("form", [form for form in FORMS if form != "int8"])
def test_what_is_compiled_unpacks_to_the_same_bits(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = [matrix_of([made(rows, columns, form)], torch.bfloat16) for rows, columns in ((640, 256), (100, 192), (257, 1000))]
    quick = [matrix.dense() for matrix in matrices]
    monkeypatch.setattr(planes, "compiled", lambda: None)
    assert all(torch.equal(dense, matrix.dense()) for dense, matrix in zip(quick, matrices, strict=True))


@pytest.mark.parametrize("inference", [False, True])
def test_threads_that_share_the_tiles_change_no_bit(inference: bool) -> None:
    codes, before = made(1100, 128, "int4/32"), torch.get_num_threads()
    answers = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.inference_mode(inference):
                x = drawn(FEW_ROWS + 1, 128).to(torch.bfloat16)
                answers.append(matrix_of([codes], torch.bfloat16).product(x))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*answers)
    assert far(answers[0], x.float() @ meant(codes).T) < 1e-1
