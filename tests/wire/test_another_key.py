"""Another key for what runs: both are accepted for a while, then the old one is refused, also on connections that are open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest

from swarm.errors import WrongKey
from swarm.wire import admission, invitation
from swarm.wire.authority import Authority
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1 import swarm_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]
Load: TypeAlias = "grpc.aio.UnaryStreamCall[pb.LoadRequest, pb.Progress]"  # generic in its stubs alone


class Hall(rpc.SwarmServiceServicer):
    begun, over = asyncio.Event(), asyncio.Event()
    """Of the one call of Load: its message is on its way; nobody makes another one."""

    async def GetPlan(self, request: pb.PlanRequest, context: Context) -> pb.PlanReply:
        return pb.PlanReply(waiting="hello")

    async def WatchPlan(self, request: pb.PlanRequest, context: Context) -> AsyncIterator[pb.PlanReply]:
        yield pb.PlanReply(waiting="hello")
        await asyncio.Event().wait()

    async def Load(self, request: pb.LoadRequest, context: Context) -> AsyncIterator[pb.Progress]:
        try:
            self.begun.set()
            yield pb.Progress(message="x" * (32 << 20))
            await asyncio.Event().wait()
        finally:
            self.over.set()


@asynccontextmanager
async def hall(credentials: Credentials) -> AsyncIterator[str]:
    server = credentials.server()
    rpc.add_SwarmServiceServicer_to_server(Hall(), server)
    address = f"127.0.0.1:{credentials.bind(server, '127.0.0.1:0')}"
    await server.start()
    yield address
    await server.stop(None)


async def ask(who: Credentials, address: str) -> str:
    """What is answered over a connection of its own. Raises our errors."""
    async with who.channel(address) as channel:
        return await ask_over(channel)


async def ask_over(channel: grpc.aio.Channel) -> str:
    try:
        reply = await rpc.SwarmServiceStub(channel).GetPlan(pb.PlanRequest(), timeout=20)
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, "the hall") from None
    return str(reply.waiting)


async def test_both_keys_are_accepted_until_the_old_one_is_refused_in_words_on_what_is_open_and_at_the_door_to_others() -> None:
    ours, old, new = Credentials("old", "hall"), Credentials("old"), Credentials("new")
    guest = Credentials(invitation.write(Authority.of("old").client("ada", datetime.now(UTC) + timedelta(days=1))))
    async with hall(ours) as address, old.channel(address) as open_already, guest.channel(address) as invited:
        assert await ask_over(open_already) == await ask_over(invited) == "hello"
        with pytest.raises(WrongKey):
            await ask(new, address)
        ours.accept("new")
        assert [await ask(who, address) for who in (old, new, guest)] == ["hello"] * 3
        ours.use("new")
        assert [await ask(who, address) for who in (old, new, guest)] == ["hello"] * 3
        watching = rpc.SwarmServiceStub(open_already).WatchPlan(pb.PlanRequest())
        await watching.read()
        ours.settle()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async with asyncio.timeout(60):
                await watching.read()
        assert isinstance(why := from_rpc(ended.value, "the hall"), WrongKey) and "the swarm's key was changed" in str(why)
        for channel in (open_already, invited):
            with pytest.raises(WrongKey, match="the swarm's key was changed: ask for the new one"):
                await ask_over(channel)
        with pytest.raises(WrongKey, match="does not accept this key"):
            await ask(old, address)
        with pytest.raises(WrongKey, match="does not accept this key"):
            await ask(guest, address)
        assert await ask(new, address) == "hello"


async def test_a_second_change_of_key_is_like_the_first() -> None:
    ours, keys = Credentials("k0", "hall"), [Credentials(f"k{n}") for n in range(4)]
    async with hall(ours) as address:
        for before, after in pairwise(keys):
            ours.accept(after.key)
            assert [await ask(who, address) for who in (before, after)] == ["hello"] * 2
            ours.use(after.key)
            assert [await ask(who, address) for who in (before, after)] == ["hello"] * 2
            ours.settle()
            with pytest.raises(WrongKey):
                await ask(before, address)
            assert await ask(after, address) == "hello"


async def refused_behind(reading: Load) -> bool:
    """Whether a call that is read to its end gave its message, and the refusal behind it."""
    sizes = []
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        async with asyncio.timeout(60):
            while True:
                sizes.append(len((await reading.read()).message))
    return sizes == [32 << 20] and isinstance(from_rpc(ended.value, "the hall"), WrongKey)


@asynccontextmanager
async def half_sent(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Load, type[Hall]]]:
    """A call whose client took nothing yet of the one message on its way when its key was settled against it."""
    for event in ("begun", "over"):
        monkeypatch.setattr(Hall, event, asyncio.Event())
    ours, old = Credentials("old", "hall"), Credentials("old")
    async with hall(ours) as address, old.channel(address) as channel:
        ours.use("new")
        reading = rpc.SwarmServiceStub(channel).Load(pb.LoadRequest())
        async with asyncio.timeout(60):
            await Hall.begun.wait()
        await asyncio.sleep(0.5)
        ours.settle()
        yield reading, Hall


async def test_who_is_being_sent_something_hears_of_it_behind_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "HALF_SENT_S", 60.0)
    async with half_sent(monkeypatch) as (reading, of_the_hall):
        await asyncio.sleep(0.1)
        assert not of_the_hall.over.is_set()
        assert await refused_behind(reading)


async def test_who_takes_nothing_of_what_is_sent_is_not_waited_for_and_hears_of_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "HALF_SENT_S", 0.2)
    async with half_sent(monkeypatch) as (reading, of_the_hall):
        async with asyncio.timeout(60):
            await of_the_hall.over.wait()
        assert await refused_behind(reading)


async def test_who_is_gone_before_it_took_anything_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with half_sent(monkeypatch) as (reading, of_the_hall):
        reading.cancel()
        async with asyncio.timeout(60):
            await of_the_hall.over.wait()


async def test_a_certificate_that_names_the_new_authority_and_was_issued_by_the_old_one_is_cut_off_with_it() -> None:
    ours, old = Credentials("old", "hall"), Authority.of("old")
    forged = old.member("rig", [f"{Credentials('new').papers.server}"])
    async with hall(ours) as address:
        ours.use("new")
        options = [("grpc.ssl_target_name_override", Credentials("old").papers.server)]
        shown = grpc.ssl_channel_credentials(old.certificate, forged.private_key, forged.certificate)
        async with grpc.aio.secure_channel(address, shown, options=options) as channel:
            assert await ask_over(channel) == "hello"
            ours.settle()
            with pytest.raises(WrongKey, match="the swarm's key was changed"):
                await ask_over(channel)


async def test_a_key_that_was_offered_and_is_not_used_is_forgotten() -> None:
    ours = Credentials("old", "hall")
    async with hall(ours) as address:
        ours.accept("new")
        assert await ask(Credentials("new"), address) == "hello"
        ours.accept("")
        with pytest.raises(WrongKey):
            await ask(Credentials("new"), address)
        assert await ask(Credentials("old"), address) == "hello"


async def test_who_found_its_key_where_another_one_is_kept_now_goes_on_with_that() -> None:
    kept = ["old"]
    client = Credentials("old", kept=lambda: kept[0])
    assert not client.renew()
    async with hall(Credentials("new", "hall")) as address:
        with pytest.raises(WrongKey):
            await ask(client, address)
        kept[0] = "new"
        assert client.renew() and await ask(client, address) == "hello"
    assert not Credentials("old").renew()
