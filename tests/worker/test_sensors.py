"""What a card's sensors say, with the driver's replies made up: none is here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

pytest.importorskip("torch")

from swarm.wire.v1 import worker_pb2 as pb
from swarm.worker.sensors import Reading, Sensors, output_of


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("64, 210.35\n", Reading(64.0, 210.35)),
        ("41, [N/A]\n", Reading(41.0, 0.0)),
        ("[N/A], 12.5\n", Reading(0.0, 12.5)),
        ("nan, -3", Reading()),
        ("", Reading()),
        ("No devices were found\n", Reading()),
    ],
)
def test_what_the_driver_says_is_read_and_what_it_does_not_know_is_left_out(reply: str, read: Reading) -> None:
    assert Reading.of(reply) == read


async def test_a_card_is_asked_beside_and_what_it_said_last_stands_in_the_status() -> None:
    asked: list[Sequence[str]] = []

    async def ask(command: Sequence[str]) -> str:
        asked.append(command)
        return "64, 210.35\n"

    sensors = Sensors("cuda:1", ask, lambda device: f"GPU-of-{device}")
    first, later = pb.WorkerStatus(), pb.WorkerStatus()
    sensors.tell(first)
    async with asyncio.timeout(60):
        while not later.watts:
            await asyncio.sleep(0)
            sensors.tell(later)
    assert (first.temperature_c, first.watts) == (0, 0) and (later.temperature_c, later.watts) == (64, 210.35)
    assert len(asked) == 1 and asked[0][:3] == ("nvidia-smi", "-i", "GPU-of-cuda:1")


async def test_a_cpu_asks_nobody_and_a_driver_that_is_not_there_says_nothing() -> None:
    async def ask(command: Sequence[str]) -> str:
        raise AssertionError("nobody is to be asked")

    sensors, status = Sensors("cpu", ask, str), pb.WorkerStatus()
    sensors.tell(status)
    await asyncio.sleep(0)
    assert status.watts == 0
    assert await output_of(("no-such-program",)) == ""
    assert await output_of(("false",)) == ""
    assert await output_of(("echo", "64, 1")) == "64, 1\n"
