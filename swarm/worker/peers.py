"""The other Workers of a Plan: one channel to each, for single calls and streams alike; through a Unix socket on one rig, where
streams do without gRPC as well."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TypeVar

import grpc.aio
from google.protobuf.message import Message

from swarm.plan import Plan
from swarm.wire import near
from swarm.wire.credentials import Credentials
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub
from swarm.worker.near_streams import Call, NearStream

In = TypeVar("In", bound=Message)

FINISH_S = 1.0
"""What is under way on a channel that is given up may take so long."""


class Peers:
    """Channels by address. Each connects when first used."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._key = credentials.key
        self._before: list[grpc.aio.Channel] = []
        """Those that were made with the key before."""
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[str, StageServiceStub] = {}
        self._beside: dict[str, str] = {}
        """Address → name, of the Workers on this rig."""
        self._left: list[grpc.aio.Channel] = []
        """Ways that nobody takes any more, not closed yet."""

    def know(self, plan: Plan, name: str) -> None:
        """Learn who is on the same rig as the Worker of that name."""
        rig = plan.worker(name).rig
        for worker in plan.workers:
            was = self._beside.pop(worker.address, "")
            if worker.rig == rig:
                self._beside[worker.address] = worker.name
            if was != self._beside.get(worker.address, "") and worker.address in self._stubs:
                del self._stubs[worker.address]
                self._left.append(self._channels.pop(worker.address))  # that address is another Rig's by now, or this one's

    def stub(self, address: str) -> StageServiceStub:
        """For one call: with another key it is another one."""
        if self._key != self._credentials.key:
            self._key = self._credentials.key
            self._before += self._channels.values()
            self._channels, self._stubs = {}, {}
        if address not in self._stubs:
            self._channels[address] = self._credentials.channel(self._nearest(address))
            self._stubs[address] = StageServiceStub(self._channels[address])
        return self._stubs[address]

    async def near(self, address: str, call: Call, reply: type[In], on_reply: Callable[[In], None]) -> NearStream[In] | None:
        """A stream to a Worker of this rig; None where that is another rig's, or takes none."""
        worker = self._beside.get(address)
        path = near.streams_of(worker, near.port_of(address)) if worker else None
        if path is not None:
            with suppress(OSError):  # nobody listens there any more
                return await NearStream.to(path, call, reply, on_reply)
        return None

    async def keep_only(self, addresses: Collection[str]) -> None:
        """Close the channels to all others."""
        while self._left:
            await self._left.pop().close(None)
        left = [self._channels.pop(address) for address in self._channels.keys() - set(addresses)]
        self._stubs = {address: self._stubs[address] for address in self._channels}
        for channel in left:  # meanwhile there may be others, of another key
            await channel.close(None)

    async def settle(self) -> None:
        """Close the channels that were made with the key before."""
        before, self._before = self._before, []
        for channel in before:
            await channel.close(FINISH_S)

    def _nearest(self, address: str) -> str:
        worker = self._beside.get(address)
        return (near.address_of(worker, near.port_of(address)) if worker else None) or address
