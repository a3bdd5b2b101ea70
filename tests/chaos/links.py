"""What the Rigs of a swarm reach each other over, and its weather: relays on loopback, or cables between namespaces."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from relay_process import Weather

from cluster.ports import Ports

DOOR_PORT = 7600
PORTS = "7700-7731"
DIALLED = Ports.lay_out(PORTS, 1)
RELAYED = (DIALLED.door, DIALLED.text, DIALLED.workers[-1])
"""Where a Rig is dialled back; the last is its one Worker's."""
CLEAR = Weather()
MIN_BURST = "burst 32kbit latency 400ms"


@dataclass(frozen=True)
class Place:
    """Where a Rig lives: what others dial, where it listens if elsewhere, where it finds the door, what goes before commands."""

    host: str
    bind: str
    door: str
    inside: tuple[str, ...] = ()


class Links(Protocol):
    door: str
    """Where clients find the door, and where it listens."""

    async def open(self, rigs: Sequence[str]) -> dict[str, Place]: ...

    async def change(self, rig: str, weather: Weather) -> None:
        """The weather between a Rig and all others, from now on."""
        ...

    async def close(self) -> None: ...


class Relays:
    """One process of relays: all that goes to a Rig, and what it says to the door, passes its group of them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._net = f"{os.getpid() % 250 + 1}"
        self.door = f"127.2.{self._net}.250:{DOOR_PORT}"
        self._process: asyncio.subprocess.Process | None = None

    async def open(self, rigs: Sequence[str]) -> dict[str, Place]:
        """Start it."""
        program = str(Path(__file__).with_name("relay_process.py"))
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, program, stdin=pipe, stdout=pipe, env=self._environment
        )
        return {rig: await self._place(rig, number) for number, rig in enumerate(rigs, 1)}

    async def change(self, rig: str, weather: Weather) -> None:
        await self._obey(group=rig, weather=asdict(weather))

    async def close(self) -> None:
        if self._process:
            self._process.kill()
            await self._process.wait()

    async def _place(self, rig: str, number: int) -> Place:
        shown, bound = f"127.1.{self._net}.{number}", f"127.2.{self._net}.{number}"
        for port in RELAYED:
            await self._obey(listen=f"{shown}:{port}", to=f"{bound}:{port}", group=rig)
        await self._obey(listen=f"{shown}:{DOOR_PORT}", to=self.door, group=rig)
        return Place(shown, bound, f"{shown}:{DOOR_PORT}")

    async def _obey(self, **command: object) -> None:
        assert self._process and self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        assert await self._process.stdout.readline() == b"done\n", "the relay ended"


class Cables:
    """A network namespace for each Rig, on one bridge with this process's own (see `own_network`)."""

    def __init__(self) -> None:
        self.door = f"10.78.0.250:{DOOR_PORT}"
        self._names: dict[str, str] = {}

    async def open(self, rigs: Sequence[str]) -> dict[str, Place]:
        ip("link add swarm-hub type bridge")
        ip("addr add 10.78.0.250/24 dev swarm-hub")
        ip("link set swarm-hub up")
        return {rig: self._place(rig, number) for number, rig in enumerate(rigs, 1)}

    async def change(self, rig: str, weather: Weather) -> None:
        ip(f"link set {rig} {'down' if weather.cut else 'up'}")
        subprocess.run(["tc", "qdisc", "del", "dev", rig, "root"], capture_output=True, check=False)
        if weather.bytes_per_s:
            words = f"qdisc add dev {rig} root tbf rate {int(weather.bytes_per_s * 8)}bit {MIN_BURST}"
            subprocess.run(["tc", *words.split()], capture_output=True, check=True)

    async def close(self) -> None:
        for rig, name in self._names.items():
            ip(f"link del {rig}")  # a namespace that is deleted lets go of it only later
            ip(f"netns del {name}")
        with suppress(subprocess.CalledProcessError):
            ip("link del swarm-hub")
        self._names = {}

    def _place(self, rig: str, number: int) -> Place:
        name, host = f"chaos-{os.getpid()}-{number}", f"10.78.0.{number}"
        ip(f"netns add {name}")
        ip(f"link add {rig} type veth peer name up0 netns {name}")
        self._names[rig] = name
        ip(f"link set {rig} master swarm-hub up")
        ip(f"-n {name} addr add {host}/24 dev up0")
        ip(f"-n {name} link set up0 up")
        ip(f"-n {name} link set lo up")
        return Place(host, "", self.door, ("ip", "netns", "exec", name))


def ip(words: str) -> None:
    """Run `ip` with these words. Raises CalledProcessError."""
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


def can_make_networks() -> bool:
    """Whether this process may make network namespaces and file systems."""
    if os.geteuid():
        return False
    name = f"chaos-{os.getpid()}-probe"
    try:
        ip(f"netns add {name}")
        ip(f"netns del {name}")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True
