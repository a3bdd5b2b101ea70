"""Attention of many rows in bf16, compiled, beside torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.attend import attend
from swarm.model.native.many_queries import FEWEST, ManyQueries, many_queries

pytestmark = pytest.mark.skipif(many_queries() is None, reason="this CPU has no products of pairs, or nothing was compiled")
HEADS, KV_HEADS = 6, 3


@pytest.fixture
def many() -> ManyQueries:
    found = many_queries()
    assert found is not None
    return found


def drawn(rows: int, heads: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, heads, dim, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


def asked(rows: int, position: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries with other heads between them, keys and values."""
    q = drawn(rows, HEADS + 2, dim)[:, :HEADS]
    return q, drawn(position + rows, KV_HEADS, dim, seed=1), drawn(position + rows, KV_HEADS, dim, seed=2)


def torch_s_own(q: Tensor, keys: Tensor, values: Tensor, position: int) -> Tensor:
    mask = torch.ones(q.shape[0], keys.shape[0], dtype=torch.bool).tril(position)
    q, keys, values = (x.transpose(0, 1).unsqueeze(0) for x in (q, keys, values))
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)


@pytest.mark.parametrize("dim", [32, 64, 128])
@pytest.mark.parametrize(("rows", "position"), [(16, 0), (33, 0), (48, 1), (47, 16), (70, 200)])
def test_it_answers_as_near_as_torch_s_own(rows: int, position: int, dim: int, many: ManyQueries, threads: int) -> None:
    q, keys, values = asked(rows, position, dim)
    exact = torch_s_own(q.double(), keys.double(), values.double(), position)
    answer, other = many.attend(q, keys, values, position), torch_s_own(q, keys, values, position)
    assert float((answer.double() - exact).norm()) <= 1.1 * float((other.double() - exact).norm())


def test_a_row_is_the_same_in_any_chunk_and_on_any_threads(many: ManyQueries) -> None:
    q, keys, values = asked(100, 30, 64)
    before, answers = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        answers.append(many.attend(q, keys, values, 30))
    torch.set_num_threads(before)
    assert torch.equal(*answers)
    assert torch.equal(answers[0][37:60], many.attend(q[37:60], keys[:90], values[:90], 67))


def test_scores_of_any_size_are_answered(many: ManyQueries) -> None:
    q, keys, values = asked(20, 40, 32)
    largest = many.attend(q * 1024, keys * 1024, values, 40)
    assert largest.isfinite().all()
    best = torch_s_own(q.double() * 1024, keys.double() * 1024, values.double(), 40)
    assert torch.allclose(largest.double(), best, rtol=2**-6, atol=1e-3)


def test_what_is_no_number_reaches_those_that_see_it_and_no_row_of_another_block(many: ManyQueries) -> None:
    q, keys, values = asked(64, 0, 32)
    q[5, 1, 3] = float("nan")
    assert many.attend(q, keys, values, 0).isnan().flatten(1).any(1).nonzero().flatten().tolist() == [5]
    q, keys, values = asked(64, 0, 32)
    keys[40, 2, 1] = float("nan")
    spoilt = many.attend(q, keys, values, 0).isnan().flatten(1).any(1)
    assert spoilt[40:].all() and not spoilt[:40].any()


def test_it_is_what_computes_here(many: ManyQueries) -> None:
    q, keys, values = asked(64, 10, 32)
    assert torch.equal(attend(q, keys, values, 10), many.attend(q, keys, values, 10))
    assert torch.equal(attend(q, keys, values, 10, window=74), many.attend(q, keys, values, 10)), "a window that holds all"
    assert not torch.equal(attend(q, keys, values, 10, window=20), many.attend(q, keys, values, 10))
    assert not many.takes(q[: FEWEST - 1], keys, values) and not many.takes(q.float(), keys, values)
