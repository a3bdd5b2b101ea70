"""Fixtures of the tests on a real Ray cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from real_swarms import Swarms


@pytest_asyncio.fixture(loop_scope="module")
async def swarms(tmp_path: Path) -> AsyncIterator[Swarms]:
    found = Swarms(tmp_path)
    yield found
    await found.close()
