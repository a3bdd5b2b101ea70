"""What commands that talk to a swarm share on their command lines."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import grpc.aio
import typer

from swarm.bits import GROUPS, NUMBER_BYTES
from swarm.cli import settings
from swarm.config import KV_WAYS
from swarm.errors import UsageError
from swarm.plan import Plan
from swarm.plan_check import OBJECTIVES
from swarm.wire.credentials import Credentials
from swarm.wire.invitation import is_invitation

if TYPE_CHECKING:
    from swarm.client.plan_source import PlanSource

Swarm = Annotated[
    str | None, typer.Option("--swarm", metavar="ADDRESS", help="The swarm to talk to, HOST:PORT. [default: the one remembered]")
]
Key = Annotated[
    str | None, typer.Option("--key", metavar="KEY", help="Its key. [default: SWARM_KEY, the one remembered, or asked]")
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", metavar="FILE", help="A file with its key in it.")]
PlanFile = Annotated[
    Path | None, typer.Option("--plan-file", metavar="FILE", help="Talk to Workers started with `swarm worker` from this Plan.")
]
Objective = Annotated[
    str, typer.Option("--objective", metavar="WHAT", help="What Plans are for: latency (one chat), throughput (many) or balanced.")
]
DTYPES = f"auto, {', '.join(NUMBER_BYTES)}, or {' or '.join(GROUPS)}; or forms by role, as in int4/32+attention=int8."
"""What --dtype takes, for its help."""
Group = Annotated[
    int,
    typer.Option("--group", metavar="N", help="Weights that share a scale: 32, 64 or 128 in int4; 16 or 32 in int8, else a row."),
]
Attention = Annotated[
    str, typer.Option("--attention", metavar="FORM", help="How q, k, v and o are kept, where not as the experts.")
]
Head = Annotated[str, typer.Option("--head", metavar="FORM", help="How the output matrix is kept, where not as the experts.")]
KV = Annotated[
    str,
    typer.Option("--kv", metavar="WAY", help=f"How keys and values are kept: {' or '.join(KV_WAYS)} (half of bf16, a little off)."),
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Where downloads and quantized weights are kept. [default: the usual folders]"),
]
CacheLimit = Annotated[
    str | None,
    typer.Option(
        "--cache-limit", metavar="SIZE", help="The most that quantized weights take of the disk, as 60GiB; kept until none."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
_TIME = re.compile(r"(\d{1,4})([mhdw])")


def check_objective(given: str) -> None:
    """Raise UsageError where --objective says nothing known; empty is as before."""
    if given and given not in OBJECTIVES:
        raise UsageError(f"--objective {given} is none of {', '.join(OBJECTIVES)}")


@dataclass(frozen=True)
class Target:
    """Whom a command talks to: a swarm by its address, or the Workers of a Plan file.

    Args:
        named: whether the address was given with --swarm.
        typed: whether the key was, with --key or at a prompt.
    """

    credentials: Credentials
    address: str = ""
    plan_file: Path | None = None
    named: bool = False
    typed: bool = False

    @property
    def what(self) -> str:
        """For messages."""
        return f"the workers of {self.plan_file}" if self.plan_file else f"the swarm at {self.address}"

    @asynccontextmanager
    async def channel(self, address: str = "") -> AsyncIterator[grpc.aio.Channel]:
        """A channel to the swarm, or to one Worker's address, closed at the end; with the key that is kept by now."""
        self.credentials.renew()
        channel = self.credentials.channel(address or self.address)
        try:
            yield channel
        finally:
            await channel.close(None)

    def answered(self) -> None:
        """The swarm is there and takes the key: commands after this one find it without its name."""
        if self.named:
            key = self.credentials.key if self.typed else ""
            settings.note_swarm(self.address, key, replaces=not is_invitation(key))

    def source(self, notify: Callable[[str], None] = lambda message: None) -> PlanSource:
        """Where a client gets the Plan from; `notify` is told why it takes a while."""
        from swarm.client.plan_source import FilePlan, SwarmPlan  # brings the tokenizer, which most commands do not need

        if self.plan_file is not None:
            return FilePlan(self.plan_file)
        return SwarmPlan(self.address, self.credentials, notify)


def target(swarm: str | None, key: str | None, key_file: Path | None, plan_file: Path | None = None) -> Target:
    """The Target that these options name.

    Workers of a Plan file need a key only where they were started with one, so none is asked for or remembered there.

    Raises:
        UsageError: --swarm and --plan-file together, or an unreadable file or address.
        NoSwarm, WrongKey: see `settings`.
    """
    if plan_file is not None:
        if swarm:
            raise UsageError("--swarm and --plan-file name two different swarms: give one of them")
        return Target(Credentials(settings.explicit_key(key, key_file)), plan_file=plan_file)
    address = settings.resolve_swarm(swarm)
    given, remembered = settings.explicit_key(key, key_file), address in settings.recall().keys
    found = settings.resolve_key(key, key_file, address)
    kept = None if given else lambda: settings.recall().keys.get(address, "")
    typed = key is not None or not (given or remembered)
    return Target(Credentials(found, kept=kept), address=address, named=swarm is not None, typed=typed)


def seconds(option: str, given: str) -> int:
    """Seconds of `30m`, `12h`, `30d` or `4w`. Raises UsageError."""
    if not (found := _TIME.fullmatch(given)):
        raise UsageError(f"{option} {given} is no time: write minutes, hours, days or weeks, such as 30m, 12h, 30d or 4w")
    return int(found[1]) * _SECONDS[found[2]]


def read_plan(path: Path) -> Plan:
    """The Plan in a file.

    Raises:
        UsageError: the file cannot be read.
        PlacementError: it is no Plan, or breaks an invariant.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the plan file {path} cannot be read ({error}): write one with `swarm plan --out {path}`") from None
    return Plan.from_json(text, str(path))
