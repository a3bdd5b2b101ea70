"""`swarm report`: one file to attach to a bug.

It has the versions, the swarm's status and Plan with its figures, what `swarm doctor` finds here, what lies on the disks, and
what all processes said of late. Keys are left out. Names of rigs, hosts and users, addresses and home folders are replaced, each
by the same word everywhere: `rig-1`, `address-2`. What was asked and answered is never in it. It is text: read it before you send
it. Where the swarm does not answer, it has what this machine knows.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import grpc.aio
import typer

from swarm import __version__
from swarm.cli import options, output, settings
from swarm.cli.log_sources import every_record, own_logs
from swarm.cli.models import look
from swarm.cli.redaction import Redaction
from swarm.cli.service import state
from swarm.cli.status import ask
from swarm.cli.unit import NAME
from swarm.errors import NoSwarm, SwarmError, UsageError, WrongKey
from swarm.wire.status import from_rpc
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

PACKAGES = ("torch", "ray", "grpcio", "protobuf", "numpy", "safetensors", "huggingface_hub", "transformers", "triton", "typer")
RECORDS = 3000
"""Of the logs, the latest."""
LAST_WORDS = 60
"""Lines of what each Worker here wrote to standard error."""
ANSWER_S = 5.0
DOCTOR_S = 60.0


def report(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to. [default: a file here, named by the time]")
    ] = None,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="What was said from so long ago on: 30m, 12h, 7d.")] = "1d",
    swarm: options.Swarm = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Write one file to attach to a bug, with keys, names and addresses left out, and nothing of what was asked or answered."""
    since_s = options.seconds("--since", since)
    try:
        target = options.target(swarm, key, key_file)
    except (NoSwarm, WrongKey):
        target = None
    parts = asyncio.run(_Parts(target, since_s).gather())
    said = settings.explicit_key(key, key_file)
    text = _redaction(parts, said).of(_text(parts))
    path = out or Path(time.strftime("swarm-report-%Y%m%d-%H%M%S.txt"))
    try:
        settings.write_private(path.absolute(), text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): give another file with --out") from None
    output.stdout().print(f"{path}: read it before you attach it", soft_wrap=True)


@dataclass(frozen=True)
class _Parts:
    """What goes into the file, by heading."""

    target: options.Target | None
    since_s: float

    async def gather(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"versions": _versions(), "service": asdict(state(settings.unit_dir() / NAME))}
        parts["status"] = await self._of_the_swarm(ask)
        parts["plan"] = await self._of_the_swarm(_plan)
        parts["models"] = await _tried(look(self.target))
        parts["doctor"] = await _tried(_doctor())
        records = await every_record(self.target, self.since_s)
        parts["logs"] = [json.loads(record.line()) for record in records[-RECORDS:]]
        parts["last words of workers"] = _last_words()
        return parts

    async def _of_the_swarm(self, asked: Callable[[options.Target], Coroutine[Any, Any, Any]]) -> Any:
        if self.target is None:
            return "no swarm is known here"
        return await _tried(asked(self.target))


async def _tried(part: Coroutine[Any, Any, Any]) -> Any:
    """A part, or why it cannot be had: a report of what is broken must not break."""
    try:
        return await part
    except (SwarmError, OSError, ModuleNotFoundError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"


async def _plan(target: options.Target) -> Any:
    async with target.channel() as channel:
        try:
            reply = await SwarmServiceStub(channel).GetPlan(pb.PlanRequest(), timeout=ANSWER_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, target.what) from None
    try:
        return json.loads(reply.plan) if reply.plan else reply.waiting
    except (ValueError, RecursionError):
        return "what the swarm says of its plan is no JSON"


async def _doctor() -> Any:
    from cluster.address import own_address  # with the next ones, what looks at cards and networks
    from cluster.ports import DEFAULT_PORTS
    from swarm.cli.examination import Machine, examine

    async with asyncio.timeout(DOCTOR_S):
        return (await examine(Machine(platform.node(), own_address(), DEFAULT_PORTS, None))).document()


def _versions() -> dict[str, str]:
    found = {"swarm": __version__, "python": sys.version.split()[0], "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _last_words() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for folder in own_logs(settings.state_dir()).values():
        for path in sorted(folder.parent.glob("worker-*.log")):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_WORDS:]
            found |= {f"{folder.parent.name} {path.stem}": lines} if lines else {}
    return found


def _text(parts: dict[str, Any]) -> str:
    chunks = [f"swarm report of {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}"]
    for name, part in parts.items():
        lines = (
            [json.dumps(p, ensure_ascii=False) for p in part]
            if isinstance(part, list)
            else [json.dumps(part, indent=1, ensure_ascii=False)]
        )
        chunks.append("\n".join([f"== {name}", *lines]))
    return "\n\n".join(chunks) + "\n"


def _redaction(parts: dict[str, Any], said_key: str) -> Redaction:
    status = parts["status"] if isinstance(parts["status"], dict) else {}
    rigs = [str(r.get("name", "")) for r in status.get("rigs", ())] + [str(w.get("rig", "")) for w in status.get("workers", ())]
    rigs += [str(line.get("rig", "")) for line in parts["logs"]]
    node, user = platform.node(), settings.user_name()
    private = {node: "host", node.partition(".")[0]: "host", **({user: "user"} if user not in ("", "root") else {})}
    secrets = {said_key, *settings.kept_keys()}
    return Redaction(secrets, rigs, private, homes=[str(Path.home()), os.environ.get("SWARM_HOME", "")])
