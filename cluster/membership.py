"""This Rig's place in a swarm: knock, join, join again when the Coordinator lost it, leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc.aio

from cluster.own_devices import OwnDevices
from swarm.errors import DoorError, Expired, NoSwarm, SwarmError
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1 import swarm_pb2_grpc

KNOCK_S = 10.0
AGAIN_S = 1.0
DIALLED_S = 30.0
"""How long a knock may take: every Rig of the swarm dials this one."""
STILL_S = 60.0
"""How long a swarm that is left may say nothing; how long it takes in all is up to what it has to load."""


class Membership:
    """Speaks to the swarm's door at an address (host:port).

    Args:
        notify: takes what people should know: where the Plan stands, that the swarm is gone or back.
        come_back: awaited before joining again: a swarm that was away may be another one. What it raises, refuses.
        rig_id: said while it follows the Plan, so that a Rig whose Workers are all silent does not count as gone.
    """

    def __init__(
        self,
        credentials: Credentials,
        address: str,
        notify: Callable[[str], None],
        come_back: Callable[[], Awaitable[None]] | None = None,
        rig_id: str = "",
    ) -> None:
        self._credentials = credentials
        self._before: list[grpc.aio.Channel] = []
        """Of keys and addresses before: closing one would cancel whoever waits for what is under way on it."""
        self._dial(address)
        self._notify, self._come_back, self._rig_id = notify, come_back, rig_id
        self._request: pb.JoinRequest | None = None
        self._joining = asyncio.Lock()
        self._told_away = False

    async def knock(self, request: pb.KnockRequest) -> pb.KnockReply:
        """Ask to be let in. Raises NoSwarm, WrongKey, VersionMismatch or Unreachable."""
        try:
            reply: pb.KnockReply = await self._stub.Knock(request, timeout=DIALLED_S)
            return reply
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self._what) from None

    async def join(self, request: pb.JoinRequest) -> pb.JoinReply:
        """Bring Devices in; answers when they are in a Plan or known to wait.

        A swarm that goes away meanwhile is asked again when it is back: Ray starts a Coordinator that ended anew. Raises
        SwarmError where it refuses.
        """
        self._request = request
        async with self._joining:
            while True:
                try:
                    if self._told_away and self._come_back:
                        await self._come_back()
                    return await self._ask_to_join(request)
                except (NoSwarm, Expired):
                    self._tell_away()
                await asyncio.sleep(AGAIN_S)

    async def stay(self) -> None:
        """Tell `notify` what becomes of the Plan, and join again when the swarm comes back; until cancelled."""
        while True:
            try:
                await self._follow()
            except grpc.aio.AioRpcError:
                self._tell_away()
            await asyncio.sleep(AGAIN_S)
            if self._request and not self._joining.locked():
                await self._join_again(self._request)

    async def watch_devices(self) -> None:
        """Tell `notify` which of this Rig's Devices are left out, until cancelled."""
        await OwnDevices(lambda: self._stub, self._rig_id, self._notify).watch()

    async def restarted(self, worker_address: str) -> None:
        """A Worker was started anew and holds nothing. A swarm that is gone is told when it is back."""
        assert self._request
        request = pb.WorkerRestartedRequest(rig_id=self._request.rig_id, worker_address=worker_address)
        try:
            await self._stub.WorkerRestarted(request, timeout=KNOCK_S)
        except grpc.aio.AioRpcError as error:
            if isinstance(from_rpc(error, self._what), DoorError):
                return  # `stay` joins again, and joining tells all

    async def leave(self) -> None:
        """Have this Rig's Blocks moved, then go; tells `notify` how far it is. Raises SwarmError, also where nothing moves on."""
        assert self._request
        said = ""
        leaving = aiter(self._stub.Leave(pb.LeaveRequest(rig_id=self._request.rig_id)))
        try:
            while True:
                async with asyncio.timeout(STILL_S):
                    progress = await anext(leaving)
                what = progress.message.partition(":")[0]
                if what != said:
                    self._notify(progress.message)
                said = what
        except StopAsyncIteration:
            return
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self._what) from None
        except TimeoutError:
            raise Expired(f"{self._what} said nothing for {STILL_S:.0f} s: this rig goes all the same") from None

    def move(self, address: str) -> None:
        """The swarm's door is at another host:port from now on. What is under way there ends by itself."""
        self._before.append(self._channel)
        self._dial(address)

    def redial(self) -> None:
        """There is another key. What is under way goes on as long as the swarm lets it."""
        self._before.append(self._channel)
        self._dial(self.address)

    async def close(self) -> None:
        for channel in (*self._before, self._channel):
            await channel.close(None)

    def _dial(self, address: str) -> None:
        self.address, self._what = address, f"the swarm at {address}"
        self._channel = self._credentials.channel(address)
        self._stub = swarm_pb2_grpc.SwarmServiceStub(self._channel)

    async def _follow(self) -> None:
        """Returns when the stream ends. Says each thing once: how far it is, behind the colon, changes all the time."""
        said = ""
        async for reply in self._stub.WatchPlan(pb.PlanRequest(rig_id=self._rig_id)):
            what = reply.waiting.partition(":")[0]
            if what and what != said:
                self._notify(f"the swarm {reply.waiting}")
            said = what

    async def _join_again(self, request: pb.JoinRequest) -> None:
        refused = ""
        while True:
            try:
                if self._come_back:
                    await self._come_back()
                await self._ask_to_join(request)
            except (NoSwarm, Expired):
                pass
            except SwarmError as error:
                if str(error) != refused:
                    self._notify(refused := str(error))
            else:
                self._notify(f"joined {self._what} again")
                return
            await asyncio.sleep(AGAIN_S)

    async def _ask_to_join(self, request: pb.JoinRequest) -> pb.JoinReply:
        try:
            reply: pb.JoinReply = await self._stub.Join(request)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self._what) from None
        self._told_away = False
        return reply

    def _tell_away(self) -> None:
        """Once, until it answers again."""
        if not self._told_away:
            self._notify(f"{self._what} does not answer; the workers go on, and join again when it is back")
        self._told_away = True
