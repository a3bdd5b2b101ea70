"""`swarm chat` without a question: questions and answers in turn, until Ctrl-D."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from swarm.cli import output
from swarm.cli.terminal import Terminal
from swarm.cli.tracer import Tracer, show_trace
from swarm.client.answer import Answer
from swarm.client.conversation import Piece
from swarm.client.messages import ToolCall
from swarm.client.roving_talk import RovingTalk
from swarm.client.talk import Talk
from swarm.client.waterfall import Waterfall
from swarm.errors import SwarmError

PROMPT = "> "


async def no_hint() -> bool:
    """Has nothing to say."""
    return False


class Repl:
    """One interactive chat."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._answering: asyncio.Task[None] | None = None
        self._tracer: Tracer | None = None

    async def run(
        self, talk: Talk | RovingTalk, tracer: Tracer | None = None, hint: Callable[[], Awaitable[bool]] = no_hint
    ) -> None:
        """Ask for lines and answer them. An error ends its answer, not the chat.

        Args:
            tracer: shows where each answer's time went.
            hint: called after an answer, until it said something.
        """
        self._tracer, hinted = tracer, False
        output.stderr().print(f"{talk.model}: Ctrl-C stops an answer, Ctrl-D ends the chat", style="dim")
        while (line := await self._terminal.line(PROMPT)) is not None:
            if not line.strip():
                continue
            await self._show(talk, talk.ask(line))
            while talk.calls and (results := await self._results(talk.calls)):
                await self._show(talk, talk.tell(results))
            hinted = hinted or await hint()

    def stop_answer(self) -> bool:
        """Stop the answer that is being given; whether there was one."""
        return self._answering is not None and self._answering.cancel()

    async def _show(self, talk: Talk | RovingTalk, pieces: AsyncIterator[Piece]) -> None:
        self._answering = asyncio.create_task(_show_answer(talk, pieces, self._tracer))
        # Waited for and not awaited: stopping the answer must not look like stopping the chat.
        await asyncio.wait({self._answering})
        done, self._answering = self._answering, None
        if not done.cancelled() and (error := done.exception()) is not None:
            if not isinstance(error, SwarmError):
                raise error
            output.stderr().print(f"swarm: {error}")

    async def _results(self, calls: Sequence[ToolCall]) -> list[str]:
        """What the person says that each call gave; empty where one is left out, which leaves the calls unanswered."""
        results: list[str] = []
        for call in calls:
            sys.stdout.write(f"{said_call(call)}\n")
            sys.stdout.flush()
        for call in calls:
            result = await self._result(call)
            if result is None:
                return []
            results.append(result)
        return results

    async def _result(self, call: ToolCall) -> str | None:
        while (line := await self._terminal.line(f"result of {call.name} (or @file)> ")) is not None and line.strip():
            if not line.startswith("@"):
                return line
            try:
                return Path(line[1:].strip()).expanduser().read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                output.stderr().print(f"swarm: {line[1:].strip()} cannot be read as UTF-8 text ({error})")
        return None


async def _show_answer(talk: Talk | RovingTalk, pieces: AsyncIterator[Piece], tracer: Tracer | None) -> None:
    try:
        if tracer:
            await tracer.begin()
        async for piece in pieces:
            sys.stdout.write(piece.text)
            sys.stdout.flush()
    finally:
        sys.stdout.write("\n")
        sys.stdout.flush()
    show_timings(talk.answer, await tracer.end(talk.answer) if tracer else None)


def said_call(call: ToolCall) -> str:
    """A tool call for a person: `get_weather {"city": "Paris"}`."""
    return f"{call.name} {call.arguments}"


def show_timings(answer: Answer, falls: tuple[Waterfall, ...] | None = None) -> None:
    """Tokens a second and the time to the first token, for a person at a terminal; where it went, where that was asked for."""
    if falls is not None:
        show_trace(falls)
    console = output.stderr()
    if not console.is_terminal:
        return
    cut = ", cut at --max-tokens or the end of the context" if answer.finish_reason == "length" else ""
    count = len(answer.tokens)
    line = f"{count} tokens, {answer.tokens_per_s:.1f} tok/s, the first after {answer.ttft_s:.2f} s{cut}"
    console.print(line, style="dim")
