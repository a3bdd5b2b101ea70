"""The other Workers of a Plan: one channel to each, for single calls and streams alike."""

from __future__ import annotations

from collections.abc import Collection

import grpc.aio

from swarm.wire.credentials import Credentials
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub


class Peers:
    """Channels by address. Each connects when first used."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[str, StageServiceStub] = {}

    def stub(self, address: str) -> StageServiceStub:
        if address not in self._stubs:
            self._channels[address] = self._credentials.channel(address)
            self._stubs[address] = StageServiceStub(self._channels[address])
        return self._stubs[address]

    async def keep_only(self, addresses: Collection[str]) -> None:
        """Close the channels to all others."""
        for address in self._channels.keys() - set(addresses):
            del self._stubs[address]
            await self._channels.pop(address).close(None)
