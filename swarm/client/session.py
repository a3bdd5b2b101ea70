"""One Session as its client sees it: its token ids, which are the whole truth, and how they get through the Route.

Whatever is lost on the way (a frame, a lease, a Worker, the whole Plan) is made good by sending again what the Stages
say they do not hold. Nothing above this file needs to know.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

from swarm.client.route import Event, RouteStreams
from swarm.client.seat import Seat, Swarm
from swarm.client.trouble import TELL_S, Trouble
from swarm.errors import Expired, Gap, Lost, Moved, TooLong, WrongKey
from swarm.plan import MAX_WAIT_S, PIECE_ROWS
from swarm.prefix_hash import EMPTY_HASH, extend_hash
from swarm.too_long import remedy
from swarm.wire.v1 import stage_pb2 as pb

MAX_GAPS = 64
"""In one traversal; each Stage of a Route may have lost something else, and each may be rewound step by step."""

PATIENCE = 32.0
"""So many times what is allowed without a word, a Step may take while all Workers are there."""

HELD_BACK = "the swarm has changed its plan a moment ago: chats that were under way come first; the answer begins then"

ASK_AFTER = 0.25
"""The share of what is allowed without a word after which a Worker is asked whether it is there; it has the rest to answer in."""
PING_S = 2.0
"""And at least this: its loop answers at once, whatever it computes, but on a busy machine a loop stands still at times."""

AskFor = Callable[[int, int], pb.Ask]
"""What to ask of the rows `start` to `end` of the Session."""


class Session:
    """Token ids and their way through a Route. `positions` are reserved when it is first used.

    It stays on its Route; where a Worker of that is lost it goes on over another Route of the same Plan, if one is alive.
    """

    def __init__(self, swarm: Swarm) -> None:
        self.id = os.urandom(16)
        self.tokens: list[int] = []
        self.timings: tuple[pb.StageTiming, ...] = ()
        """Of the last traversal."""
        self.traversal_s = 0.0
        self.serial = 0
        self.held = 0
        """Positions that all Stages hold, as far as is known."""
        self.reused = 0
        """Of these, what the last traversal did not compute again."""
        self._swarm = swarm
        self._hashes = [EMPTY_HASH]
        self._positions = self._reserved = 0
        self._seat = Seat(swarm, self.id)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._asked_at = 0.0
        self._telling: asyncio.TimerHandle | None = None

    def replace(self, tokens: Sequence[int]) -> None:
        """Make these the Session's tokens; what they share with the present ones stays held."""
        same = 0
        for old, new in zip(self.tokens, tokens, strict=False):
            if old != new:
                break
            same += 1
        self.cut(same)
        for token in tokens[same:]:
            self.append(token)

    def cut(self, length: int) -> None:
        """Forget the tokens from `length` on; the Stages are rewound by the next Step's position."""
        del self.tokens[length:], self._hashes[length + 1 :]
        self.held = min(self.held, length)

    def append(self, token: int) -> None:
        """Add a token; no Stage has seen it yet."""
        self.tokens.append(token)
        self._hashes.append(extend_hash(self._hashes[-1], token))

    async def reserve(self, positions: int) -> None:
        """Make sure that so many positions are reserved, from the next traversal on. Raises TooLong."""
        streams = self._seat.streams
        plan = streams.plan if streams is not None else await self._swarm.source.plan()
        if positions > plan.context:
            raise TooLong(f"{positions} positions are needed, {remedy(plan, 'shorten the prompt or the answer')}")
        self._positions = max(self._positions, positions)

    async def traverse(self, start: int, ask_for: AskFor) -> list[pb.StepAnswer]:
        """Send all tokens from `start` on (and what is not held before it) through the Route, once.

        Args:
            start: the first position whose row must be computed, held or not.
            ask_for: what to ask of each chunk's rows.

        Returns:
            The answers of the chunks that asked for rows, in order.

        Raises:
            Refused, Full, TooLong: for good. Lost: no Plan worked for as long as the source is patient.
            ModelError, WrongKey: the swarm has another model or key now.
        """
        trouble, gaps, self._asked_at = Trouble(self._swarm.source, self._swarm.notify), 0, time.monotonic()
        while True:
            try:
                if self._seat.streams is None or self._reserved < self._positions:
                    await self._attach()
                answers = await self._attempt(start, ask_for)
            except Gap as gap:
                gaps += 1
                if gaps > MAX_GAPS:
                    raise Lost(f"{gap}, and goes on losing it", gap.where) from None
                self._rewind(gap)
            except (Moved, Lost, Expired) as error:
                if not self._seat.elsewhere(error):
                    await trouble.wait(error, self._seat.plan)
                self._seat.let_go()
            except WrongKey:
                if not self._seat.rekeyed():
                    raise
                self._seat.let_go()
            else:
                self._seat.works()
                if (streams := self._seat.streams) is not None:
                    trouble.over(streams.plan, streams.plan.routes[streams.route])
                return answers

    async def whole_row(self) -> bytes:
        """The logits [vocab] fp32 at the last asked position. Raises StepError where the last Worker has them no more."""
        assert self._seat.streams is not None
        return await self._seat.streams.whole_row(self.id, self.serial)

    async def close(self) -> None:
        """Give the pages back, over whichever streams work now; where none do, the lease runs out."""
        self._reserved = self.held = 0
        await self._seat.give_back()

    async def _attach(self) -> None:
        positions = max(self._positions, len(self.tokens))
        try:
            streams, self.held = await self._seat.take(positions, self._hashes, self._queued)
        finally:
            if self._telling is not None:
                self._telling.cancel()
                self._telling = None
        self._events = streams.attach(self.id)
        self._reserved = positions

    def _queued(self, place: int) -> None:
        if place:
            self._swarm.notify(f"the swarm is full: waiting for room, number {place} in the queue")
        elif self._telling is None:
            left_s = self._asked_at + TELL_S - time.monotonic()
            self._telling = asyncio.get_running_loop().call_later(max(0.0, left_s), self._tell_held_back)

    def _tell_held_back(self) -> None:
        self._swarm.notify(HELD_BACK)

    async def _attempt(self, start: int, ask_for: AskFor) -> list[pb.StepAnswer]:
        streams = self._seat.streams
        assert streams is not None
        begin, rows = min(self.held, start), len(self.tokens) - min(self.held, start)
        allowed = self._swarm.pace.allowed(rows)
        patience = min(MAX_WAIT_S, PATIENCE * allowed)  # on a slow swarm a long prompt is given days
        headers = self._headers(begin, start, ask_for, patience, streams.plan.chunk_rows)
        started = time.monotonic()
        answers = await self._answers(streams, headers, allowed)
        self.held, self.reused = len(self.tokens), begin
        self.traversal_s = time.monotonic() - started
        self._swarm.pace.took(rows, self.traversal_s)
        return answers

    async def _answers(self, streams: RouteStreams, headers: Sequence[pb.StepHeader], allowed: float) -> list[pb.StepAnswer]:
        """Send Steps and wait for what they ask, longer and longer while the Workers are there. Raises the first error."""
        started, wait, found, slow = time.monotonic(), allowed * ASK_AFTER, dict[int, pb.StepAnswer](), False
        for header in headers:
            streams.send(header)
        while True:
            try:
                async with asyncio.timeout(wait):  # not wait_for: 3.11's swallows a Ctrl-C that comes with the answer
                    return await self._collect(headers, found)
            except TimeoutError:
                await streams.check_there(max(PING_S, allowed * (1 - ASK_AFTER)))
            if (waited := time.monotonic() - started) > PATIENCE * allowed:
                raise Lost(f"no answer in {waited:.0f} s from {_called(streams)}, though its workers are there") from None
            if waited >= allowed and not slow:
                slow = True
                self._swarm.notify(f"{_called(streams)} is slow: nothing came of it for {waited:.0f} s, but its workers are there")
                for header in headers:  # a lost answer costs one repetition, which every Stage answers from memory
                    streams.send(header)
            wait = 2 * wait if slow else min(wait, max(0.0, allowed - waited))

    def _headers(self, begin: int, start: int, ask_for: AskFor, seconds: float, chunk_rows: int) -> list[pb.StepHeader]:
        """A Step for each piece of what nothing is asked of, which the entry Stage makes chunks of; then chunks."""
        headers, at = [], begin
        while at < len(self.tokens):
            rows = min(PIECE_ROWS if at + PIECE_ROWS <= start else chunk_rows, chunk_rows)
            end = min(at + rows, len(self.tokens))
            self.serial += 1
            header = pb.StepHeader(
                session=self.id, serial=self.serial, position=at, tokens=self.tokens[at:end],
                prefix_hash=self._hashes[at], seconds_left=seconds, ask=ask_for(at, end),
            )  # fmt: skip
            headers.append(header)
            at = end
        return headers

    async def _collect(self, headers: Sequence[pb.StepHeader], found: dict[int, pb.StepAnswer]) -> list[pb.StepAnswer]:
        """Wait for every asked answer that is not found yet. Raises the first error that concerns these Steps."""
        wanted = {h.serial for h in headers if h.ask.rows}
        while len(found) < len(wanted):
            event = await self._events.get()
            if event.error is not None and (event.serial == 0 or event.serial >= headers[0].serial):
                raise event.error
            if event.answer is not None and event.serial in wanted:
                found[event.serial] = event.answer
                self.timings = event.timings or self.timings
        return [found[serial] for serial in sorted(found)]

    def _rewind(self, gap: Gap) -> None:
        """Go on from what the Stage that answered still shares with us."""
        shared = [p for p, h in gap.hashes.items() if p < len(self._hashes) and self._hashes[p] == h]
        self.held = min(max(shared, default=0), self.held, gap.held)
        if self.held == 0:
            self._reserved = 0  # its lease may be over: open it again before sending


def _called(streams: RouteStreams) -> str:
    return f"the route {' → '.join(s.worker for s in streams.plan.routes[streams.route].stages)}"
