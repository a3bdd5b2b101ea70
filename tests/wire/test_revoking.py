"""An invitation that was called back: its calls end, no other is answered, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from plans import plan_of
from raw_client import raw, step
from swarm_processes import until, workers_here

from cluster.revocations import Revocations
from swarm.errors import Refused, WrongKey
from swarm.plan import Plan
from swarm.wire import invitation
from swarm.wire.admission import Admission
from swarm.wire.authority import Authority
from swarm.wire.credentials import Credentials
from swarm.wire.revoking import request_for
from swarm.wire.status import from_rpc
from swarm.wire.v1 import key_pb2_grpc
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.key_pb2 import RevokeRequest
from swarm.wire.v1.key_pb2_grpc import KeyServiceStub
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub

KEY = "a key"
MEMBER = Credentials(KEY, "desk")
AUTHORITY = Authority.of(KEY)
TEXT = list(range(30, 60))


class Guest:
    """Somebody with an invitation."""

    def __init__(self, name: str) -> None:
        papers = AUTHORITY.client(name, datetime.now(UTC) + timedelta(days=1))
        self.credentials = Credentials(invitation.write(papers))
        self.number = x509.load_pem_x509_certificate(papers.certificate).serial_number


@asynccontextmanager
async def door(workers: list[str], path: Path) -> AsyncIterator[str]:
    """Where the list is kept; it tells these Workers, and waits for a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cluster.revocations.ANSWER_S", 15.0)
        async with _door(workers, path) as address:
            yield address


@asynccontextmanager
async def _door(workers: list[str], path: Path) -> AsyncIterator[str]:
    admission = Admission()
    server = MEMBER.server(admission)
    revocations = Revocations(admission, MEMBER, path, lambda: workers)
    key_pb2_grpc.add_KeyServiceServicer_to_server(revocations, server)
    port = MEMBER.bind(server, "127.0.0.1:0")
    await server.start()
    telling = asyncio.create_task(revocations.run())
    yield f"127.0.0.1:{port}"
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await server.stop(None)


async def revoke(who: Credentials, address: str, *guests: Guest) -> list[str]:
    """The Workers that did not hear of it."""
    async with who.channel(address) as channel:
        reply = await KeyServiceStub(channel).Revoke(request_for(g.number for g in guests), timeout=20)
    return list(reply.silent)


async def how_it_ends(call: Any) -> Exception:
    """The error that a stream ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async with asyncio.timeout(60):
            while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                pass
    return from_rpc(raised.value, "it")


def listen(channel: grpc.aio.Channel, plan: Plan, name: bytes) -> Any:
    return StageServiceStub(channel).Listen(pb.ListenRequest(client=name * 16, model_id=plan.model.model_id))


async def test_a_revoked_guest_is_cut_off_from_every_worker_and_others_chat_on(tmp_path: Path) -> None:
    plan, lost, kept = plan_of([4, 8]), Guest("lost"), Guest("kept")
    addresses = [w.address for w in plan.workers]
    async with workers_here(plan, MEMBER), door(addresses, tmp_path / "revoked.json") as address, AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(lost.credentials.channel(a)) for a in addresses]
        streams = [listen(channel, plan, b"a") for channel in channels]
        for stream in streams:
            await stream.read()
        friend = await stack.enter_async_context(raw(plan, kept.credentials))
        session = await friend.open(64)
        await friend.ask(step(session, TEXT, 0, 10))
        assert await revoke(MEMBER, address, lost) == []
        for error in [await how_it_ends(stream) for stream in streams]:
            assert isinstance(error, WrongKey) and "this invitation was revoked: ask who invited you" in str(error)
        assert isinstance(await how_it_ends(listen(channels[0], plan, b"b")), WrongKey)
        async with lost.credentials.channel(addresses[0]) as again:
            assert isinstance(await how_it_ends(listen(again, plan, b"c")), WrongKey)
        assert await friend.ask(step(session, TEXT, 10, 11))


async def test_a_worker_that_was_away_hears_of_it_later_and_a_restarted_door_still_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.revocations.TELL_S", 0.05)
    plan, lost = plan_of([8]), Guest("lost")
    worker = plan.workers[0].address
    async with door([worker], tmp_path / "revoked.json") as address:
        assert await revoke(MEMBER, address, lost) == [worker]
    refused: list[Exception] = []
    async with workers_here(plan, MEMBER), door([worker], tmp_path / "revoked.json"), lost.credentials.channel(worker) as channel:
        stream = listen(channel, plan, b"a")
        ending = asyncio.create_task(how_it_ends(stream))
        await until(ending.done, "a worker that came later did not hear of it")
        refused.append(ending.result())
    assert isinstance(refused[0], WrongKey)


async def test_only_members_revoke_and_only_what_can_be_a_number(tmp_path: Path) -> None:
    guest, other = Guest("guest"), Guest("other")
    async with door([], tmp_path / "revoked.json") as address:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await revoke(guest.credentials, address, other)
        assert isinstance(from_rpc(raised.value, "it"), WrongKey)
        async with MEMBER.channel(address) as channel:
            for numbers in ([bytes(21)], [b"1"] * 10_001):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await KeyServiceStub(channel).Revoke(RevokeRequest(numbers=numbers), timeout=20)
                assert isinstance(from_rpc(raised.value, "it"), Refused)
    assert not (tmp_path / "revoked.json").exists()
