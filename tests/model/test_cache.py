"""Pages: reserved, grown, given back, and without influence on the numbers."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from swarm.config import ModelConfig
from swarm.model.cache import PagedCache
from swarm.model.pages import Pages
from swarm.model.rows import Rows, Segment


def config(heads: int = 4, kv_heads: int = 2, head_dim: int = 8) -> ModelConfig:
    return ModelConfig(
        "MixtralForCausalLM", 32, 32, 4, heads, kv_heads, head_dim, 4, 2, 64, 4096, 1e-5, 1e6, False, "fp32", 1, (2,)
    )  # fmt: skip


def cache(pages: int = 8, dtype: torch.dtype = torch.float32, page: int = 4, **shape: int) -> PagedCache:
    made = PagedCache(config(**shape), pages, page, dtype)
    made.add_block(0)
    made.add_block(3)
    return made


def fill(made: PagedCache, session: bytes, position: int, count: int, block: int = 0) -> None:
    x = torch.ones(count, 2, 8)
    made.append(block, Rows.of([Segment(session, 0, count, position)]), x, x)


def test_a_reservation_takes_whole_pages_and_is_refused_without_a_trace_when_too_few_are_free() -> None:
    made = cache(pages=8)
    assert made.reserve(b"a", 17)
    assert made.free_pages == 3
    assert not made.reserve(b"b", 13)
    assert made.free_pages == 3
    assert made.reserve(b"b", 12)
    assert made.free_pages == 0


def test_release_gives_every_page_back_and_forgets_the_session() -> None:
    made = cache()
    made.reserve(b"a", 9)
    fill(made, b"a", 0, 5)
    made.release(b"a")
    made.release(b"never seen")
    assert made.free_pages == 8
    made.reserve(b"a", 9)
    with pytest.raises(AssertionError, match="holes"):
        fill(made, b"a", 5, 1)


def test_a_reservation_that_grows_keeps_what_it_holds() -> None:
    made = cache()
    made.reserve(b"a", 8)
    made.reserve(b"b", 4)  # in the way, so that what is added cannot lie side by side
    k = torch.randn(6, 2, 8)
    made.append(0, Rows.of([Segment(b"a", 0, 6, 0)]), k, k)
    q = torch.randn(1, 4, 8)
    assert made.reserve(b"a", 20)
    assert not made.reserve(b"a", 30)
    assert made.free_pages == 2
    one = torch.randn(1, 2, 8)
    made.append(0, Rows.of([Segment(b"a", 0, 1, 6)]), one, one)
    seen = made.attend(0, Rows.of([Segment(b"a", 0, 1, 6)]), q)
    torch.testing.assert_close(seen, plain_attention(q, torch.cat((k, one)), torch.cat((k, one)), 6))


def test_a_session_may_be_written_again_from_any_position_it_holds_and_none_beyond() -> None:
    made = cache()
    made.reserve(b"a", 20)
    fill(made, b"a", 0, 12)
    fill(made, b"a", 4, 2)
    with pytest.raises(AssertionError, match="holes"):
        fill(made, b"a", 7, 1)
    fill(made, b"a", 6, 1)


def test_a_dropped_block_is_forgotten_and_its_memory_given_back() -> None:
    made = cache()
    made.reserve(b"a", 8)
    fill(made, b"a", 0, 4, block=0)
    fill(made, b"a", 0, 4, block=3)
    before = made.num_bytes
    made.drop_block(3)
    assert (made.blocks, made.num_bytes) == ((0,), before // 2)
    made.add_block(3)
    fill(made, b"a", 4, 1, block=0)
    with pytest.raises(AssertionError, match="holes"):
        fill(made, b"a", 4, 1, block=3)


def test_pages_lie_side_by_side_where_there_is_room_for_it() -> None:
    pages = Pages(10)
    a, b, c = pages.take(2), pages.take(3), pages.take(2)
    assert (a, b, c) == ([0, 1], [2, 3, 4], [5, 6])
    pages.give(b)
    assert pages.take(3, after=1) == [2, 3, 4]
    pages.give([2, 3, 4])
    assert pages.take(3) == [2, 3, 4]  # the smallest run that holds them
    pages.give([0, 1])
    assert pages.take(5) == [7, 8, 9, 0, 1]
    assert pages.take(1) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.integers(0, 12)), max_size=60))
@settings(max_examples=80, deadline=None)
def test_no_page_is_given_twice_and_none_is_lost(moves: list[tuple[bool, int, int]]) -> None:
    pages, held = Pages(24), {name: [] for name in range(8)}
    for take, name, count in moves:
        if take:
            got = pages.take(count, held[name][-1] if held[name] else None)
            assert (got is None) == (count > 24 - sum(map(len, held.values())))
            held[name] += got or []
        else:
            pages.give(held[name])
            held[name] = []
        everything = [page for mine in held.values() for page in mine]
        assert len(set(everything)) == len(everything) == 24 - pages.free
    for mine in held.values():
        pages.give(mine)
    assert pages.take(24) == list(range(24))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, position: int) -> Tensor:
    """[n, NH, D] by the definition, in fp64."""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.double().repeat_interleave(groups, 1).transpose(0, 1) for x in (k, v))
    scores = q.double().transpose(0, 1) @ k.transpose(1, 2) / q.shape[2] ** 0.5
    seen = torch.ones(scores.shape[1:], dtype=torch.bool).tril(position)
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).transpose(0, 1).to(q.dtype)


def holes(made: PagedCache, pages: int) -> None:
    """Leave only every other page free."""
    for page in range(pages):
        made.reserve(b"%d" % page, made.page_positions)
    for page in range(0, pages, 2):
        made.release(b"%d" % page)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(4, 2, 8), (3, 1, 10), (16, 4, 64), (8, 8, 32)], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_which_pages_a_session_got_changes_no_bit(shape: tuple[int, int, int], dtype: torch.dtype, threads: int) -> None:
    torch.set_num_threads(threads)
    heads, kv_heads, head_dim = shape
    made = [cache(pages=64, dtype=dtype, page=32, heads=heads, kv_heads=kv_heads, head_dim=head_dim) for _ in range(3)]
    holes(made[1], 64)
    made[2].reserve(b"before", 32 * 7)
    for one in made:
        assert one.reserve(b"s", 400)
    generator, at = torch.Generator().manual_seed(0), 0
    for count in (1, 5, 1, 63, 1, 200, 30, 1, 1):
        q = torch.randn(count, heads, head_dim, generator=generator).to(dtype)
        k, v = (torch.randn(count, kv_heads, head_dim, generator=generator).to(dtype) for _ in range(2))
        rows = Rows.of([Segment(b"s", 0, count, at)])
        for one in made:
            one.append(0, rows, k, v)
        want, *others = [one.attend(0, rows, q) for one in made]
        assert all(torch.equal(other, want) for other in others)
        at += count


def test_attention_is_the_definition_for_many_sessions_on_scattered_pages() -> None:
    generator, dice = torch.Generator().manual_seed(1), random.Random(1)
    made = cache(pages=40, page=4)
    holes(made, 20)
    names = [b"x", b"y", b"z"]
    kv: dict[bytes, tuple[Tensor, Tensor]] = {name: (torch.empty(0, 2, 8), torch.empty(0, 2, 8)) for name in names}
    for name in names:
        assert made.reserve(name, 36)
    for _ in range(5):
        segments, at = [], 0
        for name in dice.sample(names, dice.randint(1, 3)):
            count = dice.choice([1, 1, 3, 7])
            segments.append(Segment(name, at, at + count, len(kv[name][0])))
            at += count
        q = torch.randn(at, 4, 8, generator=generator)
        k, v = (torch.randn(at, 2, 8, generator=generator) for _ in range(2))
        rows = Rows.of(segments)
        made.append(3, rows, k, v)
        got = made.attend(3, rows, q)
        for s in segments:
            kv[s.session] = tuple(torch.cat((old, x[s.start : s.end])) for old, x in zip(kv[s.session], (k, v), strict=True))
            want = plain_attention(q[s.start : s.end], *kv[s.session], s.position)
            torch.testing.assert_close(got[s.start : s.end], want)


def test_where_pages_lie_is_known_although_a_block_of_another_plan_comes_at_that_moment() -> None:
    class Cleared(dict):  # type: ignore[type-arg]
        def __setitem__(self, key: object, value: object) -> None:
            """As if the loop's thread cleared it at once."""

    config = ModelConfig("MixtralForCausalLM", 32, 32, 1, 4, 2, 32, 4, 2, 64, 4096, 1e-5, 1e6, False, "bf16", 1, (2,))
    cache = PagedCache(config, 4, 4, torch.bfloat16)
    cache.add_block(0)
    cache._kept = Cleared()
    assert cache._addresses((0,)) is not None
