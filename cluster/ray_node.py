"""Ray, tamed: one Ray node on this machine, with its own token, its own ports and an end."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cluster.child import lines_of
from cluster.ports import Ports
from swarm.errors import NoSwarm, PortInUse, UsageError
from swarm.wire.authority import Papers

_LOG = logging.getLogger(__name__)
_HINT = re.compile(r"\s(INFO|SUCC)\s+\w+\.py:\d+ -- ")
"""What `ray start` tells people who start it by hand."""
NAMESPACE = "swarm"
OBJECT_STORE_BYTES = 75 * 2**20
"""The least that Ray accepts; nothing of ours goes through it."""
START_S = 90.0
STOP_S = 15.0
SOCKET_PATH_BYTES = 107
"""The longest path of a Unix socket on Linux (man 7 unix); Ray's own part of it takes up to 60 bytes."""
RAY_PATH_BYTES = 64
_TLS_FILES = {"RAY_TLS_CA_CERT": "authority.pem", "RAY_TLS_SERVER_CERT": "certificate.pem", "RAY_TLS_SERVER_KEY": "key.pem"}
LABEL = "swarm-rig"
"""The Ray node label that has the Rig's id, by which the Coordinator finds the node."""


@dataclass(frozen=True)
class RayNodeSettings:
    """One Ray node.

    Args:
        host: the address that other Rigs dial.
        ports: this Rig's range.
        token: Ray's own token, the same on all Rigs.
        folder: for Ray's session files and sockets, in a folder inside it; its path must be short. Removed when the node ends.
        rig_id: goes into the node's label.
        head: host:port of the head's GCS; empty: this is the head.
        dashboard: whether to start it (head only).
        papers: for TLS between Ray's processes, good for `addresses_of(host)`; None: they talk in plain text.
    """

    host: str
    ports: Ports
    token: str
    folder: Path
    rig_id: str
    head: str = ""
    dashboard: bool = True
    papers: Papers | None = None

    @property
    def tls_folder(self) -> Path:
        """Where Ray reads certificates and private key."""
        return self.folder / "tls"

    def write_papers(self) -> None:
        """Put them where Ray reads them, for this user only."""
        if self.papers is None:
            return
        self.tls_folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        pems = (self.papers.authority, self.papers.certificate, self.papers.private_key)
        for file, pem in zip(_TLS_FILES.values(), pems, strict=True):
            path = self.tls_folder / file
            path.touch(mode=0o600)
            path.write_bytes(pem)

    @property
    def session_folder(self) -> Path:
        """What Ray is given. It opens that to everybody, so that it must lie in a folder that stays this user's."""
        return self.folder / "r"

    @property
    def gcs(self) -> str:
        return self.head or f"{ray_host(self.host)}:{self.ports.ray['gcs']}"


def ray_host(host: str) -> str:
    """The address under which Ray runs. It rewrites 127.0.0.1 to the machine's outer address, 127.0.0.2 it leaves alone."""
    return "127.0.0.2" if host in ("127.0.0.1", "localhost") else host


def addresses_of(host: str) -> tuple[str, ...]:
    """Under which Ray's processes on this Rig dial each other and are dialled: their certificate must name all of them."""
    return tuple(dict.fromkeys((ray_host(host), "127.0.0.1", host)))


def has_dashboard() -> bool:
    """Whether what Ray's dashboard imports is installed (`ray[default]`)."""
    return all(find_spec(name) for name in ("aiohttp_cors", "opencensus", "prometheus_client"))


def ray_environment(settings: RayNodeSettings, base: Mapping[str, str]) -> dict[str, str]:
    """What Ray's processes on this Rig see: token on, nothing sent home, no killing on full memory."""
    ours = {key: value for key, value in base.items() if not key.startswith("RAY_")}
    return (
        ours
        | _tls(settings)
        | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": settings.token,
            "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_prestart_worker_first_driver": "0",
            "RAY_ROTATION_MAX_BYTES": str(2**20),
            "RAY_ROTATION_BACKUP_COUNT": "1",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "DASHBOARD_METRIC_PORT": str(settings.ports.ray["dashboard_metrics"]),
            "PYTHONUNBUFFERED": "1",
        }
    )


def _tls(settings: RayNodeSettings) -> dict[str, str]:
    if settings.papers is None:
        return {}
    files = {variable: str(settings.tls_folder / file) for variable, file in _TLS_FILES.items()}
    return {"RAY_USE_TLS": "1", **files}


def start_command(settings: RayNodeSettings) -> list[str]:
    """`ray start`, with every port from our range."""
    ports = settings.ports.ray
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", ray_host(settings.host), "--labels", f"{LABEL}={settings.rig_id}"]
    command += ["--num-cpus", "1", "--num-gpus", "0", "--object-store-memory", str(OBJECT_STORE_BYTES)]
    command += [
        "--temp-dir",
        str(settings.session_folder),
        "--include-log-monitor",
        "false",
        "--log-style",
        "record",
        "--log-color",
        "false",
    ]
    for option, name in (
        ("node-manager-port", "node_manager"),
        ("object-manager-port", "object_manager"),
        ("dashboard-agent-listen-port", "agent_http"),
        ("dashboard-agent-grpc-port", "agent_grpc"),
        ("metrics-export-port", "metrics"),
        ("runtime-env-agent-port", "runtime_env"),
    ):
        command += [f"--{option}", str(ports[name])]
    command += ["--worker-port-list", ",".join(map(str, settings.ports.ray_workers))]
    if settings.head:
        return [*command, "--address", settings.head]
    command += ["--head", "--no-monitor", "--port", str(ports["gcs"]), "--ray-client-server-port", str(ports["client_server"])]
    command += ["--include-dashboard", str(settings.dashboard).lower()]
    return [*command, "--dashboard-host", "127.0.0.1", "--dashboard-port", str(ports["dashboard"])]


class RayNode:
    """A Ray node of this process: it ends with it, however that ends.

    Raises UsageError where the folder's path is too long for Ray's sockets.
    """

    def __init__(self, settings: RayNodeSettings, environment: Mapping[str, str]) -> None:
        longest = SOCKET_PATH_BYTES - RAY_PATH_BYTES
        if len(str(settings.folder).encode()) > longest:
            raise UsageError(f"{settings.folder} is too long a path for Ray's sockets: use a folder of at most {longest} bytes")
        self.settings = settings
        self._environment = ray_environment(settings, environment)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        """For a process that connects to this node as a driver."""
        return dict(self._environment)

    async def start(self) -> None:
        """Start and wait until Ray says that it runs.

        Raises:
            PortInUse: a port was taken since it was looked at.
            NoSwarm: Ray did not start; the message has what it said last.
        """
        self.settings.folder.mkdir(parents=True, exist_ok=True)
        self.settings.folder.chmod(0o700)
        self.settings.write_papers()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cluster.keeper", str(self.settings.folder), *start_command(self.settings),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=self._environment,
        )  # fmt: skip
        said: list[str] = []
        try:
            async with asyncio.timeout(START_S):
                started = await self._started(said)
        except TimeoutError:
            started = False
        if not started:
            await self.stop()
            raise _failure(self.settings, said)
        self._reader = asyncio.create_task(self._read_on())

    async def _started(self, said: list[str]) -> bool:
        assert self._process
        async for line in lines_of(self._process):
            said.append(line.decode(errors="replace").rstrip())
            if "Ray runtime started" in said[-1]:
                return True
        return False

    async def _read_on(self) -> None:
        """Keep the pipe empty: a full one would stop Ray. What comes through it is when its processes die, and why."""
        assert self._process
        async for line in lines_of(self._process):
            said = line.decode(errors="replace").strip()
            if said and not _HINT.search(said):
                _LOG.warning("Ray says: %s", said)

    async def ended(self) -> int:
        """Wait until the node ends by itself; returns the exit code."""
        assert self._process
        return await self._process.wait()

    async def stop(self) -> None:
        """End the node and everything it started; returns when nothing of it is left."""
        if self._process is not None:
            if self._process.stdin:
                self._process.stdin.close()
            try:
                async with asyncio.timeout(STOP_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await asyncio.to_thread(shutil.rmtree, self.settings.folder, ignore_errors=True)  # a killed keeper leaves it


def _failure(settings: RayNodeSettings, said: list[str]) -> PortInUse | NoSwarm:
    lines = [line for line in said if "Error" in line or "rror:" in line or "PANIC" in line or "ERROR" in line] or said
    last = lines[-1] if lines else "it said nothing"
    if "already occupied" in last or "address already in use" in last.lower():
        return PortInUse(f"Ray found a port taken on {settings.host} ({last}): choose another range with --ports")
    where = f"to the swarm's Ray at {settings.head}" if settings.head else f"on {settings.host}"
    return NoSwarm(
        f"Ray did not start {where} ({last}): end other Ray processes on this machine, or choose other --ports, and try again"
    )
