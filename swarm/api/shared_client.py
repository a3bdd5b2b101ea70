"""One Client for all conversations of a process, while there are any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from swarm.client.client import Client, open_client
from swarm.client.plan_source import Known, SwarmPlan
from swarm.wire.credentials import Credentials


@dataclass
class _Opened:
    address: str
    client: Client
    stack: AsyncExitStack
    users: int = 0


class SharedClient:
    """Opens a Client with the first conversation and closes it with the last: who does not talk costs the swarm nothing.

    Args:
        address: host:port of the swarm's door now; it may come back elsewhere.
        notify: told what concerns all conversations: queues, losses, recoveries.
        known: the swarm's last Plan, for when its door is silent.
    """

    def __init__(
        self, address: Callable[[], str], credentials: Credentials, notify: Callable[[str], None], known: Callable[[], Known | None]
    ) -> None:
        self._address, self._credentials, self._notify, self._known = address, credentials, notify, known
        self._opened: _Opened | None = None
        self._changing = asyncio.Lock()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Client]:
        """The Client, for one conversation. Raises SwarmError: nobody answers, or no model is loaded."""
        opened = await self._take()
        try:
            yield opened.client
        finally:
            opened.users -= 1
            if not opened.users:
                self._opened = None if self._opened is opened else self._opened
                await opened.stack.aclose()

    async def _take(self) -> _Opened:
        """One more user, of another Client where the swarm has another address or another model by now."""
        async with self._changing:
            address, opened = self._address(), self._opened
            if opened is None or opened.address != address or not await _is_current(opened.client) or self._opened is not opened:
                stack, source = AsyncExitStack(), SwarmPlan(address, self._credentials, self._notify, self._known)
                client = await stack.enter_async_context(open_client(source, self._credentials, self._notify))
                opened = _Opened(address, client, stack)
                self._opened = opened
            opened.users += 1
            return opened


async def _is_current(client: Client) -> bool:
    plan = await client.source.plan()
    return plan.model.model_id == client.plan.model.model_id
