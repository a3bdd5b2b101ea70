"""A swarm without Ray, of real processes: a Coordinator, three Rigs that own a Worker each, and what lies between them."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc.aio
from census import MARK, Snapshot, snapshot
from links import PORTS, Cables, Links, Place, Relays
from rig_process import RigOrder
from shapes import RIGS, Shape

from cluster.coordinator_settings import CoordinatorSettings
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1 import swarm_pb2_grpc

START_S = 120.0
STARTS = 3
POLL_S = 0.1
DISK_MIB = 1100
"""The cache leaves 1 GiB of its disk free."""
HERE = Path(__file__).parent


class PlainSwarm:
    """Rigs go by name. Everything that it starts has its mark in the environment."""

    rigs = guests = RIGS

    def __init__(self, shape: Shape, folder: Path) -> None:
        self.shape, self.folder = shape, folder
        self.mark, self.key = secrets.token_hex(8), secrets.token_hex(16)
        self.environment = {**os.environ, MARK: self.mark, "SWARM_HOME": str(folder / "home")}
        self.links: Links = Cables() if shape.cables else Relays(self.environment)
        self.credentials = Credentials(self.key, "chaos")
        self._places: dict[str, Place] = {}
        self._owners: dict[str, asyncio.subprocess.Process] = {}
        self._control: asyncio.subprocess.Process | None = None
        self._channel: grpc.aio.Channel | None = None
        self._mounted: list[Path] = []

    @property
    def address(self) -> str:
        return self.links.door

    async def start(self) -> None:
        """All of it, until it serves."""
        self._places = await self.links.open(self.rigs)
        await self.start_coordinator(restarted=False)
        self._channel = self.credentials.channel(self.address)
        await asyncio.gather(*(self.start_rig(rig) for rig in self.rigs))
        await self.whole()

    async def start_coordinator(self, restarted: bool = True) -> None:
        """As Ray does with one that died: the same settings, and what it wrote down."""
        settings = CoordinatorSettings(
            self.address,
            self.address,
            self.key,
            self.rigs[0],
            "",
            "",
            self.shape.target,
            str(self.folder / "target.json"),
            restarted,
        )
        self._control = await self._run("control", "control_process.py", settings.to_json(), ())
        assert await self._says(self._control, b"ready"), f"the coordinator did not start: see the logs in {self.folder}"

    async def start_rig(self, rig: str) -> None:
        """Its owner, until it is in."""
        place, state = self._places[rig], self.folder / rig
        cache = str(state / "cache") if self.shape.disk else ""
        if not state.exists():
            self._make_folder(state, rig)
        order = RigOrder(
            rig, place.host, place.bind, place.door, self.key, str(state), self.shape.memory_bytes, PORTS, cache
        )  # fmt: skip
        for _ in range(STARTS):  # a door that does not answer at once ends a join: whoever started it starts it again
            self._owners[rig] = owner = await self._run(rig, "rig_process.py", order.to_json(), place.inside)
            if await self._says(owner, b"served"):
                return
        raise AssertionError(f"{rig} did not start: see the logs in {self.folder}")

    async def whole(self) -> None:
        """Until the Coordinator has a Plan and all Rigs with all their Workers."""
        async with asyncio.timeout(START_S):
            while not is_whole(status := await self.status(), len(self.rigs)):
                assert self._control and self._control.returncode is None, f"the coordinator ended: see {self.folder}/control.log"
                if status:
                    self._check_owners()
                await asyncio.sleep(POLL_S)

    async def status(self) -> dict[str, Any]:
        """As `swarm status --json` has it; empty where nobody answers."""
        assert self._channel
        try:
            reply = await swarm_pb2_grpc.SwarmServiceStub(self._channel).GetStatus(pb.StatusRequest(), timeout=5)
        except grpc.aio.AioRpcError:
            return {}
        document: dict[str, Any] = json.loads(reply.json)
        return document

    async def worker_pid(self, rig: str) -> int:
        """Of its one Worker, once that answers."""
        async with asyncio.timeout(START_S):
            while True:
                workers = (await self.status()).get("workers", ())
                if pid := next((w["pid"] for w in workers if w["alive"] and w["name"].startswith(f"{rig}/")), None):
                    return int(pid)
                await asyncio.sleep(POLL_S)

    def owner_pid(self, rig: str) -> int:
        return self._owners[rig].pid

    async def owner_ends(self, rig: str, number: signal.Signals) -> None:
        """Tell an owner to end, and wait until it and its Worker did."""
        async with asyncio.timeout(START_S):
            self._owners[rig].send_signal(number)
            await self._owners[rig].wait()
            while any(rig in line for line in self._lines("swarm.worker")):
                await asyncio.sleep(POLL_S)

    async def coordinator_ends(self) -> None:
        """Without warning."""
        assert self._control
        self._control.kill()
        await self._control.wait()

    def cache(self, rig: str) -> Path:
        """Of quantized weights, on the Rig's own disk."""
        return self.folder / rig / "cache"

    def fill_disk(self, rig: str) -> None:
        """Leave not a byte: the disk becomes as small as what is on it."""
        used = shutil.disk_usage(self.folder / rig).used
        self._resize(rig, f"{used // 1024}k")

    def empty_disk(self, rig: str) -> None:
        self._resize(rig, f"{DISK_MIB}m")

    async def look(self) -> Snapshot:
        """What is there."""
        return snapshot(self.mark, (await self.status()).get("workers", ()))

    async def stop(self) -> None:
        """End everything, whatever state it is in."""
        if self._channel:
            await self._channel.close(None)
        running = [p for p in (self._control, *self._owners.values()) if p]
        for process in running:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await self.links.close()
        for pid in snapshot(self.mark, ()).processes:
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
        for folder in self._mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)

    def _resize(self, rig: str, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder / rig)], check=True)

    def _make_folder(self, state: Path, rig: str) -> None:
        (state / "rig-1").mkdir(parents=True)
        if self.shape.disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "chaos", str(state)], check=True)
            self._mounted.append(state)
            (state / "rig-1").mkdir()
        (state / "rig-1" / "id").write_text(rig)

    async def _run(self, name: str, program: str, text: str, inside: tuple[str, ...]) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        with (self.folder / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *inside, sys.executable, str(HERE / program), stdin=pipe, stdout=pipe, stderr=log, env=self.environment
            )
        assert process.stdin
        process.stdin.write(text.encode())
        process.stdin.close()
        return process

    @staticmethod
    async def _says(process: asyncio.subprocess.Process, word: bytes) -> bool:
        """Whether it says a word before it ends. TimeoutError."""
        assert process.stdout
        async with asyncio.timeout(START_S):
            return (await process.stdout.readline()).strip() == word

    def _check_owners(self) -> None:
        for rig, owner in self._owners.items():
            assert owner.returncode is None, f"the owner of {rig} ended with {owner.returncode}: see {self.folder / rig}.log"

    def _lines(self, word: str) -> list[str]:
        """Command lines of the swarm's processes that have a word in them."""
        found = []
        for pid in snapshot(self.mark, ()).processes:
            try:
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
            except OSError:
                continue  # it ended while we looked
        return [line for line in found if word in line]


def is_whole(status: dict[str, Any], rigs: int) -> bool:
    """Whether a document of `swarm status` says that so many Rigs serve with all their Workers."""
    return (
        bool(status)
        and bool(status["epoch"])
        and not status["waiting"]
        and len(status["rigs"]) == rigs
        and not any(rig["leaving"] for rig in status["rigs"])
        and len(status["workers"]) >= rigs
        and all(w["alive"] and not w["out"] and w["epoch"] == status["epoch"] for w in status["workers"])
    )
