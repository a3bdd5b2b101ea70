"""A client of a swarm: its streams, its model's tokenizer and chat format, its conversations."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from types import MappingProxyType

from swarm.client.chat_format import ChatFormat, chat_format
from swarm.client.conversation import Conversation
from swarm.client.draft import Lookup
from swarm.client.generation_config import GenerationConfig
from swarm.client.pace import Pace
from swarm.client.plan_source import PlanSource
from swarm.client.routes import Routes
from swarm.client.sampling import Sampling
from swarm.client.session import Session
from swarm.client.tokenizer import Tokenizer, read_tokenizer
from swarm.errors import ModelError, Moved, SwarmError, UsageError
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import stage_pb2 as pb

FINISH_S = 1.0
"""How long what is under way under an older Plan may take once there is a newer one."""


class Client:
    """One process's view of a swarm. All its Sessions share two streams a Route, opened when one is first used."""

    def __init__(
        self, plan: Plan, assets: dict[str, bytes], source: PlanSource, credentials: Credentials, notify: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.source = source
        self.pace = Pace()
        self._assets = assets
        self._credentials = credentials
        self._notify = notify
        self._id = os.urandom(16)
        self._routes: Routes | None = None
        self._following: asyncio.Task[None] | None = None
        self._afterwards: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's. Raises ModelError where it cannot be used; who needs only token ids does without."""
        return read_tokenizer(self._assets)

    @cached_property
    def defaults(self) -> Sampling:
        """How the model's makers want its tokens drawn. Raises ModelError where what they say makes no sense."""
        return GenerationConfig.from_assets(self._assets).sampling

    @cached_property
    def chat_format(self) -> ChatFormat:
        """How the model wants to be asked. Raises ModelError where what it says makes no sense."""
        return chat_format(self._assets, self.tokenizer)

    def notify(self, message: str) -> None:
        """Tell the person something that is not part of an answer."""
        self._notify(message)

    async def routes(self) -> Routes:
        """The Routes of the Plan in force; Sessions on those of an older one hear that it changed.

        Raises:
            SwarmError: see `PlanSource.plan`. ModelError: the swarm was given another model, whose tokens are other ones.
        """
        async with self._changing:
            plan = await self.source.plan()
            if plan.model.model_id != self.plan.model.model_id:
                raise ModelError(
                    f"the swarm holds {plan.model.name} now, and this chat began with {self.plan.model.name}: start a new one"
                )
            old = self._routes
            if old is None or old.plan.epoch != plan.epoch or old.rekeyed():
                self.plan, self._routes = plan, Routes(plan, self._credentials, self._id)
                if old is not None:
                    await old.close(Moved(plan.epoch))
            if self._following is None:
                self._following = asyncio.get_running_loop().create_task(self._follow())
            assert self._routes is not None
            return self._routes

    def later(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Do something that nobody waits for, for as long as the client is there."""
        self._afterwards.add(task := asyncio.get_running_loop().create_task(work))
        task.add_done_callback(self._afterwards.discard)
        return task

    def conversation(self, speculate: bool = True) -> Conversation:
        """A new one, with nothing said. `speculate`: draft from what was said, where that makes tokens come faster."""
        return Conversation(self, self.tokenizer, Lookup() if speculate else None)

    async def score(self, tokens: Sequence[int]) -> list[float | None]:
        """The log-probability of each token after those before it; None for the first.

        Raises:
            UsageError: no tokens. TooLong: more than the context holds.
        """
        if not tokens:
            raise UsageError("there is no text to score: give a file, or text on standard input")
        session = Session(self)
        try:
            await session.reserve(len(tokens))
            session.replace(tokens[:-1])
            if not session.tokens:
                return [None]
            answers = await session.traverse(
                0, lambda at, end: pb.Ask(rows=end - at, named=tokens[at + 1 : end + 1], named_per_row=1)
            )
        finally:
            await session.close()
        return [None, *(row.named[0] - row.logsumexp for answer in answers for row in answer.rows)]

    async def _follow(self) -> None:
        """Leave an older Plan's Routes a moment after a newer one is in force, also where nothing comes of them any more."""
        while True:
            await self.source.newer_than(self.plan.epoch)
            await asyncio.sleep(FINISH_S)
            with suppress(SwarmError):  # whoever asks next is told
                await self.routes()

    async def close(self) -> None:
        """End the streams."""
        tasks = [*self._afterwards, *([self._following] if self._following else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._routes is not None:
            await self._routes.close()


@asynccontextmanager
async def open_client(
    source: PlanSource,
    credentials: Credentials,
    notify: Callable[[str], None] = lambda _: None,
    own: Mapping[str, bytes] = MappingProxyType({}),
) -> AsyncIterator[Client]:
    """A client of the swarm that `source` knows.

    Args:
        notify: told what is no part of an answer: queues, losses, recoveries.
        own: small files by name that stand beside the model's, or in their place.

    Raises:
        SwarmError: nobody answers, the key is wrong, or no model is loaded.
    """
    try:
        plan = await source.plan()
        client = Client(plan, {**await source.assets(plan.model), **own}, source, credentials, notify)
        try:
            yield client
        finally:
            await client.close()
    finally:
        await source.close()
