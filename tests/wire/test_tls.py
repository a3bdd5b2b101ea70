"""TLS on real sockets: who is let in, what the others are told, and that the server goes on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from claimed_ports import claimed_port
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from swarm.errors import NoSwarm, WrongKey
from swarm.wire import invitation
from swarm.wire.authority import MEMBER, Authority, Papers, server_of
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc, silence
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1 import swarm_pb2_grpc as rpc

KEY = "secret"
MEMBERS = Credentials(KEY, "attic")
STRANGER = Credentials("guessed")
AUTHORITY = Authority.of(KEY)
DAY = timedelta(days=1)
Context = grpc.aio.ServicerContext[Any, Any]


class Hall(rpc.SwarmServiceServicer):
    """What is behind the door: one call of each kind."""

    async def GetPlan(self, request: pb.PlanRequest, context: Context) -> pb.PlanReply:
        return pb.PlanReply(waiting="hello")

    async def WatchPlan(self, request: pb.PlanRequest, context: Context) -> AsyncIterator[pb.PlanReply]:
        yield pb.PlanReply(waiting="hello")

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinReply:
        return pb.JoinReply(message="joined")

    async def Leave(self, request: pb.LeaveRequest, context: Context) -> AsyncIterator[pb.Progress]:
        for message in ("moving", "gone"):
            yield pb.Progress(message=message)


@asynccontextmanager
async def hall(credentials: Credentials = MEMBERS) -> AsyncIterator[str]:
    server = credentials.server()
    rpc.add_SwarmServiceServicer_to_server(Hall(), server)
    address = f"127.0.0.1:{credentials.bind(server, '127.0.0.1:0')}"
    await server.start()
    yield address
    await server.stop(None)


@dataclass(eq=False)
class Shown(Credentials):
    """Shows what a test says, whatever the key is."""

    shown: Papers | None = None

    @property
    def papers(self) -> Papers:  # type: ignore[override]
        assert self.shown
        return self.shown


def showing(papers: Papers) -> Credentials:
    return Shown("anything", shown=papers)


def invited(until: datetime) -> str:
    return invitation.write(AUTHORITY.client("a friend", until))


async def ask(credentials: Credentials, address: str) -> str:
    async with credentials.channel(address) as channel:
        try:
            return str((await rpc.SwarmServiceStub(channel).GetPlan(pb.PlanRequest(), timeout=60)).waiting)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, "the swarm") from None


async def send(address: str, junk: bytes) -> None:
    """Write to a port and wait until it hangs up, or says something."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(junk)
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            await reader.read()
    writer.close()


async def test_who_has_the_key_is_let_in_and_no_address_is_named() -> None:
    async with hall() as address:
        assert await ask(Credentials(KEY, "desk"), address) == "hello"
    shown = x509.load_pem_x509_certificate(MEMBERS.papers.certificate)
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [MEMBER, server_of(MEMBERS.fingerprint)] and len(list(names)) == 2
    assert shown.subject.rfc4514_string() == "CN=attic"


def test_what_goes_to_another_process_is_the_key_and_no_papers() -> None:
    assert MEMBERS.papers_at(["10.0.0.2"]).certificate != MEMBERS.papers.certificate
    arrived = pickle.loads(pickle.dumps(MEMBERS))
    assert (arrived.key, arrived.name) == (MEMBERS.key, MEMBERS.name)
    assert arrived.papers.private_key != MEMBERS.papers.private_key


def test_a_key_is_the_same_authority_on_every_rig_and_in_every_version() -> None:
    public = x509.load_pem_x509_certificate(Authority.of(KEY).certificate).public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert hashlib.sha256(der).hexdigest() == "987eb4a3f7accda1f2859ebfe6ee75d538d6ea8cdbea71124ea7867b3365c0b1"


async def test_another_key_is_refused_by_the_client_before_it_says_anything() -> None:
    async with hall() as address:
        with pytest.raises(WrongKey, match="does not accept this key: give the one"):
            await ask(STRANGER, address)
        assert await ask(MEMBERS, address) == "hello"


REFUSED = {
    "plain text": Credentials(),
    "another swarm's certificate": showing(replace(Authority.of("guessed").member("x"), authority=AUTHORITY.certificate)),
    "an expired invitation": showing(AUTHORITY.client("a friend", datetime.now(UTC) - DAY)),
}


@pytest.mark.parametrize("who", REFUSED)
async def test_a_server_hangs_up_on_who_shows_no_certificate_of_its_swarm_and_goes_on(who: str) -> None:
    async with hall() as address:
        with pytest.raises(NoSwarm, match=r"hangs up; it is ending, or wants a key \(--key\), or an invit"):
            await ask(REFUSED[who], address)
        assert await ask(MEMBERS, address) == "hello"


async def test_a_server_hangs_up_on_who_shows_no_certificate_at_all() -> None:
    options = [("grpc.ssl_target_name_override", MEMBER)]
    async with hall() as address:
        channel = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(AUTHORITY.certificate), options=options)
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await rpc.SwarmServiceStub(channel).GetPlan(pb.PlanRequest(), timeout=60)
        assert "hangs up" in silence(raised.value)
        assert await ask(MEMBERS, address) == "hello"


async def test_bytes_that_are_no_tls_cost_the_server_nothing() -> None:
    async with hall() as address:
        for junk in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 64, b"\x16\x03\x01\xff\xff" + bytes(70_000)):
            await send(address, junk)
        assert await ask(MEMBERS, address) == "hello"


async def test_somebody_else_at_the_address_is_not_taken_for_a_wrong_key() -> None:
    async with hall(Credentials()) as address:
        with pytest.raises(NoSwarm, match="does not speak TLS"):
            await ask(MEMBERS, address)
    with pytest.raises(NoSwarm, match="does not answer"):
        await ask(MEMBERS, f"127.0.0.1:{claimed_port()}")


@pytest.mark.parametrize("papers", [Authority.of("guessed").member("x"), AUTHORITY.client("x", datetime.now(UTC) + DAY)])
async def test_nobody_but_a_member_can_pass_for_the_swarm(papers: Papers) -> None:
    """A server of another key, and one that shows an invitation."""
    async with hall(showing(papers)) as address:
        with pytest.raises(WrongKey):
            await ask(MEMBERS, address)


async def test_an_invitation_is_for_chatting_and_not_for_joining() -> None:
    friend = Credentials(invited(datetime.now(UTC) + DAY))
    async with hall() as address, friend.channel(address) as channel:
        stub = rpc.SwarmServiceStub(channel)
        assert (await stub.GetPlan(pb.PlanRequest())).waiting == "hello"
        assert [r.waiting async for r in stub.WatchPlan(pb.PlanRequest())] == ["hello"]
        for refused in (stub.Join(pb.JoinRequest()), anext(aiter(stub.Leave(pb.LeaveRequest())))):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await refused
            told = from_rpc(raised.value, "the swarm")
            assert isinstance(told, WrongKey) and "an invitation is for chatting" in str(told)
    async with hall() as address, MEMBERS.channel(address) as channel:
        stub = rpc.SwarmServiceStub(channel)
        assert (await stub.Join(pb.JoinRequest())).message == "joined"
        assert [p.message async for p in stub.Leave(pb.LeaveRequest())] == ["moving", "gone"]
    with pytest.raises(WrongKey, match="an invitation, which is for chatting: give the swarm's key"):
        friend.bind(friend.server(), "127.0.0.1:0")


def test_an_invitation_that_ran_out_or_is_damaged_says_so_before_anything_is_sent() -> None:
    with pytest.raises(WrongKey, match="the invitation was good until 20"):
        Credentials(invited(datetime.now(UTC) - DAY))
    good = invited(datetime.now(UTC) + DAY)
    for bad in (good[:-20], good[:40] + ("B" if good[40] == "A" else "A") + good[41:], invitation.START, good.rpartition(".")[0]):
        with pytest.raises(WrongKey, match="damaged: copy all of it"):
            Credentials(bad)
