"""A rig that heads a swarm without Ray: in the place of Ray's node and its actor there is a process with the Coordinator."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from cluster.coordinator_settings import CoordinatorSettings
from cluster.head_rig import HeadRig
from cluster.rig import RigSettings
from cluster.target import Target

CONTROL = Path(__file__).parents[1] / "chaos" / "control_process.py"
START_S = 60.0


class Control:
    """Ends like a node of Ray: when it is told to, or when its process does."""

    def __init__(self, settings: CoordinatorSettings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(sys.executable, str(CONTROL), stdin=pipe, stdout=pipe, env=os.environ)
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(self._settings.to_json().encode())
        self._process.stdin.close()
        async with asyncio.timeout(START_S):
            assert await self._process.stdout.readline() == b"ready\n"

    async def ended(self) -> int:
        assert self._process
        return await self._process.wait()

    async def stop(self) -> None:
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class PlainHead(HeadRig):
    def __init__(self, settings: RigSettings, target: Target) -> None:
        super().__init__(settings, target, token="")

    async def _start_swarm(self, restarted: bool) -> None:
        settings = CoordinatorSettings(
            listen=self.address, address=self.address, key=self.settings.key, head=self.rig_id, ray_address="", ray_token="",
            target=self.target, memo=str(self._identity.folder / "target.json"), restarted=restarted,
        )  # fmt: skip
        control = Control(settings)
        self.ray = control  # type: ignore[assignment]  # as far as a head looks at it
        await control.start()
