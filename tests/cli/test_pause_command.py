"""`swarm pause` at a terminal: what it will cost is told, and who does not say yes pauses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fake_swarm import GIB, Door, listening
from typist import CTRL_C, CTRL_D, Typist

from swarm.wire.v1 import swarm_pb2 as pb

KEY = "secret"


class Pausing(Door):
    """A door that writes down what it pauses."""

    def __init__(self) -> None:
        super().__init__({})
        self.paused: list[str] = []

    async def PauseLoss(self, request: pb.PauseRequest, context: Any) -> pb.PauseLossReply:
        return pb.PauseLossReply(
            devices=["gaming-pc/cuda:0"], bytes=11 * GIB, seconds=6.2, tokens_per_s=31.0, tokens_per_s_left=24.2
        )

    async def Pause(self, request: pb.PauseRequest, context: Any) -> AsyncIterator[pb.Progress]:
        self.paused.append(request.rig)
        yield pb.Progress(message="gaming-pc cuda:0 is paused: 11.0 GiB given back", done=True)


def answered(address: str, keys: str) -> tuple[int, str]:
    """Run it, wait for its question, press these keys: exit code, and what appeared then."""
    words = ("pause", "gaming-pc", "--swarm", address, "--key", KEY)
    with Typist("from swarm.cli.main import main; main()", *words) as typist:
        assert "gaming-pc cuda:0: 11.0 GiB free in about 6 s; 31.0 to 24.2 tok/s" in typist.see("pause? [y/N] ")
        typist.type(keys)
        return typist.leave()


async def test_a_pause_asks_first_and_only_yes_is_yes() -> None:
    door = Pausing()
    async with listening(door, KEY) as address:
        for keys, code, said in (("\n", 0, "\nnothing is paused"), (CTRL_D, 0, "\nnothing is paused"), (CTRL_C, 130, "")):
            ended, seen = await asyncio.to_thread(answered, address, keys)
            assert ended == code and said in seen and "Traceback" not in seen, seen
            assert not door.paused
        ended, seen = await asyncio.to_thread(answered, address, "y\n")
        assert ended == 0 and "11.0 GiB given back" in seen
        assert door.paused == ["gaming-pc"]
