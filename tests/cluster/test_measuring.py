"""Devices and links are measured before they are planned on, and again while nobody talks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_worker import CONFIG, MIB, MODELS, SPEED, FakeWorker, serve
from memory_swarm import NEED, TARGET, Swarm, offer

from cluster import measuring
from cluster.agents import LinkOrder, WorkerAgent
from cluster.coordinator import Coordinator
from cluster.hardware.detect import GPU_MARGIN_BYTES
from cluster.measurements import Figures, LinkFigures, Measurements, Shape
from cluster.memo import Memo
from cluster.planner.hardware import Link, Speed
from cluster.roster import ROOM_STEP_BYTES, Device, DeviceOffer
from cluster.target import Target
from swarm.errors import DeviceError, Full, Unreachable
from swarm.plan import Model
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import worker_pb2

SHAPE = Shape("fp32", CONFIG.hidden, CONFIG.ffn)
HALF = Model("half", "half", "id-half", "bf16", replace(CONFIG, dtype="bf16"))
SLOW = Speed.of(5e9, 100e9, 10e-6, 4)


def worker(swarm: Swarm, rig: str, place: int = 0) -> FakeWorker:
    """The Worker that a Rig will bring."""
    name = f"{rig}/cpu"
    return swarm.agents.workers.setdefault(f"{rig}:{7700 + place}", FakeWorker(name, swarm.agents.orders))


def entry(swarm: Swarm, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(w for w in swarm.coordinator.status()["workers"] if w["name"] == name)
    return found


async def looked(swarm: Swarm, true: Callable[[dict[str, Any]], bool]) -> None:
    """Have the Coordinator look until it sees something of the first Worker."""

    def there() -> bool:
        swarm.coordinator.report_failure("")
        return true(swarm.coordinator.status()["workers"][0])

    await swarm.seen(there)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LOOK_S", 0.02)


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model that was published in bf16."""
    monkeypatch.setitem(MODELS, "half", HALF)
    yield


async def test_a_device_is_measured_once_in_the_models_dtype_before_it_is_planned_on(swarm: Swarm) -> None:
    one = worker(swarm, "a")
    one.hold_measure.clear()
    joining = asyncio.create_task(swarm.coordinator.join(offer("a", NEED + MIB)))
    await swarm.until(lambda p: "measuring a/cpu" in p.waiting)
    assert swarm.agents.orders == []
    one.hold_measure.set()
    await joining
    assert swarm.stages() == {"a/cpu": (0, 8)} and one.measured == ["fp32"]
    await swarm.coordinator.join(offer("a", NEED + MIB))
    assert one.measured == ["fp32"]


async def test_status_says_what_was_measured_while_the_model_does_not_fit_yet(swarm: Swarm) -> None:
    published = await swarm.coordinator.join(offer("a", NEED // 2))
    assert published.plan is None
    assert entry(swarm, "a/cpu")["measured"]["bandwidth_gb_s"] == round(SPEED.bandwidth / 1e9, 2)


async def test_a_join_waits_for_nobody_elses_measuring(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED + MIB))
    worker(swarm, "b").hold_measure.clear()
    slow = asyncio.create_task(swarm.coordinator.join(offer("b", NEED)))
    await swarm.seen(lambda: worker(swarm, "b").measured)
    assert swarm.coordinator.status()["activity"] == "measuring b/cpu"
    joined = asyncio.create_task(swarm.coordinator.join(offer("c", NEED, spread=True)))
    await swarm.until(lambda p: p.plan is not None and "c/cpu" in {w.name for w in p.plan.workers})
    assert not slow.done()
    worker(swarm, "b").hold_measure.set()
    await asyncio.gather(slow, joined)


async def test_devices_that_share_cores_are_measured_one_after_the_other(swarm: Swarm) -> None:
    first, second = worker(swarm, "a"), worker(swarm, "a", 1)
    first.hold_measure.clear()
    joining = asyncio.create_task(swarm.coordinator.join(offer("a", NEED, NEED)))
    await swarm.seen(lambda: first.measured)
    assert second.measured == []
    first.hold_measure.set()
    await joining
    assert second.measured == ["fp32"]


async def test_a_device_that_cannot_be_measured_is_left_out_and_says_why(swarm: Swarm) -> None:
    worker(swarm, "b").fail_measure = DeviceError("CUDA error: an illegal instruction was encountered")
    await swarm.coordinator.join(offer("a", NEED + MIB))
    await swarm.coordinator.join(offer("b", 2 * NEED, spread=True))
    assert swarm.stages() == {"a/cpu": (0, 8)}
    assert "cannot be measured: CUDA error" in str(entry(swarm, "b/cpu")["out"])


async def test_a_worker_that_serves_is_measured_as_soon_as_it_has_time_and_keeps_its_plan_until_then(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "REFUSALS", 2**31)
    await swarm.coordinator.join(offer("a", NEED + MIB))
    before = swarm.plan
    worker(swarm, "a").fail_measure = Full("a/cpu serves")
    await swarm.again(TARGET, restarted=True)
    await swarm.coordinator.join(offer("a", NEED + MIB))
    assert swarm.plan.epoch == before.epoch and entry(swarm, "a/cpu")["measured"] is None
    worker(swarm, "a").fail_measure = None
    await swarm.seen(lambda: entry(swarm, "a/cpu")["measured"] is not None)
    assert swarm.plan.epoch == before.epoch


async def test_a_head_that_is_started_anew_plans_on_what_serves_without_a_pause_as_it_was_measured_before(
    swarm: Swarm, tmp_path: Path
) -> None:
    await swarm.coordinator.join(offer("a", NEED + MIB))
    (tmp_path / "measured.json").write_text(swarm.coordinator.measurements.to_json())
    worker(swarm, "a").fail_measure = Full("a/cpu serves")
    await swarm.coordinator.stop()
    book = Memo(tmp_path / "target.json").measurements(forget=True)
    target = replace(TARGET, spread=True)
    swarm.coordinator = Coordinator(target, swarm.agents, "b", lambda: swarm.now, swarm.remembered.append, True, book)
    await swarm.coordinator.start()
    await swarm.coordinator.join(offer("b", NEED + MIB))
    await swarm.coordinator.join(offer("a", NEED + MIB))
    await swarm.until(lambda published: published.plan is not None and len(published.plan.workers) == 2)


async def test_a_worker_that_serves_without_a_pause_and_was_never_measured_is_measured_beside_that(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED + MIB))
    worker(swarm, "a").fail_measure = Full("a/cpu serves")
    await swarm.again(replace(TARGET, spread=True), restarted=True)
    await swarm.coordinator.join(offer("a", NEED + MIB))
    await swarm.coordinator.join(offer("b", NEED + MIB))
    await swarm.until(lambda published: published.plan is not None and len(published.plan.workers) == 2)
    assert worker(swarm, "a").measured.count("fp32") > measuring.REFUSALS


async def test_links_between_rigs_and_inside_them_are_measured_and_shown(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED, NEED))
    await swarm.coordinator.join(offer("b", NEED))
    assert worker(swarm, "a").measured[1:] == ["a:7701 beside"] and worker(swarm, "b").measured[1:] == ["a:7700"]
    shown = {tuple(link["between"]): (link["rtt_ms"], link["gbit_s"]) for link in swarm.coordinator.status()["links"]}
    assert shown == {("a", "a"): (0.5, 0.8), ("a", "b"): (0.5, 0.8)}


async def test_a_link_that_cannot_be_had_is_named_in_the_notes(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED + MIB))
    worker(swarm, "b").link = Unreachable("b/cpu cannot reach a:7700: open its ports")
    await swarm.coordinator.join(offer("b", NEED))
    assert any("open its ports" in note for note in swarm.plan.notes)


async def test_what_was_measured_survives_a_restart(swarm: Swarm, tmp_path: Path) -> None:
    await swarm.coordinator.join(offer("a", NEED, NEED))
    book = swarm.coordinator.measurements
    memo, speed = Memo(tmp_path / "target.json"), replace(SPEED, several_start_s=3e-5)
    kept = memo.measurements(forget=False)
    for key, shape in ((d, SHAPE) for d in ("x", "y")):
        kept.took(key, shape, Figures(speed, ("fp32",), 7.0))
    kept.took_link("a", "b", LinkFigures(Link(1e-3, 1e8), at=7.0))
    again = memo.measurements(forget=False)
    assert again.exact("x", SHAPE) == Figures(speed, ("fp32",), 7.0) and again.link("b", "a") == kept.link("a", "b")
    assert memo.measurements(forget=True).exact("x", SHAPE) is None
    assert Measurements(book.to_json()).to_json() == book.to_json()
    (tmp_path / "measured.json").write_text("{")
    assert memo.measurements(forget=False).exact("x", SHAPE) is None


async def test_nothing_is_measured_again_while_somebody_talks(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED, NEED))
    first = worker(swarm, "a")
    first.sessions = 1
    await looked(swarm, lambda w: w["sessions"] == 1)
    count = len(first.measured)
    for _ in range(3):
        swarm.now += measuring.AGAIN_S
        await asyncio.sleep(0.06)
    assert len(first.measured) == count
    first.sessions = 0
    await looked(swarm, lambda w: w["sessions"] == 0)
    swarm.now += measuring.IDLE_S
    await swarm.seen(lambda: "a:7701 beside" in first.measured[count:])


async def test_an_unused_device_is_measured_again_when_the_swarm_is_idle(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED + MIB))
    await swarm.coordinator.join(offer("b", NEED))
    unused = worker(swarm, "b")
    unused.speed = SLOW
    await looked(swarm, lambda w: w["memory"]["weights_bytes"] > 0)
    swarm.now += measuring.AGAIN_S
    await swarm.seen(lambda: unused.measured.count("fp32") == 2)
    await swarm.seen(lambda: any("b cpu reads 4.0 times slower" in note for note in swarm.plan.notes))
    unused.speed = SPEED
    swarm.now += measuring.IDLE_S
    await swarm.seen(lambda: not any("slower" in note for note in swarm.plan.notes))


async def test_a_device_that_serves_slower_than_it_did_is_named_and_priced(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED + MIB))
    one = worker(swarm, "a")
    for times in (1, 1, 1, 2, 2, 2):
        one.serves(rows=10, seconds_a_byte=1e-10 * times)
        seen = one.looked_at
        swarm.coordinator.report_failure("a/cpu")  # look now
        await swarm.seen(lambda seen=seen: one.looked_at > seen)  # type: ignore[misc]
    await swarm.seen(lambda: any("a cpu reads 2.0 times slower than it did" in note for note in swarm.plan.notes))
    measured = entry(swarm, "a/cpu")["measured"]
    assert isinstance(measured, dict) and measured["slowed"] == 2.0


async def test_with_auto_a_device_without_bf16_makes_it_fp16_on_all(swarm: Swarm, half: None) -> None:
    worker(swarm, "b").dtypes = ("fp16", "fp32")
    await swarm.again(Target("half", "auto", 1, 64), restarted=False)
    await swarm.coordinator.join(offer("a", 2 * NEED, spread=True))
    assert swarm.plan.model.dtype == "bf16"
    await swarm.coordinator.join(offer("b", 2 * NEED))
    assert swarm.plan.model.dtype == "fp16" and swarm.used() == {"a/cpu", "b/cpu"}
    [_ async for _ in swarm.coordinator.leave("b")]
    assert swarm.plan.model.dtype == "fp16"
    [_ async for _ in swarm.coordinator.change(lambda _: Target("half", "auto", 1, 64))]
    assert swarm.plan.model.dtype == "bf16"


async def test_a_dtype_that_was_asked_for_leaves_out_a_device_that_lacks_it(swarm: Swarm, half: None) -> None:
    worker(swarm, "b").dtypes = ("fp16", "fp32")
    await swarm.again(Target("half", "bf16", 1, 64), restarted=False)
    await swarm.coordinator.join(offer("a", 2 * NEED))
    await swarm.coordinator.join(offer("b", 2 * NEED, spread=True))
    assert swarm.plan.model.dtype == "bf16" and swarm.used() == {"a/cpu"}
    assert any("b cpu is left out: it has no bf16" in note for note in swarm.plan.notes)
    assert "no bf16" in str(entry(swarm, "b/cpu")["out"]) and "no bf16" in swarm.coordinator.left_out("b")[0]


async def test_another_model_is_measured_in_its_own_shape_before_it_is_planned(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 8 * NEED))
    [_ async for _ in swarm.coordinator.change(lambda _: Target("other", "fp32", 1, 64))]
    assert worker(swarm, "a").measured == ["fp32", "fp32"]


async def test_a_model_that_comes_while_its_workers_serve_is_planned_with_the_figures_there_are(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 8 * NEED))
    worker(swarm, "a").fail_measure = Full("a/cpu serves")
    [_ async for _ in swarm.coordinator.change(lambda _: Target("other", "fp32", 1, 64))]
    assert swarm.plan.model.name == "other"


async def test_objective_and_standby_are_kept_and_shown(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", 8 * NEED))
    [_ async for _ in swarm.coordinator.change(lambda _: replace(TARGET, objective="latency", standby=True))]
    status = swarm.coordinator.status()
    assert (status["objective"], status["standby"]) == ("latency", True)
    assert swarm.remembered[-1].objective == "latency" and swarm.remembered[-1].standby


async def test_a_device_that_lacks_a_dtype_is_measured_in_the_one_it_has() -> None:
    there = FakeWorker("b/cpu")
    there.dtypes = ("fp16", "fp32")
    server, address = await serve(there, Credentials("k"))
    agent = WorkerAgent(Credentials("k"), address, "b/cpu")
    figures = await agent.measure(replace(SHAPE, dtype="bf16"))
    assert (figures.speed, figures.dtypes, there.measured) == (SPEED, ("fp16", "fp32"), ["bf16", "fp16"])
    there.link = Link(0.2e-3, 100e6, calls_rtt_s=0.5e-3)
    assert await agent.measure_link(LinkOrder("a:7700", 0.1, "a/cpu")) == there.link
    assert there.measured[-1] == "a:7700 beside"
    await agent.close()
    await server.stop(None)


async def test_without_room_for_standby_copies_the_swarm_serves_and_says_so(swarm: Swarm) -> None:
    await swarm.again(replace(TARGET, standby=True), restarted=False)
    await swarm.coordinator.join(offer("a", NEED + MIB))
    assert not swarm.plan.standbys and any("no standby copies" in note for note in swarm.plan.notes)
    await swarm.coordinator.join(offer("b", 2 * NEED))
    assert {s.worker for s in swarm.plan.standbys} == {"b/cpu"} or {s.worker for s in swarm.plan.standbys} == {"a/cpu"}
    assert not any("no standby copies" in note for note in swarm.plan.notes)


async def test_a_card_that_somebody_else_fills_is_planned_with_what_is_free_on_it(swarm: Swarm) -> None:
    worker(swarm, "a").free_bytes = GPU_MARGIN_BYTES + 3 * ROOM_STEP_BYTES + MIB
    card = replace(offer("a", 8 * ROOM_STEP_BYTES), devices=(DeviceOffer("cuda:0", 8 * ROOM_STEP_BYTES, "a:7700"),))
    await swarm.coordinator.join(card)
    assert [w.memory_bytes for w in swarm.plan.workers] == [3 * ROOM_STEP_BYTES]


def test_what_a_worker_holds_itself_counts_as_free_on_its_card() -> None:
    device = Device("a/cuda:0", "a", "a", DeviceOffer("cuda:0", 8 * ROOM_STEP_BYTES, "a:7700"))
    device.status = worker_pb2.WorkerStatus(weights_bytes=2 * ROOM_STEP_BYTES, kv_bytes=ROOM_STEP_BYTES)
    device.found_free(GPU_MARGIN_BYTES + 2 * ROOM_STEP_BYTES)
    assert device.spec.memory_bytes == 5 * ROOM_STEP_BYTES
    device.found_free(GPU_MARGIN_BYTES + 2 * ROOM_STEP_BYTES - MIB)
    assert device.spec.memory_bytes == 5 * ROOM_STEP_BYTES, "noise is no news"
    device.found_free(9 * ROOM_STEP_BYTES)
    assert device.spec.memory_bytes == 8 * ROOM_STEP_BYTES, "no more than it was offered with"
    device.found_free(MIB)
    assert device.spec.memory_bytes == ROOM_STEP_BYTES, "what is left free is no room for a Plan"


async def test_a_device_that_is_full_of_what_it_serves_is_not_left_out_for_that(swarm: Swarm) -> None:
    await swarm.coordinator.join(offer("a", NEED))
    first, before = worker(swarm, "a"), swarm.plan
    count = len(first.measured)
    for times in (1, 1, 1, 2, 2, 2):  # it is slow, which is looked at again
        first.serves(rows=10, seconds_a_byte=1e-10 * times)
        seen = first.looked_at
        swarm.coordinator.report_failure("a/cpu")
        await swarm.seen(lambda seen=seen: first.looked_at > seen)  # type: ignore[misc]
    first.fail_measure = DeviceError("cuda:0 ran out of memory")
    swarm.now += measuring.AGAIN_S
    await swarm.seen(lambda: len(first.measured) > count)
    await swarm.coordinator.join(offer("b", MIB))
    assert swarm.plan.workers == before.workers and not any(w["out"] for w in swarm.coordinator.status()["workers"])


def test_two_measurements_that_differ_by_noise_are_one() -> None:
    book = Measurements()
    assert book.took("a", SHAPE, Figures(SPEED, ("fp32",), 1.0))
    noisy = replace(SPEED, products=tuple((rows, 1.1 * each) for rows, each in SPEED.products))
    assert not book.took("a", SHAPE, Figures(noisy, ("fp32",), 2.0))
    assert book.exact("a", SHAPE) == Figures(SPEED, ("fp32",), 2.0)
    assert book.took("a", SHAPE, Figures(SLOW, ("fp32",), 3.0))


def test_without_a_measurement_in_a_shape_the_nearest_one_serves() -> None:
    book = Measurements()
    assert book.figures("a", SHAPE) is None
    book.took("a", replace(SHAPE, dtype="bf16"), Figures(SLOW, ("fp32",)))
    book.took("a", replace(SHAPE, ffn=7), Figures(SPEED, ("fp32",)))
    assert book.figures("a", SHAPE) == Figures(SPEED, ("fp32",))
    assert book.figures("a", replace(SHAPE, dtype="fp16")) == Figures(SLOW, ("fp32",))
