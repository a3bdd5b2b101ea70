"""A Plan in and out of JSON, each invariant that it must hold, and the prefix hash."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.config import ModelConfig
from swarm.errors import PlacementError
from swarm.plan import ExpertShard, Model, Plan, Route, Stage, WorkerSpec
from swarm.prefix_hash import EMPTY_HASH, extend_hash, prefix_hashes

CONFIG = ModelConfig("MixtralForCausalLM", 64, 128, 4, 4, 2, 16, 8, 2, 100, 512, 1e-5, 1e6, False, "bf16", 1, (2,))
PLAN = Plan(
    epoch=7,
    model=Model("tiny", "nano", "abc", "bf16", CONFIG),
    workers=tuple(WorkerSpec(f"w{i}", "a", "cpu", f"127.0.0.1:{7700 + i}", 1000, 600, 300, 100, 1) for i in range(3)),
    routes=(Route((Stage("w0", 0, 1), Stage("w1", 1, 4))),),
    shards=(ExpertShard("w2", 3, (6, 7)), ExpertShard("w0", 3, (5,))),
    sessions=2,
    context=100,
    notes=("why",),
)


def test_a_plan_survives_json() -> None:
    assert Plan.from_json(PLAN.to_json()) == PLAN


def test_a_plan_says_who_holds_what() -> None:
    assert (PLAN.routes[0].entry, PLAN.routes[0].last) == ("w0", "w1")
    assert PLAN.stage_of("w1") == Stage("w1", 1, 4)
    assert PLAN.stage_of("w2") is None
    assert PLAN.local_experts("w1", 3) == (0, 1, 2, 3, 4)
    assert PLAN.local_experts("w1", 2) == tuple(range(8))
    assert PLAN.local_experts("w2", 3) == (6, 7)
    assert PLAN.local_experts("w2", 0) == ()
    assert PLAN.remote_experts("w1", 3) == {5: "w0", 6: "w2", 7: "w2"}
    assert PLAN.shards_of("w0") == (ExpertShard("w0", 3, (5,)),)
    assert PLAN.kv_pages == 2 * 4
    with pytest.raises(PlacementError, match="no worker w9"):
        PLAN.worker("w9")


def routes(*stages: tuple[str, int, int]) -> dict[str, Any]:
    return {"routes": (Route(tuple(Stage(*s) for s in stages)),)}


def shards(*shards: tuple[str, int, tuple[int, ...]]) -> dict[str, Any]:
    return {"shards": tuple(ExpertShard(*s) for s in shards)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"workers": (*PLAN.workers, PLAN.workers[0])}, "two workers have the same name"),
        ({"workers": (replace(PLAN.workers[0], kv_bytes=301), *PLAN.workers[1:])}, "w0 is planned for 1001 bytes and has 1000"),
        ({"model": replace(PLAN.model, dtype="int3")}, "int3 is no way to keep weights"),
        ({"epoch": -1}, "out of range"),
        ({"sessions": 0}, "out of range"),
        ({"context": 0}, "out of range"),
        ({"page_positions": 0}, "out of range"),
        ({"chunk_rows": 600}, "out of range"),
        ({"in_flight": -1}, "out of range"),
        ({"routes": ()}, "no Route"),
        (routes(("w0", 0, 1), ("w9", 1, 4)), "names the worker w9"),
        (routes(("w0", 0, 1), ("w1", 2, 4)), "do not follow each other at block 1"),
        (routes(("w0", 0, 2), ("w1", 1, 4)), "do not follow each other at block 2"),
        (routes(("w0", 0, 0), ("w1", 0, 4)), "do not follow each other at block 0"),
        (routes(("w0", 1, 1), ("w1", 1, 4)), "do not follow each other at block 0"),
        (routes(("w0", 0, 3)), "cover 3 of 4 blocks"),
        (routes(("w0", 0, 5)), "cover 5 of 4 blocks"),
        (routes(("w0", 0, 1), ("w1", 1, 2), ("w0", 2, 4)), "two Stages"),
        (shards(("w9", 3, (1,))), "names the worker w9"),
        (shards(("w2", 4, (1,))), "of no block"),
        (shards(("w2", -1, (1,))), "of no block"),
        (shards(("w2", 3, ())), "is empty"),
        (shards(("w2", 3, (8,))), "an expert that the model does not have"),
        (shards(("w2", 3, (-1,))), "an expert that the model does not have"),
        (shards(("w1", 3, (1,))), "which its own Stage has"),
        (shards(("w2", 3, (1, 1))), "twice"),
        (shards(("w2", 3, (1,)), ("w2", 3, (1, 2))), "twice"),
    ],
)
def test_each_broken_invariant_is_named(change: dict[str, Any], says: str) -> None:
    broken = replace(PLAN, **change)
    with pytest.raises(PlacementError, match=says):
        broken.check()
    with pytest.raises(PlacementError, match=f"plan.json: .*{says}"):
        Plan.from_json(broken.to_json(), "plan.json")


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(raw: dict[str, Any]) -> None:
        for key in path[:-1]:
            raw = raw[key]
        del raw[path[-1]]

    return change


def having(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw.__setitem__(key, value)


@pytest.mark.parametrize(
    "change",
    [
        *[without("epoch"), without("model"), without("model", "config", "hidden"), without("workers"), without("routes")],
        *[having("model", 3), having("routes", [{}]), having("workers", [{"name": "w0"}]), having("surprise", 1)],
        *[having("epoch", "seven"), having("shards", [3]), having("sessions", None), having("workers", {"w0": 1})],
    ],
)
def test_what_is_no_plan_is_refused_with_where_it_stood(change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads(PLAN.to_json())
    change(raw)
    with pytest.raises(PlacementError, match=r"plan\.json is not a Plan .*swarm plan --out"):
        Plan.from_json(json.dumps(raw), "plan.json")


@given(
    st.text(max_size=30) | st.recursive(st.none() | st.integers(), lambda x: st.lists(x, max_size=3), max_leaves=4).map(json.dumps)
)
def test_no_text_ends_in_anything_but_a_plan_or_a_placement_error(text: str) -> None:
    with pytest.raises(PlacementError):
        Plan.from_json(text)


HASHES = [0x1E535EEDE31428F0, 0xA7EEA4E0CD714D02, 0xC316EC6F03114CF1]


def test_the_prefix_hash_is_the_one_that_other_versions_computed() -> None:
    # Recorded; both ends of a wire must agree, so a change of these is a change of the protocol.
    assert prefix_hashes([]) == [EMPTY_HASH] == [0x9E3779B97F4A7C15]
    assert prefix_hashes([1, 2, 3]) == [EMPTY_HASH, HASHES[0], HASHES[1], HASHES[2]]
    assert prefix_hashes([3], HASHES[1]) == HASHES[1:]


@given(st.lists(st.integers(0, 2**31), max_size=20), st.integers(0, 2**31))
def test_prefix_hashes_continue_where_they_stopped(tokens: list[int], token: int) -> None:
    hashes = prefix_hashes(tokens)
    assert len(hashes) == len(tokens) + 1
    assert prefix_hashes([*tokens, token]) == [*hashes, extend_hash(hashes[-1], token)]
    assert all(0 <= h < 2**64 for h in hashes)


@given(st.lists(st.integers(0, 50), max_size=6), st.lists(st.integers(0, 50), max_size=6))
def test_different_prefixes_have_different_hashes(one: list[int], other: list[int]) -> None:
    assert (prefix_hashes(one)[-1] == prefix_hashes(other)[-1]) == (one == other)
