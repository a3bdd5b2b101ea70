"""Sessions that answer for the sake of measuring: prompts that nobody holds, greedy, always to the last token."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass

from swarm.client.answer import Answer, Clock
from swarm.client.bench_run import Timeline
from swarm.client.draft import Lookup
from swarm.client.draft_length import DraftLength
from swarm.client.next_tokens import NextTokens
from swarm.client.routes import Routes
from swarm.client.sampling import Sampling
from swarm.client.seat import Swarm
from swarm.client.session import Session
from swarm.client.trace import Trace
from swarm.errors import TooLong
from swarm.plan import Plan
from swarm.too_long import remedy

GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True)
class Work:
    """What each Session of a run does. `new`: tokens to make, at least 2."""

    prompt: int
    new: int
    speculate: bool = False

    @property
    def positions(self) -> int:
        """That a Session reserves."""
        return self.prompt + self.new

    def check(self, plan: Plan) -> None:
        """Raise TooLong where it exceeds what a Session of the Plan can hold."""
        if self.positions > plan.context:
            raise TooLong(
                f"a prompt of {self.prompt} tokens and {self.new} new ones need {self.positions} positions, "
                + remedy(plan, "give less with --prompt and --new")
            )

    def room(self, plan: Plan) -> int:
        """How many such Sessions the KV of a Plan has room for at the same time; more wait in the swarm's queue."""
        pages = -(-self.positions // plan.page_positions)
        return len(plan.routes) * (plan.kv_pages // pages)


def prompts(vocab: int, length: int, dice: random.Random) -> Iterator[list[int]]:
    """Prompts of any ids. No two of the first `vocab` begin with the same one, so that they share no prefix."""
    while True:
        for first in dice.sample(range(vocab), vocab):
            yield [first, *(dice.randrange(vocab) for _ in range(length - 1))]


class Gate:
    """Lets all Sessions answer at the same moment: when each has its first token, or is known to come late."""

    def __init__(self, sessions: int) -> None:
        self._missing = sessions
        self._opened = asyncio.Event()
        self.opened_at = 0.0

    def count(self) -> None:
        """One Session less to wait for."""
        self._missing -= 1
        if self._missing == 0:
            self.opened_at = time.monotonic()
            self._opened.set()

    async def passed(self) -> None:
        """Return when it is open."""
        await self._opened.wait()


class Stream:
    """One Session of a run: its prompt, then its tokens. Stands between its Session and the client, to hear what it is told.

    Args:
        on_token: called at each token.
    """

    def __init__(self, swarm: Swarm, prompt: Sequence[int], work: Work, gate: Gate, on_token: Callable[[], None]) -> None:
        self.plan, self.source, self.pace = swarm.plan, swarm.source, swarm.pace
        self.answer = Answer()
        self._swarm = swarm
        self._prompt = prompt
        self._work = work
        self._gate = gate
        self._on_token = on_token
        self._waits = True
        """Whether the gate waits for it."""
        self._asked_at = self._began_at = 0.0
        self._tokens_at: list[float] = []

    @property
    def timeline(self) -> Timeline:
        """As far as it came."""
        return Timeline(self._asked_at, self._began_at, tuple(self._tokens_at))

    async def run(self) -> None:
        """Make all tokens. Raises what `Session.traverse` raises."""
        session = Session(self)
        self._asked_at = time.monotonic()
        try:
            await session.reserve(self._work.positions)
            session.replace(self._prompt)
            await self._take_all(session)
        finally:
            await session.close()

    def notify(self, message: str) -> None:
        """It waits in the queue, or was lost on the way: the others do not wait for it."""
        self._arrive()
        self._swarm.notify(message)

    async def routes(self) -> Routes:
        return await self._swarm.routes()

    def later(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return self._swarm.later(work)

    async def _take_all(self, session: Session) -> None:
        config = self.plan.model.config
        draft = Lookup() if self._work.speculate else None
        following = NextTokens(session, GREEDY, config.vocab, draft, DraftLength(config), Clock(self.answer))
        await self._take(following, 1)
        self._arrive()
        await self._gate.passed()
        self.answer.trace.pause()
        self._began_at = max(self._gate.opened_at, self._tokens_at[0])
        while (left := self._work.new - len(self._tokens_at)) > 0:
            await self._take(following, left)

    async def _take(self, following: NextTokens, most: int) -> None:
        for _ in await following.take(most):
            self._tokens_at.append(time.monotonic())
            self._on_token()

    def _arrive(self) -> None:
        if self._waits:
            self._waits = False
            self._gate.count()


class Streams:
    """The Sessions of one run.

    Args:
        prompts: one for each Session.
    """

    def __init__(self, swarm: Swarm, prompts: Sequence[Sequence[int]], work: Work, on_token: Callable[[], None]) -> None:
        gate = Gate(len(prompts))
        self._all = [Stream(swarm, prompt, work, gate, on_token) for prompt in prompts]

    async def run(self) -> None:
        """Return when all have answered. The first that fails ends them all; raises what it raised."""
        tasks = [asyncio.get_running_loop().create_task(stream.run()) for stream in self._all]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def timelines(self) -> list[Timeline]:
        """As far as they came."""
        return [stream.timeline for stream in self._all]

    @property
    def trace(self) -> Trace:
        """All their traversals but the prompts'."""
        return Trace().merge(stream.answer.trace for stream in self._all)

    @property
    def drafts(self) -> tuple[int, int]:
        """Tokens that were guessed, and how many of them were right."""
        return sum(stream.answer.drafted for stream in self._all), sum(stream.answer.kept for stream in self._all)
