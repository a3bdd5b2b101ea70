"""Where log lines come from: a Worker of each rig over gRPC, and this machine's own files where none answers for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from swarm.cli import options, settings
from swarm.cli.rigs_asked import known_rigs
from swarm.cli.rigs_noted import RigAt
from swarm.errors import Expired, Lost, NoSwarm, SwarmError
from swarm.logs.reader import Reader
from swarm.logs.record import Record, read_line
from swarm.wire.status import from_rpc
from swarm.wire.v1 import rig_pb2 as pb
from swarm.wire.v1.rig_pb2_grpc import RigServiceStub

ANSWER_S = 5.0
"""How long a Worker may take to begin."""
CLOCK_S = 1.0
"""Clocks of two machines that differ by less are taken for one."""


@dataclass
class RigLog:
    """What one rig says.

    Args:
        since_s: seconds before now; 0: all that is kept.
    """

    target: options.Target
    rig: RigAt
    since_s: float
    rig_id: str = ""
    ahead_s: float = 0.0
    """By how much its clock is ahead of this machine's, once it answered."""
    _latest: float = field(default=0.0)

    async def records(self, follow: bool) -> AsyncIterator[list[Record]]:
        """What it said, by this machine's clock; with `follow`, until the Worker that answers ends.

        Where it is called again it goes on behind what it said last.

        Raises:
            NoSwarm: none of its Workers answers. WrongKey: an invitation, or another swarm's key.
        """
        for address in self.rig.workers:
            async with self.target.channel(address) as channel:
                call = RigServiceStub(channel).Logs(pb.LogsRequest(since=self._seconds(), follow=follow))
                try:
                    asked = time.time()
                    replies = aiter(call)
                    first = await _first(replies)
                    self._met(first, asked, time.time())
                    async for reply in replies:
                        yield self._new(reply)
                    return
                except Expired:
                    continue
                except grpc.aio.AioRpcError as error:
                    meant = from_rpc(error, f"{self.rig.name} at {address}")
                    if not isinstance(meant, NoSwarm | Expired | Lost):
                        raise meant from None
                finally:
                    call.cancel()
        raise NoSwarm(f"{self.rig.name} does not show its logs, none of its workers answers: run `swarm logs` on {self.rig.name}")

    def _seconds(self) -> float:
        return max(time.time() - self._latest, 0.0) + 1.0 if self._latest else self.since_s

    def _met(self, first: pb.LogsReply, asked: float, answered: float) -> None:
        """Its clock was read some time between these two of ours: a slow way is no wrong clock."""
        ahead = first.clock - min(max(first.clock, asked), answered)
        self.rig_id, self.ahead_s = first.rig_id, ahead if abs(ahead) > CLOCK_S else 0.0

    def _new(self, reply: pb.LogsReply) -> list[Record]:
        records = [r.by(self.rig.name, self.ahead_s) for line in reply.lines if (r := read_line(line))]
        fresh = [r for r in records if r.at > self._latest]
        self._latest = max([self._latest, *(r.at for r in fresh)])
        return fresh


async def _first(replies: AsyncIterator[pb.LogsReply]) -> pb.LogsReply:
    """The first reply, which comes at once. Raises AioRpcError, or Expired where it does not come in time."""
    try:
        return await asyncio.wait_for(anext(replies), ANSWER_S)
    except (TimeoutError, StopAsyncIteration):
        raise Expired("it did not begin in time") from None


async def every_record(target: options.Target | None, since_s: float) -> list[Record]:
    """What all rigs said that can be asked, and this machine's own files, in the order of time; who is silent is left out."""
    found: list[Record] = []
    answered: set[str] = set()
    try:
        rigs = (await known_rigs(target)).rigs if target else ()
    except SwarmError:
        rigs = ()
    for rig in rigs:
        assert target
        log = RigLog(target, rig, since_s)
        with suppress(SwarmError):
            async for records in log.records(follow=False):
                found += records
            answered.add(log.rig_id)
    for rig_id, folder in own_logs(settings.state_dir()).items():
        if rig_id not in answered:
            found += own_reader(folder, since_s).new()
    return sorted(found, key=lambda record: record.at)


def own_logs(state_dir: Path) -> dict[str, Path]:
    """The folders of logs of this user's Rigs on this machine, by the Rig's id."""
    found: dict[str, Path] = {}
    for folder in sorted(state_dir.glob("rig-*/logs")):
        with suppress(OSError):
            found[(folder.parent / "id").read_text(encoding="utf-8").strip()] = folder
    return found


def own_reader(folder: Path, since_s: float) -> Reader:
    """Reads one of them from so many seconds ago."""
    return Reader(folder, time.time() - since_s if since_s else 0.0)
