"""Many rows times a matrix on a CPU's matrix unit, beside torch's products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from swarm.model.experts import ExpertWeights, gated
from swarm.model.native import many_rows as module
from swarm.model.native.many_rows import FEWEST, ManyRows, many_rows
from swarm.model.product import product

pytestmark = pytest.mark.skipif(many_rows() is None, reason="this CPU has no matrix unit for bf16, or no C compiler was there")
ROWS = (1, 15, 16, 17, 31, 33, 48, 100, 130)


@pytest.fixture
def many() -> ManyRows:
    found = many_rows()
    assert found is not None
    return found


def drawn(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(torch.bfloat16)


def in_three(x: Tensor, expert: ExpertWeights) -> Tensor:
    gate, up = torch.mm(x, expert.w13.t()).chunk(2, -1)  # type: ignore[union-attr]
    return torch.mm(gated(gate, up, expert.activation), expert.w2.t())  # type: ignore[union-attr]


@pytest.mark.parametrize(("outputs", "columns"), [(32, 32), (96, 1024), (640, 992)])
def test_it_answers_as_near_as_torch_s_own_product_and_always_the_same(
    outputs: int, columns: int, many: ManyRows, threads: int
) -> None:
    w = drawn(outputs, columns)
    for n in ROWS:
        x = drawn(n, columns)
        exact, other, answer = x.float() @ w.float().T, torch.mm(x, w.t()), many.product(x, w)
        assert answer.shape == other.shape and answer.dtype is torch.bfloat16
        assert float((answer.float() - exact).abs().max()) <= 1.2 * float((other.float() - exact).abs().max()), n
        assert torch.equal(answer, many.product(x, w))


def test_an_expert_in_one_call_is_as_near_as_in_three(many: ManyRows, threads: int) -> None:
    expert = ExpertWeights(drawn(1088, 256) / 16, drawn(256, 544) / 16)
    assert isinstance(expert.w13, Tensor) and isinstance(expert.w2, Tensor)
    truth = ExpertWeights(expert.w13.double(), expert.w2.double())
    for n in ROWS:
        x = drawn(n, 256) * 8  # gates far from nothing, on both sides
        exact, answer = truth.forward(x.double()), many.expert(x, expert.w13, expert.w2)
        error = float((in_three(x, expert).double() - exact).abs().max())
        assert float((answer.double() - exact).abs().max()) <= 1.2 * error, n


def test_a_row_is_the_same_beside_any_others_and_on_any_threads(many: ManyRows, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w13, w2 = drawn(100, 256), drawn(1088, 256) / 16, drawn(256, 544) / 16
    before, answers = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        answers += [(many.product(x, w13), many.expert(x, w13, w2))]
    torch.set_num_threads(before)
    some = slice(20, 57)
    answers += [(many.product(x[some], w13), many.expert(x[some], w13, w2))]
    monkeypatch.setattr(module, "MOST_BYTES", 256 * 2 * 48)  # they do not fit, and meet the matrix some at a time
    answers += [(many.product(x, w13), many.expert(x, w13, w2))]
    for one, other in (answers[:2], answers[::3]):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert torch.equal(answers[0][0][some], answers[2][0]) and torch.equal(answers[0][1][some], answers[2][1])


@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
def test_a_row_that_is_no_number_spoils_no_other(wrong: str, many: ManyRows) -> None:
    x = drawn(20, 128)
    x[4, 7] = float(wrong)
    w13, w2 = drawn(512, 128), drawn(128, 256)
    for answer in (many.product(x, w13), many.expert(x, w13, w2)):
        assert answer.isfinite().all(1).tolist() == [row != 4 for row in range(20)]


def test_gates_of_any_size_are_answered(many: ManyRows) -> None:
    w13, w2 = torch.eye(64, dtype=torch.bfloat16).repeat(2, 1), torch.eye(64, dtype=torch.bfloat16)
    x = torch.tensor([-1e30, -200.0, -90.0, -20.0, 0.0, 20.0, 90.0, 1e15]).to(torch.bfloat16).repeat(16, 8)
    exact = torch.nn.functional.silu(x.double()) * x.double()
    assert torch.allclose(many.expert(x, w13, w2).double(), exact, rtol=2**-8, atol=1e-6)


def test_it_is_what_computes_here(many: ManyRows) -> None:
    x, expert = drawn(64, 256), ExpertWeights(drawn(1088, 256), drawn(256, 544))
    assert isinstance(expert.w13, Tensor) and isinstance(expert.w2, Tensor)
    assert torch.equal(product(x, expert.w13), many.product(x, expert.w13))
    assert torch.equal(expert.forward(x), many.expert(x, expert.w13, expert.w2))
    assert not many.takes(x[: FEWEST - 1], expert.w13) and not many.takes(x.float(), expert.w13)
    assert not many.takes(x, expert.w13[:-1]) and not many.takes(drawn(64, 250), drawn(1088, 250))
