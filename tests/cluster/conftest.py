"""What the tests of the control plane share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from memory_swarm import Swarm


@pytest.fixture
async def swarm() -> AsyncIterator[Swarm]:
    found = Swarm()
    await found.coordinator.start()
    yield found
    await found.coordinator.stop()
