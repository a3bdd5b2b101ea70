"""What no rig has is fetched before a Plan is prepared, and what that looks like; Workers in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fake_worker import GIB, FakeWorker, of_the_hub
from memory_swarm import NEED, Swarm, offer

from cluster.fetch_plan import Survey
from cluster.target import Progress, Target
from swarm.errors import MissingWeights, NoRoom, NoSwarm

OTHER = Target("other", "fp32", sessions=1, context=64, spread=True)


async def two_rigs(swarm: Swarm, a: Survey, b: Survey) -> tuple[FakeWorker, FakeWorker]:
    """Their Workers, which share a model now, and say this of the next one."""
    await swarm.coordinator.join(offer("a", 4 * NEED, spread=True))
    await swarm.coordinator.join(offer("b", 4 * NEED))
    assert swarm.used() == {"a/cpu", "b/cpu"}
    workers = swarm.agents.workers["a:7700"], swarm.agents.workers["b:7700"]
    for worker, weights in zip(workers, (a, b), strict=True):
        worker.weights = weights
    swarm.agents.orders.clear()
    return workers


async def load(swarm: Swarm) -> list[Progress]:
    return [progress async for progress in swarm.coordinator.change(lambda _: OTHER)]


def files(swarm: Swarm) -> list[str]:
    return sorted(order for order in swarm.agents.orders if "fetch" in order)


async def test_each_rig_fetches_its_files_before_any_worker_loads(swarm: Swarm) -> None:
    a, b = await two_rigs(swarm, of_the_hub("1", "2"), of_the_hub("2", "3"))
    await load(swarm)
    assert swarm.used() == {"a/cpu", "b/cpu"}
    kinds = [order.split()[1] for order in swarm.agents.orders]
    assert max(i for i, k in enumerate(kinds) if k == "fetch") < kinds.index("prepare")
    assert sorted(name for order in files(swarm) for name in order.split()[2:]) == ["1", "2", "3"]
    rigs = {peer.rig: peer.files for peer in a.peers if peer.files}
    assert rigs.keys() == {"b"} and "3" in rigs["b"]
    assert {peer.rig for peer in b.peers} == {"a"}


async def test_while_files_come_the_status_says_how_far_each_rig_is(swarm: Swarm) -> None:
    a, _ = await two_rigs(swarm, of_the_hub("1", "2"), of_the_hub("3"))
    a.hold_fetch.clear()
    loading = asyncio.create_task(load(swarm))
    await swarm.seen(lambda: "a 2.0 GiB of 2.0 GiB, 1.0 MB/s" in swarm.coordinator.status()["activity"])
    (coming,) = [c for c in swarm.coordinator.status()["fetching"] if c["rig"] == "a"]
    assert (coming["files"], coming["done_bytes"], coming["total_bytes"]) == (["1", "2"], 2 * GIB, 2 * GIB)
    assert (coming["folder"], coming["free_bytes"], coming["bytes_per_s"]) == ("/hub", 100 * GIB, 1_000_000)
    assert "a fetches 2 files, 2.0 GiB, from the Hub into /hub (100.0 GiB free)" in swarm.coordinator.status()["sources"]
    a.hold_fetch.set()
    await loading
    assert swarm.coordinator.status()["fetching"] == []
    assert "a fetches 2 files, 2.0 GiB, from the Hub into /hub (100.0 GiB free)" in swarm.coordinator.status()["sources"]


async def test_what_a_rig_could_not_fetch_after_all_another_fetches(swarm: Swarm) -> None:
    _, b = await two_rigs(swarm, of_the_hub("1"), of_the_hub("3"))
    b.fail_fetch = MissingWeights("the Hub does not let us have it")
    await load(swarm)
    assert swarm.used() == {"a/cpu", "b/cpu"}
    assert "a/cpu: fetch 3" in files(swarm)
    assert any("3" in peer.files for peer in b.peers)


async def test_a_rig_whose_neighbour_was_away_while_it_fetched_for_both_is_not_left_out(swarm: Swarm) -> None:
    """One that joins again gives its Agent up under the order."""
    for rig, weights in (("a", of_the_hub(held="2")), ("b", of_the_hub("1", trouble="no internet"))):
        worker = swarm.agents.workers[f"{rig}:7700"] = FakeWorker(f"{rig}/cpu", swarm.agents.orders)
        worker.weights = weights
    fetching = swarm.agents.workers["a:7700"]
    fetching.fail_fetch = NoSwarm("worker a/cpu has another agent now")
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    joining = asyncio.create_task(swarm.coordinator.join(offer("b", NEED * 3 // 4)))
    await swarm.seen(lambda: files(swarm))
    fetching.fail_fetch = None
    await asyncio.wait({joining})
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    await swarm.until(lambda p: p.plan is not None)
    assert swarm.used() == {"a/cpu", "b/cpu"}


async def test_a_load_says_what_each_rig_fetches_and_one_without_room_is_refused_before_a_byte(swarm: Swarm) -> None:
    a, b = await two_rigs(swarm, of_the_hub("1", "2", free=GIB), of_the_hub("3", free=GIB // 2))
    old = swarm.plan
    with pytest.raises(NoRoom, match=r"a needs 2\.0 GiB in /hub .* has 1\.0 GiB free"):
        await load(swarm)
    assert files(swarm) == [] and swarm.plan == old
    a.weights, b.weights = (replace(w.weights, free_bytes=10 * GIB) for w in (a, b))
    said = await load(swarm)
    assert any("from the Hub into /hub" in line for progress in said for line in progress.lines)
    assert swarm.plan.model.name == "other"


async def test_a_head_that_cannot_have_the_model_says_why_when_it_joins(swarm: Swarm) -> None:
    worker = swarm.agents.workers["a:7700"] = FakeWorker("a/cpu", swarm.agents.orders)
    worker.weights = of_the_hub("1", trouble="the Hub gives it only to those it knows")
    with pytest.raises(MissingWeights, match="a: the Hub gives it only to those it knows"):
        await swarm.coordinator.join(offer("a", 2 * NEED))
