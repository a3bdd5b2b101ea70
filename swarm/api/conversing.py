"""One conversation: turns in, what is said to them out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from swarm.api.turns import pieces_of, wishes_of
from swarm.client.client import Client
from swarm.client.plain_format import PlainFormat
from swarm.client.talk import Talk
from swarm.errors import Lost, SwarmError
from swarm.wire.status import to_rpc
from swarm.wire.v1 import text_pb2 as pb

_LOG = logging.getLogger(__name__)
WAITING = 256
"""Messages that wait for who asked to read them; then the answer waits, too."""


async def converse(client: Client, turns: AsyncIterator[pb.Turn], said: asyncio.Queue[pb.Said]) -> None:
    """Answer each turn until there are no more; a turn that comes meanwhile stops the answer before it.

    `heard` has the token ids that the client knows, as `Began` says.
    """
    model, form = client.plan.model, await asyncio.to_thread(lambda: client.chat_format)  # which reads the tokenizer first
    plain = isinstance(form, PlainFormat)
    await said.put(pb.Said(hello=pb.Hello(model=model.name, plain=plain, model_id=model.model_id)))
    talk: Talk | None = None
    heard: list[int] = []
    answering: asyncio.Task[None] | None = None
    try:
        async for turn in turns:
            if answering and talk:
                await _stop(talk, answering, said)
            answering = None
            try:
                talk = talk or Talk(client, wishes_of(turn.options))
            except SwarmError as error:
                await said.put(pb.Said(error=to_rpc(error)[1]))
                continue
            if turn.WhichOneof("what") not in (None, "stop"):
                answering = asyncio.create_task(_answer(talk, turn, heard, said))
        if answering:
            await answering
    finally:
        await _to_its_end(asyncio.create_task(_give_back(talk, answering)))


async def _give_back(talk: Talk | None, answering: asyncio.Task[None] | None) -> None:
    if answering:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
    if talk:
        await talk.close()


async def _to_its_end(task: asyncio.Task[None]) -> None:
    """Wait for a task whatever cancels meanwhile: who hangs up cancels twice, as the reader of turns and as their call."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()


async def _stop(talk: Talk, answering: asyncio.Task[None], said: asyncio.Queue[pb.Said]) -> None:
    answering.cancel()
    await asyncio.wait({answering})
    if answering.cancelled():
        await said.put(pb.Said(end=_end(talk)))
    else:
        answering.result()


async def _answer(talk: Talk, turn: pb.Turn, heard: list[int], said: asyncio.Queue[pb.Said]) -> None:
    first = True
    try:
        async for piece in pieces_of(talk, turn):
            if first:
                await said.put(_began(talk, heard))
                heard[:], first = talk.prompt, False
            await said.put(pb.Said(piece=pb.TextPiece(text=piece.text, token=piece.token, logprob=piece.logprob)))
            heard += [piece.token] if piece.token >= 0 else []
    except SwarmError as error:
        await said.put(pb.Said(error=to_rpc(error)[1]))
    except Exception as error:  # noqa: BLE001  (who asked would wait for ever)
        _LOG.exception("an answer failed")
        await said.put(pb.Said(error=to_rpc(Lost(f"the rig failed to answer ({type(error).__name__}): look at `swarm logs`"))[1]))
    else:
        await said.put(pb.Said(end=_end(talk)))


def _began(talk: Talk, heard: list[int]) -> pb.Said:
    """What stands before the answer, as far as the client has not heard of it."""
    pairs = enumerate(zip(heard, talk.prompt, strict=False))
    kept = next((at for at, (old, new) in pairs if old != new), min(len(heard), len(talk.prompt)))
    return pb.Said(began=pb.Began(kept=kept, tokens=talk.prompt[kept:]))


def _end(talk: Talk) -> pb.End:
    answer = talk.answer
    return pb.End(
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
        cached_tokens=answer.cached_tokens,
        ttft_s=answer.ttft_s,
        tokens_per_s=answer.tokens_per_s,
        traversals=answer.traversals,
        drafted=answer.drafted,
        kept=answer.kept,
        calls=[pb.Call(id=call.id, name=call.name, arguments=call.arguments) for call in talk.calls],
    )
