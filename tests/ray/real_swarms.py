"""Swarms with a real Ray cluster, on this machine or in network namespaces."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 150.0
TOKEN = "5eed" * 16


class Process:
    """One `own_swarm.py` and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def says(self, key: str) -> Any:
        """The first value it says for a key."""
        await until(lambda: any(key in line for line in self.said) or self._reading.done())
        return next(line[key] for line in self.said if key in line)

    async def _read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            self.said.append(json.loads(line))

    def tree(self) -> list[int]:
        """All processes below it."""
        found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split()
        parents: dict[int, list[int]] = {}
        for pid, parent in zip(map(int, found[::2]), map(int, found[1::2]), strict=True):
            parents.setdefault(parent, []).append(pid)
        todo, below = [self.process.pid], []
        while todo:
            children = parents.get(todo.pop(), [])
            below += children
            todo += children
        return below


class Swarms:
    """Starts Rigs, and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Process] = []

    async def start(
        self,
        swarm: str,
        name: str,
        ports: str,
        count: int,
        memory_bytes: int,
        host: str = "127.0.0.1",
        inside: tuple[str, ...] = (),
    ) -> Process:
        """`swarm` is `head`, or where to join; `inside` goes before the command (`ip netns exec ...`)."""
        command = [*inside, sys.executable, str(Path(__file__).with_name("own_swarm.py"))]
        process = await asyncio.create_subprocess_exec(
            *command, swarm, name, host, ports, str(self.folder / name), str(count), str(memory_bytes),
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, limit=2**20,
        )  # fmt: skip
        self.started.append(Process(process))
        return self.started[-1]

    async def close(self) -> None:
        for each in reversed(self.started):
            pids = each.tree()
            if each.process.returncode is None:
                each.process.kill()
            await asyncio.wait_for(each.process.wait(), DEADLINE_S)
            await until(lambda pids=pids: not any(map(runs, pids)))  # type: ignore[misc]


async def until(there: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not there():
            await asyncio.sleep(0.1)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def shown_actors(dashboard: str, token: str = TOKEN) -> dict[str, str]:
    """Name and repr of the living actors, as the dashboard's own HTTP API has them."""
    request = urllib.request.Request(f"{dashboard}/api/v0/actors?detail=true", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        rows = json.load(reply)["data"]["result"]["result"]
    return {row["name"]: row["repr_name"] for row in rows if row["state"] == "ALIVE"}
