"""One conversation: turns in, what is said to them out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from swarm.client.client import Client
from swarm.client.conversation import Piece
from swarm.client.plain_format import PlainFormat
from swarm.client.talk import Talk, Wishes
from swarm.client.tools import read_tools
from swarm.errors import SwarmError, UsageError
from swarm.wire.status import to_rpc
from swarm.wire.v1 import text_pb2 as pb

WAITING = 256
"""Messages that wait for who asked to read them; then the answer waits, too."""


async def converse(client: Client, turns: AsyncIterator[pb.Turn], said: asyncio.Queue[pb.Said]) -> None:
    """Answer each turn until there are no more; a turn that comes meanwhile stops the answer before it."""
    await said.put(pb.Said(hello=pb.Hello(model=client.plan.model.name, plain=isinstance(client.chat_format, PlainFormat))))
    talk: Talk | None = None
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
                answering = asyncio.create_task(_answer(talk, turn, said))
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


def wishes_of(options: pb.Options) -> Wishes:
    """How to answer. Raises UsageError for tools that are none."""
    o = options
    return Wishes(
        system=o.system or None,
        temperature=o.temperature if o.HasField("temperature") else None,
        top_p=o.top_p if o.HasField("top_p") else None,
        top_k=o.top_k if o.HasField("top_k") else None,
        repetition_penalty=o.repetition_penalty if o.HasField("repetition_penalty") else None,
        seed=o.seed if o.HasField("seed") else None,
        max_tokens=o.max_tokens if o.HasField("max_tokens") else None,
        stops=tuple(o.stops),
        raw=o.raw,
        tools=read_tools(o.tools, "the list of tools") if o.tools else (),
        speculate=not o.no_speculation,
    )


async def _stop(talk: Talk, answering: asyncio.Task[None], said: asyncio.Queue[pb.Said]) -> None:
    answering.cancel()
    await asyncio.wait({answering})
    if answering.cancelled():
        await said.put(pb.Said(end=_end(talk)))
    else:
        answering.result()


async def _answer(talk: Talk, turn: pb.Turn, said: asyncio.Queue[pb.Said]) -> None:
    try:
        async for piece in _pieces(talk, turn):
            await said.put(pb.Said(piece=pb.TextPiece(text=piece.text, token=piece.token, logprob=piece.logprob)))
    except SwarmError as error:
        await said.put(pb.Said(error=to_rpc(error)[1]))
    else:
        await said.put(pb.Said(end=_end(talk)))


def _pieces(talk: Talk, turn: pb.Turn) -> AsyncIterator[Piece]:
    if turn.HasField("question"):
        return talk.ask(turn.question.text)
    if len(turn.results.results) != len(talk.calls):
        raise UsageError(f"{len(turn.results.results)} results answer {len(talk.calls)} tool calls: give one for each")
    return talk.tell(turn.results.results)


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
