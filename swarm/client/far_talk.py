"""A chat whose Decoder runs on a rig: the same as `Talk`, of which only text crosses the link."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence

import grpc.aio

from swarm.client.answer import Answer
from swarm.client.conversation import Piece
from swarm.client.messages import ToolCall, plain_text
from swarm.client.talk import Wishes
from swarm.errors import Lost, SwarmError
from swarm.wire.status import from_details, from_rpc
from swarm.wire.v1 import text_pb2 as pb
from swarm.wire.v1.text_pb2_grpc import TextServiceStub

HELLO_S = 60.0
"""How long the rig may take to open its streams, and to have an unloaded model brought back before it says hello."""
STOP_S = 5.0
"""How long a rig may take to end an answer."""


class FarTalk:
    """Questions and answers of one person; see `Talk`. Opened with `open`.

    Args:
        rig: whose Decoder it is, for messages.
        notify: told what is no part of an answer.
    """

    def __init__(self, channel: grpc.aio.Channel, rig: str, wishes: Wishes, notify: Callable[[str], None]) -> None:
        self._rig, self._notify = rig, notify
        self._options: pb.Options | None = _options(wishes)
        self._call = TextServiceStub(channel).Converse()
        self._said: asyncio.Queue[pb.Said | SwarmError] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        self._history: pb.History | None = None
        self._stopping = False  # an answer that was stopped may still be said
        self._heard: list[int] = []
        self.gone = False
        """Whether the rig is: its own errors end an answer, this ends the conversation with it."""
        self.model = self.model_id = ""
        self.is_plain = wishes.raw
        self.said: list[int] = []
        """All token ids up to the end of the last answer, as far as it was heard."""
        self.prompt: list[int] | None = None
        """Those before the last answer; None until its first piece."""
        self.calls: list[ToolCall] = []
        """The tools that the last answer calls, in order."""
        self.answer = Answer()
        """The last answer, once its pieces ended or were stopped."""

    async def open(self) -> None:
        """Hear the rig's hello. Raises SwarmError: it does not answer, or the swarm holds no model."""
        try:
            async with asyncio.timeout(HELLO_S):
                said = await self._next()
        except TimeoutError:
            raise Lost(f"{self._rig} did not begin to chat in {HELLO_S:.0f} s: chat without --via, or over another rig") from None
        self.model, self.model_id, self.is_plain = said.hello.model, said.hello.model_id, said.hello.plain or self.is_plain

    def ask(self, text: str) -> AsyncGenerator[Piece]:
        """The answer's pieces as they come. Raises SwarmError: whatever ends the answer before its end."""
        return self._answer(pb.Turn(question=pb.Question(text=plain_text(text))))

    def tell(self, results: Sequence[str]) -> AsyncGenerator[Piece]:
        """What the model answers to the results of its calls, given in the calls' order."""
        return self._answer(pb.Turn(results=pb.ToolResults(results=results)))

    def go_on(self, prompt: Sequence[int], begun: Sequence[int]) -> AsyncGenerator[Piece]:
        """All pieces of an answer of which the first tokens were said elsewhere."""
        return self._answer(pb.Turn(go_on=pb.GoOn(prompt=prompt, answer=begun)))

    def restore(self, said: Sequence[int], calls: Sequence[ToolCall]) -> None:
        """Have said these tokens, elsewhere, and called these tools at last."""
        told = [pb.Call(id=call.id, name=call.name, arguments=call.arguments) for call in calls]
        self.said, self.calls, self._history = list(said), list(calls), pb.History(tokens=said, calls=told)

    async def close(self) -> None:
        """Give the Session back: the rig sees the call end."""
        self._call.cancel()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _answer(self, turn: pb.Turn) -> AsyncGenerator[Piece]:
        if self._stopping:
            await self._stopped()
        self.calls, self.answer, self.prompt = [], Answer(), None
        turn.MergeFrom(pb.Turn(options=self._options, history=self._history))
        self._options = self._history = None
        started, ended = time.monotonic(), False
        try:
            await self._write(turn)
            while not ended:
                said = await self._next()
                if said.HasField("piece"):
                    yield self._piece(said.piece, started)
                ended = said.HasField("end") or said.HasField("error")
                self._take(said)
        finally:
            if not ended:
                await self._stop()

    def _piece(self, piece: pb.TextPiece, started: float) -> Piece:
        answer = self.answer
        answer.ttft_s = answer.ttft_s or time.monotonic() - started
        answer.text += piece.text
        if piece.token >= 0:
            answer.tokens.append(piece.token)
            answer.logprobs.append(piece.logprob)
        return Piece(piece.text, piece.token, piece.logprob)

    def _take(self, said: pb.Said) -> None:
        if said.HasField("error"):
            raise from_details(said.error)
        if said.HasField("end"):
            self.said = list(self._heard)
            end, answer = said.end, self.answer
            answer.finish_reason, answer.tokens_per_s = end.finish_reason, end.tokens_per_s
            answer.prompt_tokens, answer.cached_tokens = end.prompt_tokens, end.cached_tokens
            answer.traversals, answer.drafted, answer.kept = end.traversals, end.drafted, end.kept
            self.calls = [ToolCall(call.name, call.arguments, call.id) for call in end.calls]

    async def _stop(self) -> None:
        """Have the rig end the answer, and hear to its end."""
        with contextlib.suppress(SwarmError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                self._stopping = True
                await self._write(pb.Turn(stop=pb.Stop()))
                await self._hear_out()

    async def _stopped(self) -> None:
        """Before another answer is asked for: pieces of one that was stopped would be taken for its own. Raises Lost."""
        try:
            async with asyncio.timeout(HELLO_S):
                await self._hear_out()
        except TimeoutError:
            self.gone = True
            raise self._gone("an answer that was stopped does not end") from None
        except SwarmError:
            if self._stopping:  # the call is over; else that answer's own error, which nobody asks for any more
                raise

    async def _hear_out(self) -> None:
        """To the end of an answer that was stopped."""
        said = pb.Said()
        while not (said.HasField("end") or said.HasField("error")):
            said = await self._next()
        self._stopping = False
        self._take(said)

    async def _write(self, turn: pb.Turn) -> None:
        try:
            await self._call.write(turn)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._reading  # it has why
            raise self._gone("its call ended") from None

    async def _next(self) -> pb.Said:
        while True:
            said = await self._said.get()
            if isinstance(said, SwarmError):
                self._said.put_nowait(said)  # whoever asks next hears it, too
                raise said
            if not said.HasField("news"):
                self._hear(said)
                return said
            self._notify(said.news)

    def _hear(self, said: pb.Said) -> None:
        """Keep the token ids, as `Began` says."""
        if said.HasField("began"):
            self._heard[said.began.kept :] = said.began.tokens
            self.prompt = list(self._heard)
        if said.HasField("piece") and said.piece.token >= 0:
            self._heard.append(said.piece.token)

    async def _read(self) -> None:
        """In a task of its own: a read that is cancelled ends the call."""
        try:
            async for said in self._call:
                self._said.put_nowait(said)
            self.gone = True
            self._said.put_nowait(self._gone("it ended the call"))
        except grpc.aio.AioRpcError as error:
            self.gone = True
            meant = from_rpc(error, self._rig)
            self._said.put_nowait(self._gone(str(meant)) if self.model and type(meant) is not SwarmError else meant)

    def _gone(self, why: str) -> SwarmError:
        return Lost(f"the chat via {self._rig} is lost ({why}): begin it again, without --via or over another rig")


def _options(wishes: Wishes) -> pb.Options:
    w = wishes
    return pb.Options(
        system=w.system or "",
        temperature=w.temperature,
        top_p=w.top_p,
        top_k=w.top_k,
        repetition_penalty=w.repetition_penalty,
        seed=w.seed,
        max_tokens=w.max_tokens,
        stops=w.stops,
        raw=w.raw,
        tools=json.dumps([tool.document for tool in w.tools]) if w.tools else "",
        no_speculation=not w.speculate,
    )
