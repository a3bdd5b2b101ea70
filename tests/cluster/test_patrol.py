"""Which answers that fail or come late make a Worker a lost one, and which say nothing."""

from __future__ import annotations

import asyncio
import time

import pytest
from fake_worker import FakeWorker

from cluster import patrol
from cluster.patrol import MISSES, Patrol
from cluster.roster import Device, DeviceOffer
from swarm.errors import Expired, NoSwarm, SwarmError
from swarm.wire.v1 import worker_pb2 as pb

LATE = Expired("no answer in time")
GONE = NoSwarm("nobody listens there")


class Answering(FakeWorker):
    """Answers a question for its Status with the next of these errors, and truly when there is none left."""

    def __init__(self, *errors: SwarmError) -> None:
        super().__init__("w0")
        self.errors = list(errors)

    async def status(self, timeout_s: float) -> pb.WorkerStatus:
        if self.errors:
            raise self.errors.pop(0)
        return await super().status(timeout_s)


def device(*errors: SwarmError) -> Device:
    return Device("a/cpu", "a", "a", DeviceOffer("cpu", 1, "a:7700"), agent=Answering(*errors))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patrol, "AGAIN_S", 0.0)


async def test_one_who_is_late_so_many_times_in_a_row_is_lost_and_comes_back_with_its_next_answer() -> None:
    changes: list[bool] = []
    worker = device(*[LATE] * MISSES)
    watch = Patrol(lambda: [worker], lambda: changes.append(worker.silent))
    for missed in range(1, MISSES):
        await watch.look(worker)
        assert worker.misses == missed and not worker.silent
    await watch.look(worker)
    await watch.look(worker)
    assert changes == [True, False] and not worker.out


@pytest.mark.parametrize("errors", [[LATE], [GONE, LATE]], ids=["late", "of another connection"])
async def test_of_whom_somebody_waited_for_in_vain_one_late_answer_is_enough_and_of_others_many_are_not(
    errors: list[SwarmError],
) -> None:
    suspected, other = device(*errors), device(*errors * 2 * MISSES)
    other.name = "b/cpu"
    watch = Patrol(lambda: [suspected, other], lambda: None)
    for _ in range(2 * MISSES):
        watch.suspect("a/cpu")
        await asyncio.sleep(0.05)
    assert suspected.silent
    assert not other.silent and not other.misses


async def test_who_hung_up_and_then_is_late_is_not_said_to_be_gone() -> None:
    worker = device(GONE, LATE)
    await Patrol(lambda: [worker], lambda: None).look(worker)
    assert not worker.silent and worker.misses == 1
    worker = device(GONE, GONE)
    await Patrol(lambda: [worker], lambda: None).look(worker)
    assert worker.silent and "gone" in worker.out


async def test_who_has_another_agent_by_the_second_look_is_not_said_to_be_gone() -> None:
    worker = device(GONE)

    class GivenUp(FakeWorker):
        async def status(self, timeout_s: float) -> pb.WorkerStatus:
            worker.agent = Answering()
            raise GONE

    look = asyncio.create_task(Patrol(lambda: [worker], lambda: None).look(worker))
    await asyncio.sleep(0)
    worker.agent = GivenUp("w0")
    await look
    assert not worker.silent


async def test_another_process_with_the_same_pid_is_known_by_its_age() -> None:
    worker = device()
    assert isinstance(worker.agent, Answering)
    watch = Patrol(lambda: [worker], lambda: None)
    worker.agent.started -= 100.0
    await watch.look(worker)
    worker.epochs = {7}
    worker.agent.started += 0.5  # an answer that was overtaken
    await watch.look(worker)
    assert worker.epochs == {7}
    worker.agent.started = time.monotonic()
    await watch.look(worker)
    assert worker.epochs == set()


async def test_who_is_asked_what_it_holds_is_asked_until_it_answers_or_is_lost() -> None:
    worker = device(LATE, LATE)
    await Patrol(lambda: [worker], lambda: None).hear(worker)
    assert worker.status and not worker.misses
    worker = device(*[LATE] * 9)
    await Patrol(lambda: [worker], lambda: None).hear(worker)
    assert worker.silent and worker.status is None
