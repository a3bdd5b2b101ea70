"""`--dtype auto`: the checkpoint's own where the model fits in it, else fewer and fewer bits; and it stays what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fake_worker import CONFIG, MIB, MODELS, FakeWorker
from memory_swarm import Swarm, offer

from cluster.auto_dtype import LESSER, best_fitting, ladder, why_fewer
from cluster.planner import Load, needed_bytes
from cluster.planner.hardware import Hardware, Measured, Speed
from cluster.target import Target
from swarm.plan import Model, WorkerSpec

WIDE = Model("wide", "wide", "id-wide", "bf16", replace(CONFIG, ffn=4096, dtype="bf16"))
LOAD = Load(1, 64)
AUTO = Target("wide", "auto", 1, 64)
NEEDS = {dtype: needed_bytes(replace(WIDE, dtype=dtype), LOAD) for dtype in ("bf16", *LESSER)}
ALL = ("fp32", "fp16", "bf16", "int8", "int4")


def devices(*sizes: int) -> Hardware:
    speed = Speed.of(20e9, 500e9, 10e-6, 2)
    return Hardware(tuple(Measured(WorkerSpec(f"a/cpu:{n}", "a", "cpu", f"a:{n}", size), speed) for n, size in enumerate(sizes)))


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model whose weights are nearly all of it."""
    monkeypatch.setitem(MODELS, "wide", WIDE)
    yield


@pytest.mark.parametrize("dtype", NEEDS)
def test_the_first_dtype_that_fits_is_taken(dtype: str) -> None:
    ways = [(model, devices(NEEDS[dtype])) for model in ladder(WIDE, "bf16")]
    assert best_fitting(ways, LOAD).dtype == dtype


def test_where_none_fits_it_is_the_least_that_is_missed() -> None:
    ways = [(model, devices(NEEDS["int4/128"] - MIB)) for model in ladder(WIDE, "bf16")]
    assert best_fitting(ways, LOAD).dtype == "int4/128"


def test_why_it_is_less_is_said_with_both_sizes() -> None:
    ways = [(model, devices(NEEDS["int4"])) for model in ladder(WIDE, "bf16")]
    need, have = NEEDS["bf16"] / MIB, NEEDS["int4"] / MIB
    assert why_fewer(ways[:4], LOAD) == f"int4: bf16 needs {need:.1f} MiB, the swarm has {have:.1f} MiB"
    assert why_fewer(ways[:1], LOAD) == ""


def able(swarm: Swarm, rig: str) -> FakeWorker:
    worker = swarm.agents.workers.setdefault(f"{rig}:7700", FakeWorker(f"{rig}/cpu", swarm.agents.orders))
    worker.dtypes = ALL
    return worker


async def test_what_fits_only_in_int8_is_measured_and_served_in_int8_and_stays_so_until_it_is_loaded_again(swarm: Swarm) -> None:
    first = able(swarm, "a")
    able(swarm, "b")
    await swarm.again(AUTO, restarted=False)
    await swarm.coordinator.join(offer("a", NEEDS["int8"]))
    assert swarm.plan.model.dtype == "int8" and first.measured == ["bf16", "int8"]
    assert any(note.startswith("int8: bf16 needs ") for note in swarm.plan.notes)
    await swarm.coordinator.join(offer("b", NEEDS["bf16"] + MIB))
    assert swarm.plan.model.dtype == "int8"
    assert any(note.startswith("int8: bf16 would fit now, `swarm load wide`") for note in swarm.plan.notes)
    [_ async for _ in swarm.coordinator.change(lambda _: AUTO)]
    assert swarm.plan.model.dtype == "bf16"
    assert not any("int8" in note for note in swarm.plan.notes)


async def test_a_swarm_that_shrinks_waits_and_says_in_which_dtype_it_could_go_on(swarm: Swarm) -> None:
    able(swarm, "a")
    able(swarm, "b")
    await swarm.again(AUTO, restarted=False)
    await swarm.coordinator.join(offer("a", NEEDS["int8"]))
    [_ async for _ in swarm.coordinator.change(lambda _: AUTO)]
    await swarm.coordinator.join(offer("b", NEEDS["bf16"] + MIB))
    [_ async for _ in swarm.coordinator.change(lambda _: AUTO)]
    assert swarm.plan.model.dtype == "bf16"
    [_ async for _ in swarm.coordinator.leave("b")]
    published = await swarm.until(lambda p: "would fit" in p.waiting)
    assert published.plan is None and "in int8 it would fit: `swarm load wide`" in published.waiting
    [_ async for _ in swarm.coordinator.change(lambda _: AUTO)]
    assert swarm.plan.model.dtype == "int8"


async def test_a_restarted_coordinator_takes_the_plan_over_in_the_dtype_that_it_has(swarm: Swarm) -> None:
    able(swarm, "a")
    await swarm.again(AUTO, restarted=False)
    await swarm.coordinator.join(offer("a", NEEDS["int8"]))
    before = swarm.plan
    await swarm.again(AUTO, restarted=True)
    await swarm.coordinator.join(offer("a", NEEDS["int8"]))
    assert swarm.plan == before


async def test_what_fits_in_no_dtype_waits_for_what_the_least_one_needs(swarm: Swarm) -> None:
    able(swarm, "a")
    await swarm.again(AUTO, restarted=False)
    await swarm.coordinator.join(offer("a", NEEDS["int4/128"] - MIB))
    published = await swarm.until(lambda p: p.waiting.startswith("needs"))
    assert published.waiting.startswith(f"needs {NEEDS['int4/128'] / MIB:.1f} MiB even in int4/128, has ")
