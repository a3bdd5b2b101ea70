"""Bytes that no honest client or Worker sends: each gets its status code, and costs the Worker and whoever chats nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import random
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc.aio
import psutil
import pytest
import pytest_asyncio
import torch
from damaged import all_of, as_it_is, damaged, drained
from plans import plan_of
from raw_client import RawClient, raw, step
from swarm_processes import until, workers_here
from undisturbed import chatting

from swarm.client import session as client_session
from swarm.errors import Refused
from swarm.plan import Plan
from swarm.wire import credentials
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.tensors import to_wire
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub
from swarm.wire.v1.tensor_pb2 import DTYPE_BF16, Tensor
from swarm.worker import vigil

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = [(37 * i) % 2900 + 20 for i in range(20)]
CALLS = {
    "StageService": {
        "Submit": True, "Hop": True, "Experts": True, "Open": False, "Close": False, "Reserve": False, "Release": False,
        "Unknown": False, "Listen": False, "WholeRow": False,
    },
    "WorkerService": {"Echo": True, "Describe": False, "Prepare": False, "Commit": False, "Status": False, "MeasureLink": False},
    "WeightsService": {"Read": False, "Outline": False, "Survey": False, "Fetch": False},
}  # fmt: skip
"""Calls of a Worker: whether their requests are a stream."""


@dataclass
class Swarm:
    plan: Plan
    client: RawClient

    @property
    def channels(self) -> dict[str, str]:
        return {w.name: w.address for w in self.plan.workers}


@pytest.fixture(scope="module", autouse=True)
def patient() -> Iterator[None]:
    """Those who flood, the Workers and their chats share a loop here, and that a machine with others: who is late is not gone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vigil, "FLOOR_S", 30.0)
        patch.setattr(client_session, "PING_S", 30.0)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def swarm() -> AsyncIterator[Swarm]:
    plan = plan_of([4, 8], sessions=16, context=256)
    async with workers_here(plan), raw(plan) as client, chatting(plan):
        yield Swarm(plan, client)


async def refusal(address: str, method: str, many: bool, *messages: bytes) -> grpc.aio.AioRpcError:
    """How a call ends that sends these bytes."""
    options = [("grpc.max_send_message_length", 2**28), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call: Any = (channel.stream_stream if many else channel.unary_stream)(method, as_it_is, as_it_is)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async with asyncio.timeout(60):
                async for _ in call(_each(messages)) if many else call(messages[0]):
                    pass
    return raised.value


async def _each(messages: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message
    await asyncio.Event().wait()


@pytest.mark.parametrize(("service", "method"), [(s, m) for s, methods in CALLS.items() for m in methods])
async def test_bytes_that_are_no_message_are_refused_in_words(swarm: Swarm, service: str, method: str) -> None:
    for junk in (b"\xff" * 64, b"\x0a\xff\xff\xff\xff\x0f", bytes(range(256))):
        error = await refusal(swarm.channels["w0"], f"/swarm.v1.{service}/{method}", CALLS[service][method], junk)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        refused = from_rpc(error, "w0")
        assert isinstance(refused, Refused) and "compare the versions with `swarm --version`" in str(refused)


async def test_a_call_of_another_version_is_told_that_it_is_not_spoken_here(swarm: Swarm) -> None:
    for method in ("/swarm.v2.StageService/Open", "/swarm.v1.StageService/Teleport", "/x"):
        error = await refusal(swarm.channels["w0"], method, False, b"")
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "check the address and the version there" in str(from_rpc(error, "w0"))


async def test_fields_of_a_later_version_are_passed_over(swarm: Swarm) -> None:
    later = b"\xf2\x3f\x05later"  # field 1022, which nobody has
    session = await swarm.client.open(64)
    request = swarm.client.opening(session, 64).SerializeToString() + later
    async with Credentials().channel(swarm.channels["w0"]) as channel:
        reply = await channel.unary_stream("/swarm.v1.StageService/Open", as_it_is, pb.OpenReply.FromString)(request).read()
    assert reply.state == pb.OpenReply.OPENED
    await swarm.client.release(session)


@pytest.mark.parametrize("method", ["Submit", "Hop", "Experts", "Open", "Listen"])
async def test_a_claim_of_a_gigabyte_takes_none(swarm: Swarm, method: str) -> None:
    before = psutil.Process().memory_info().rss
    many = CALLS["StageService"][method]
    error = await refusal(swarm.channels["w0"], f"/swarm.v1.StageService/{method}", many, bytes(65 * 2**20))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert psutil.Process().memory_info().rss - before < 2**29


def tensor(rows: int, **changed: Any) -> Tensor:
    """Hidden states of the nano model, as the Plan has them but for what is `changed`."""
    made = to_wire(torch.zeros(rows, 256))
    for name, value in changed.items():
        if name == "shape":
            made.shape[:] = value
        else:
            setattr(made, name, value)
    return made


BAD_HIDDEN: dict[str, Callable[[], Tensor]] = {
    "none": Tensor,
    "too few bytes": lambda: tensor(4, data=bytes(12)),
    "too many bytes": lambda: tensor(4, data=bytes(2**20)),
    "too few rows": lambda: tensor(3),
    "another width": lambda: tensor(4, shape=[8, 128]),
    "one dimension": lambda: tensor(4, shape=[1024]),
    "a shape of gigabytes": lambda: tensor(4, shape=[2**31, 2**31]),
    "another dtype": lambda: tensor(4, dtype=DTYPE_BF16),
    "no dtype": lambda: tensor(4, dtype=0),
    "a dtype that is none": lambda: tensor(4, dtype=99),
}


@dataclass
class Hopping:
    """A Hop stream to the last Worker, and its reports."""

    call: Any
    plan: Plan

    async def send(self, steps: list[pb.StepHeader], hidden: Tensor, **changed: Any) -> list[pb.StepStatus]:
        """One frame; what failed of it when it is reported done."""
        where = {"model_id": self.plan.model.model_id, "epoch": self.plan.epoch, "route": 0, "id": 7} | changed
        await self.call.write(pb.MicroBatch(steps=steps, hidden=hidden, **where))
        failed: list[pb.StepStatus] = []
        async with asyncio.timeout(60):
            while True:
                report = await self.call.read()
                assert report.id == where["id"]
                failed += report.failed
                if report.done:
                    return failed


@pytest_asyncio.fixture(loop_scope="module")
async def hopping(swarm: Swarm) -> AsyncIterator[Hopping]:
    async with Credentials().channel(swarm.channels["w1"]) as channel:
        call = StageServiceStub(channel).Hop()
        yield Hopping(call, swarm.plan)
        call.cancel()


def hop_step(session: bytes, **changed: Any) -> pb.StepHeader:
    return step(session, TEXT, 0, 4, **changed)


@pytest.mark.parametrize("what", BAD_HIDDEN)
async def test_hidden_states_that_are_not_what_the_plan_says_are_refused(swarm: Swarm, hopping: Hopping, what: str) -> None:
    session = await swarm.client.open(64)
    [status] = await hopping.send([hop_step(session)], BAD_HIDDEN[what]())
    assert (status.code, status.session) == (pb.REFUSED, session)
    assert "shape" in status.message or "bytes" in status.message
    assert await swarm.client.ask(step(session, TEXT, 0, 10))
    await swarm.client.release(session)


HOPS = {
    "another model": ({"model_id": "x"}, pb.REFUSED),
    "another epoch": ({"epoch": 2**63}, pb.MOVED),
    "another route": ({"route": 2**32 - 1}, pb.REFUSED),
}


@pytest.mark.parametrize("what", HOPS)
async def test_a_hop_of_another_plan_is_told_so(swarm: Swarm, hopping: Hopping, what: str) -> None:
    changed, code = HOPS[what]
    [status] = await hopping.send([hop_step(b"s" * 16)], tensor(4), **changed)
    assert status.code == code


STEPS: dict[str, tuple[dict[str, Any], pb.Code]] = {
    "a session that is none": ({"session": b"x"}, pb.GAP),
    "no session": ({"session": b""}, pb.GAP),
    "a hash of other tokens": ({"prefix_hash": 1}, pb.GAP),
    "a position beyond what is held": ({"position": 7}, pb.GAP),
    "a position at the end of all numbers": ({"position": 2**32 - 1}, pb.REFUSED),
    "more rows asked than sent": ({"ask": pb.Ask(rows=2**32 - 1, k=1)}, pb.REFUSED),
    "a temperature that is no number": ({"ask": pb.Ask(rows=1, temperature=math.nan)}, pb.REFUSED),
    "a deadline that is no number": ({"seconds_left": math.nan}, pb.REFUSED),
    "a deadline in the past": ({"seconds_left": -1e300}, pb.EXPIRED),
}


@pytest.mark.parametrize("what", STEPS)
async def test_a_hops_step_against_the_plan_fails_alone(swarm: Swarm, hopping: Hopping, what: str) -> None:
    changed, code = STEPS[what]
    right, wrong = await swarm.client.open(64), await swarm.client.open(64)
    bad = hop_step(wrong)
    for name, value in changed.items():
        if name == "ask":
            bad.ask.CopyFrom(value)
        else:
            setattr(bad, name, value)
    failed = await hopping.send([hop_step(right), bad], tensor(8))
    assert [(status.code, status.session) for status in failed] == [(code, bad.session)]
    for session in (right, wrong):
        await swarm.client.release(session)


async def test_hidden_states_that_are_no_numbers_are_refused_and_no_answer_is_made_of_them(swarm: Swarm, hopping: Hopping) -> None:
    right, wrong = await swarm.client.open(64), await swarm.client.open(64)
    hidden = torch.zeros(8, 256)
    hidden[5] = math.nan
    failed = await hopping.send([hop_step(right), hop_step(wrong)], to_wire(hidden))
    assert [(status.code, status.session) for status in failed] == [(pb.REFUSED, wrong)]
    assert "no numbers" in failed[0].message
    assert await swarm.client.ask(step(wrong, TEXT, 0, 10))
    for session in (right, wrong):
        await swarm.client.release(session)


async def test_a_serial_at_the_end_of_all_numbers_ends_nothing_but_its_own_session(swarm: Swarm) -> None:
    session = await swarm.client.open(64)
    await swarm.client.ask(step(session, TEXT, 0, 10, serial=2**64 - 1))
    await swarm.client.release(session)
    assert await swarm.client.reopen(session, 64) == 0
    assert await swarm.client.ask(step(session, TEXT, 0, 10))
    await swarm.client.release(session)


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], 20_000), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


HELLO = bytes.fromhex("160301") + (512).to_bytes(2, "big") + bytes.fromhex("0100") + bytes(100)
"""The beginning of a TLS handshake that never goes on."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LORIS = {"a port with a key": "k", "a port without one": ""}


@pytest.mark.parametrize("what", LORIS)
async def test_a_thousand_connections_that_say_nothing_or_half_of_it_are_gone_soon(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = [(n, 3000 if n == "grpc.server_handshake_timeout_ms" else v) for n, v in credentials._SERVER]
    monkeypatch.setattr(credentials, "_SERVER", hasty)
    plan, key = plan_of([4, 8], sessions=16, context=256), Credentials(LORIS[what])
    with many_files():
        async with workers_here(plan, key), chatting(plan, key):
            process = psutil.Process()
            files, threads = process.num_fds(), process.num_threads()
            host, _, port = plan.workers[0].address.rpartition(":")
            half: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
            for number in range(1000):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write((b"", HELLO, PREFACE[:10], PREFACE)[number % 4])
                half.append((reader, writer))
            assert process.num_threads() <= threads + 8
            async with asyncio.timeout(60):
                await asyncio.gather(*(hung_up(reader) for reader, _ in half))
            for _, writer in half:
                writer.close()

            def closed() -> bool:
                gc.collect()  # gRPC closes a socket when the last of its calls is collected
                return process.num_fds() <= files + 8

            await until(closed, "sockets stay")
            assert process.num_threads() <= threads + 8


async def hung_up(reader: asyncio.StreamReader) -> None:
    """Wait until the other end closes the connection."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(1 << 16):
            pass


@pytest.mark.parametrize(("method", "worker"), [("Submit", "w0"), ("Hop", "w1"), ("Experts", "w1")])
async def test_frames_that_are_damaged_anywhere_are_answered_or_refused(swarm: Swarm, method: str, worker: str) -> None:
    model, rng = swarm.plan.model.model_id, random.Random(7)
    steps, hidden = [hop_step(b"s" * 16), hop_step(b"t" * 16)], tensor(8)
    rows = [pb.ExpertRows(expert=1, rows=[0, 2]), pb.ExpertRows(expert=3, rows=[1])]
    sound = {
        "Submit": pb.MicroBatch(model_id=model, epoch=1, steps=steps),
        "Hop": pb.MicroBatch(model_id=model, epoch=1, id=1, steps=steps, hidden=hidden),
        "Experts": pb.ExpertRequest(id=1, model_id=model, epoch=1, block=4, hidden=hidden, experts=rows),
    }[method]
    async with Credentials().channel(swarm.channels[worker]) as channel:
        for _ in range(100):
            call: Any = channel.stream_stream(f"/swarm.v1.StageService/{method}", as_it_is, as_it_is)
            code = await drained(call(all_of(damaged(sound.SerializeToString(), rng))))
            assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    session = await swarm.client.open(64)
    assert await swarm.client.ask(step(session, TEXT, 0, 10))
    await swarm.client.release(session)
