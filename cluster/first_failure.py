"""Tasks of which the first failure ends the others, raised as itself and not in a group."""

from __future__ import annotations

import asyncio
from types import TracebackType


class FirstFailure:
    """A TaskGroup whose first failure is raised as itself."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> asyncio.TaskGroup:
        return await self._group.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
