"""A Rig whose Ray ends starts it again, until all that belongs to it is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cluster import rig
from cluster.rig import Rig, RigSettings
from swarm.errors import NoSwarm

DEADLINE_S = 60.0


class RayOfMemory:
    """Runs until it is stopped."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    async def ended(self) -> int:
        await self._over.wait()
        return 0

    async def stop(self) -> None:
        self._over.set()

    @property
    def runs(self) -> bool:
        return not self._over.is_set()


class HeadOfMemory(Rig):
    """Its Coordinator does not start the next so many times, though its Ray does."""

    def __init__(self, settings: RigSettings, failures: int) -> None:
        super().__init__(settings)
        self.failures = failures
        self.started: list[RayOfMemory] = []
        self.served = asyncio.Event()

    async def _restart_ray(self) -> None:
        self.started.append(RayOfMemory())
        self.ray = self.started[-1]  # type: ignore[assignment]
        if self.failures:
            self.failures -= 1
            raise NoSwarm("the coordinator did not start: try again")
        self.served.set()


async def test_ray_that_came_back_without_its_coordinator_is_started_again_at_growing_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig, "RAY_AGAIN_S", 0.01)
    said: list[str] = []
    head = HeadOfMemory(RigSettings("attic", (), "127.0.0.1", "k", tmp_path, {}, notify=said.append), failures=3)
    head.ray = first = RayOfMemory()  # type: ignore[assignment]
    watching, began = asyncio.create_task(head._watch_ray()), asyncio.get_running_loop().time()
    await first.stop()  # type: ignore[attr-defined]
    async with asyncio.timeout(DEADLINE_S):
        await head.served.wait()
    assert [ray.runs for ray in head.started] == [False, False, False, True]
    assert asyncio.get_running_loop().time() - began >= 0.01 + 0.02 + 0.04 + 0.08
    assert len(said) == 2 and "did not start" in said[1]
    watching.cancel()
