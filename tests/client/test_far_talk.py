"""A conversation through a rig, whose end of it is in memory: what comes late is of the answer that it was said of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from swarm.client import far_talk
from swarm.client.far_talk import FarTalk
from swarm.client.talk import Wishes
from swarm.errors import Lost, NoSwarm
from swarm.wire.status import to_rpc
from swarm.wire.v1 import text_pb2 as pb

END = pb.Said(end=pb.End(finish_reason="stop"))


class Rig:
    """What it says, and what was asked of it."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[pb.Said] = asyncio.Queue()
        self.asked: asyncio.Queue[pb.Turn] = asyncio.Queue()

    def Converse(self) -> Rig:
        return self

    async def write(self, turn: pb.Turn) -> None:
        self.asked.put_nowait(turn)

    def cancel(self) -> None:
        """Its stream ends with the test."""

    async def __aiter__(self) -> AsyncIterator[pb.Said]:
        while True:
            yield await self.says.get()

    def say(self, *what: pb.Said | str) -> None:
        for each in what:
            self.says.put_nowait(pb.Said(piece=pb.TextPiece(text=each, token=-1)) if isinstance(each, str) else each)


@pytest.fixture
async def stopped(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Rig, FarTalk]]:
    """A talk whose first answer was stopped, of which the rig has not said the end in time."""
    monkeypatch.setattr(far_talk, "STOP_S", 0.1)
    monkeypatch.setattr(far_talk, "TextServiceStub", lambda channel: rig)
    rig, channel = Rig(), Any
    talk = FarTalk(channel, "attic", Wishes(), print)  # type: ignore[arg-type]
    rig.say(pb.Said(hello=pb.Hello(model="m", model_id="i")))
    await talk.open()
    pieces = talk.ask("first")
    rig.say("one ")
    assert (await anext(pieces)).text == "one "
    await pieces.aclose()
    yield rig, talk
    await talk.close()


async def ask(talk: FarTalk, text: str) -> list[str]:
    async with asyncio.timeout(60):
        return [piece.text async for piece in talk.ask(text)]


async def test_what_is_said_late_of_an_answer_that_was_stopped_is_of_no_other(stopped: tuple[Rig, FarTalk]) -> None:
    rig, talk = stopped
    rig.say("two ", END, "second", END, "third", END)
    assert await ask(talk, "second?") == ["second"] and await ask(talk, "third?") == ["third"]


async def test_an_error_of_an_answer_that_was_stopped_is_none_of_the_next(stopped: tuple[Rig, FarTalk]) -> None:
    rig, talk = stopped
    rig.say(pb.Said(error=to_rpc(NoSwarm("the model was unloaded"))[1]), "second", END)
    assert await ask(talk, "second?") == ["second"]


async def test_a_rig_that_never_ends_it_is_gone(stopped: tuple[Rig, FarTalk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_talk, "HELLO_S", 0.1)
    _, talk = stopped
    with pytest.raises(Lost, match="an answer that was stopped does not end"):
        await ask(talk, "second?")
    assert talk.gone
