"""A row that is alone goes through all Blocks of a Stage in one call, with the bits that it has Block by Block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from swarm.model.cache import PagedCache
from swarm.model.kv import Numbers
from swarm.model.native.halves import halves
from swarm.model.rope import Angles
from swarm.model.rows import Rows, Segment
from swarm.model.stage import Stage

pytestmark = pytest.mark.skipif(halves() is None, reason="this CPU has no AVX2, or no C compiler was there")
POSITION = 11


@pytest.fixture
def model(nano: Callable[[torch.dtype], Any]) -> Any:
    return nano(torch.bfloat16)


def prompted(model: Any, stage: Stage) -> PagedCache:
    """A cache in which a Session holds some positions."""
    cache: PagedCache = model.cache()
    assert cache.reserve(b"s", POSITION + 3)
    stage.forward(stage.embed(range(5, 5 + POSITION)), Rows.of([Segment(b"s", 0, POSITION, 0)]), cache)
    return cache


def one(position: int) -> Rows:
    return Rows.of([Segment(b"s", 0, 1, position)])


def kept(cache: PagedCache) -> list[Tensor]:
    """The only Session's keys and values: its pages are the first."""
    parts = [part for block in cache.blocks for part in (cache._pools[block].keys, cache._pools[block].values)]
    return [part.data.flatten(0, 1)[: POSITION + 3] for part in parts if isinstance(part, Numbers)]


def test_the_bits_the_pages_and_the_counts_are_those_of_block_by_block(model: Any, threads: int) -> None:
    stage, other = model.stage(0, model.config.num_blocks), model.stage(0, model.config.num_blocks)
    assert stage._alone is not None
    caches = prompted(model, stage), prompted(model, other)
    for number in range(3):
        rows, h = one(POSITION + number), stage.embed([7 + number])
        angles = Angles.of(rows.positions, model.config.head_dim, model.config.rope_theta, model.config.rope)
        at_once = stage.forward(h, rows, caches[0])
        for index in sorted(other.blocks):
            h = other.blocks[index].forward(h, caches[1].laid(rows), angles, caches[1])
        assert torch.equal(at_once, h)
    assert all(torch.equal(a, b) for a, b in zip(kept(caches[0]), kept(caches[1]), strict=True))
    assert [b.moe.counts for b in stage.blocks.values()] == [b.moe.counts for b in other.blocks.values()]
    assert sum(stage.blocks[0].moe.counts) == (POSITION + 3) * model.config.top_k


def test_what_is_more_urgent_is_done_before_each_block_and_may_end_it(model: Any) -> None:
    stage = model.stage(0, model.config.num_blocks)
    cache, asked = prompted(model, stage), list[int]()

    def urgent() -> None:
        asked.append(len(asked))
        if len(asked) > model.config.num_blocks + 1:
            raise KeyboardInterrupt

    h = stage.embed([7])
    stage.forward(h, one(POSITION), cache, urgent)
    assert asked == list(range(model.config.num_blocks))
    with pytest.raises(KeyboardInterrupt):
        stage.forward(h, one(POSITION + 1), cache, urgent)
    assert len(asked) == model.config.num_blocks + 2


def test_pages_that_moved_are_the_ones_that_are_written(model: Any) -> None:
    stage = model.stage(0, model.config.num_blocks)
    cache, h = prompted(model, stage), stage.embed([7])
    answer = stage.forward(h, one(POSITION), cache)
    for block in cache.blocks:
        before = kept(cache)  # not given back yet, so that the new ones are elsewhere
        cache.drop_block(block)
        cache.add_block(block)
        del before
    again = Rows.of([Segment(b"s", 0, POSITION, 0)])
    stage.forward(stage.embed(range(5, 5 + POSITION)), again, cache)
    assert torch.equal(stage.forward(h, one(POSITION), cache), answer)


def test_one_expert_that_is_elsewhere_or_kv_in_few_bits_goes_block_by_block(model: Any) -> None:
    stage = model.stage(0, model.config.num_blocks)
    first = stage.blocks[0]
    assert first.few is not None
    away = replace(first, few=replace(first.few, alone=frozenset({1})))
    assert replace(stage, blocks={**stage.blocks, 0: away})._alone is None
    few = model.cache(kept_as="int8")
    assert few.reserve(b"s", 1) and few.places_in(stage._order, few.laid(one(0))) is None
    assert torch.isfinite(stage.forward(stage.embed([7]), one(0), few)).all()
