"""Who asks whether somebody is there does not take its own pauses for somebody's silence."""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio
import pytest

from swarm.wire.presence import ask_presence

SILENT = grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata())


async def test_who_does_not_answer_is_not_there() -> None:
    async def nobody(seconds: float) -> None:
        raise SILENT

    with pytest.raises(grpc.aio.AioRpcError):
        await ask_presence(nobody, 0.1)


async def test_what_came_too_late_while_this_loop_stood_still_is_asked_again_for_as_long() -> None:
    asked: list[float] = []

    async def late(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 1:
            await asyncio.sleep(0)  # so that the clock ticks
            time.sleep(0.5)  # what is tested is a loop that stands still
            raise SILENT

    await ask_presence(late, 0.2)
    assert len(asked) == 2 and asked[0] == 0.2 and asked[1] > 0.2


async def test_a_loop_that_stands_still_again_and_again_does_not_ask_for_ever() -> None:
    asked: list[float] = []

    async def late(seconds: float) -> None:
        asked.append(seconds)
        await asyncio.sleep(0)
        time.sleep(0.3)
        raise SILENT

    with pytest.raises(grpc.aio.AioRpcError):
        await ask_presence(late, 0.2)
    assert len(asked) == 3
