"""Sound messages made unsound, and how a call ends that brings them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, replaced, cut out or doubled."""
    made = bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        at, size = rng.randrange(len(made) or 1), rng.randrange(1, 9)
        made[at : at + rng.choice((0, size))] = rng.choice((b"", rng.randbytes(size), b"\xff" * size, made[at : at + size]))
    return bytes(made)


def as_it_is(raw: bytes) -> bytes:
    """In the place of what writes and reads messages."""
    return raw


async def all_of(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


async def drained(call: Any) -> grpc.StatusCode:
    """How a stream ends that nothing more is written to."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        async with asyncio.timeout(60):
            async for _ in call:
                pass
    code: grpc.StatusCode = await call.code()
    return code


async def begun(call: Any, seconds: float) -> grpc.StatusCode:
    """How a stream ends before its first reply; OK where there is one, or none for so long."""
    try:
        async with asyncio.timeout(seconds):
            if await call.read() is not grpc.aio.EOF:
                call.cancel()
                return grpc.StatusCode.OK
    except grpc.aio.AioRpcError as error:
        return error.code()
    except TimeoutError:
        call.cancel()
        return grpc.StatusCode.OK
    code: grpc.StatusCode = await call.code()
    return code
