"""Promise 2: where Blocks and experts sit changes no bit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from swarm.config import LOGIT_ROWS
from swarm.model.experts import LocalExperts
from swarm.model.rows import Rows, Segment

DTYPES = [torch.float32, torch.bfloat16]


def a_conversation(swarm) -> list[Tensor]:
    """Prefill, chunks with history, decode, and mixes of all three, for three Sessions."""
    generator = torch.Generator().manual_seed(5)
    texts = {name: torch.randint(3, 3000, (90,), generator=generator).tolist() for name in (b"a", b"b", b"c")}
    at = dict.fromkeys(texts, 0)
    out = []
    for name in texts:
        swarm.reserve(name, 90)
    for call in ({b"a": 37}, {b"a": 1}, {b"b": 16, b"a": 1}, {b"a": 1, b"b": 1}, {b"c": 40, b"b": 9, b"a": 3}, {b"c": 1}):
        out.append(swarm.step(*((name, at[name], texts[name][at[name] : at[name] + n]) for name, n in call.items())))
        at = {name: at[name] + call.get(name, 0) for name in at}
    return out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_one_two_and_eight_stages_and_far_experts_give_the_same_bits(nano, swarm_of, far_experts, dtype, threads) -> None:
    torch.set_num_threads(threads)
    weights = nano(dtype)
    local, far = LocalExperts(weights.experts), far_experts(weights.experts)
    other = far_experts(weights.experts)
    splits = {
        "two stages": swarm_of(weights, [3, 8]),
        "eight stages": swarm_of(weights, list(range(1, 9))),
        "odd experts far": swarm_of(weights, [8], lambda b, e: far if e % 2 else local),
        "all experts far, at two workers": swarm_of(weights, [5, 8], lambda b, e: far if e < 3 else other),
        "one block's experts far": swarm_of(weights, [2, 8], lambda b, e: far if b == 4 and e in (0, 7) else local),
    }
    want = a_conversation(swarm_of(weights, [8]))
    for name, swarm in splits.items():
        for got, wanted in zip(a_conversation(swarm), want, strict=True):
            assert torch.equal(got, wanted), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_logits_in_slices_are_the_logits_at_once(nano, dtype) -> None:
    stage = nano(dtype).stage(7, 8)
    h = torch.randn(2 * LOGIT_ROWS + 9, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
    slices = [stage.logits(h[at : at + LOGIT_ROWS]) for at in range(0, len(h), LOGIT_ROWS)]
    assert torch.equal(torch.cat(slices), stage.logits(h))
    assert stage.logits(h).dtype == dtype


def test_a_token_alone_is_embedded_as_beside_others(nano) -> None:
    stage = nano(torch.bfloat16).stage(0, 1)
    together = stage.embed([5, 2900, 5, 7])
    assert torch.equal(torch.cat([stage.embed([token]) for token in (5, 2900, 5, 7)]), together)


def test_other_work_is_offered_before_each_block(nano) -> None:
    weights = nano(torch.float32)
    stage, cache, offered = weights.stage(2, 7), weights.cache(), []
    cache.reserve(b"s", 1)
    written: list[int] = []
    append = cache.append
    cache.append = lambda block, *rest: (written.append(block), append(block, *rest))
    stage.forward(torch.zeros(1, 256), Rows.of([Segment(b"s", 0, 1, 0)]), cache, lambda: offered.append(len(written)))
    assert offered == [0, 1, 2, 3, 4]
    assert written == [2, 3, 4, 5, 6]


def test_kv_of_a_block_outlives_the_stage_that_made_it(nano, swarm_of) -> None:
    weights = nano(torch.float32)
    swarm = swarm_of(weights, [8])
    swarm.reserve(b"s", 20)
    swarm.step((b"s", 0, list(range(10, 20))))
    want = swarm.step((b"s", 10, [20]))
    resplit = [weights.stage(a, b) for a, b in pairwise([0, 5, 8])]
    rows = Rows.of([Segment(b"s", 0, 1, 10)])
    h = resplit[0].embed([20])
    for stage in resplit:
        h = stage.forward(h, rows, swarm.caches[0])
    assert torch.equal(resplit[-1].logits(h), want)
