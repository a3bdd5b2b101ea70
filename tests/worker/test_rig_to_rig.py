"""A rig without a model's files loads what a rig with them has: bit for bit, over cuts, deaths and damage."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest
import torch
from plans import nano, plan_of
from relay import relay_to
from swarm_processes import workers_here

from swarm.errors import CorruptWeights, MissingWeights, ModelError
from swarm.plan import Model, Plan
from swarm.weights.file import LocalFile
from swarm.weights.source import NANO_FOLDER
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import weights_pb2 as pb
from swarm.wire.v1.weights_pb2_grpc import WeightsServiceServicer, WeightsServiceStub, add_WeightsServiceServicer_to_server
from swarm.worker.recent_pieces import RecentPieces
from swarm.worker.stock import Stock
from swarm.worker.weights_peer import PeerFile, WeightsPeer
from swarm.worker.worker import Worker

ELSEWHERE = "/only/on/the/head"
"""A folder that no other rig has."""
FILE = "model.safetensors"


def far_model() -> Model:
    return replace(nano(), source=ELSEWHERE)


@asynccontextmanager
async def head_and_rig(credentials: Credentials = Credentials()) -> AsyncIterator[tuple[Plan, Worker, Worker]]:
    """Two Workers of one Plan; the first has loaded its part from its folder, the second has no file."""
    plan = plan_of([6, 8], model=far_model())
    async with workers_here(plan, credentials, commit=False) as workers:
        async for _ in workers["w0"].prepare(plan, "w0", str(NANO_FOLDER)):
            pass
        yield plan, workers["w0"], workers["w1"]


async def load(worker: Worker, plan: Plan, *peers: str) -> None:
    async for _ in worker.prepare(plan, worker.name, "", False, [pb.Peer(address=a, rig=f"rig{i}") for i, a in enumerate(peers)]):
        pass


async def assert_like_the_folder(plan: Plan, worker: Worker) -> None:
    """What a Worker holds is what the folder would have given."""
    local = Worker(worker.name, "cpu", 1, worker.memory_bytes, Credentials())
    try:
        async for _ in local.prepare(plan, worker.name, str(NANO_FOLDER)):
            pass
        ours, theirs = (list(tensors(w._holdings._parts)) for w in (worker, local))
        assert len(ours) == len(theirs) > 10
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    finally:
        await local.close()


def tensors(what: Any) -> Iterator[torch.Tensor]:
    if isinstance(what, torch.Tensor):
        yield what
    elif isinstance(what, dict):
        for key in sorted(what, key=str):
            yield from tensors(what[key])
    elif hasattr(what, "__dict__"):
        yield from tensors(vars(what))


async def test_a_rig_without_a_file_loads_from_one_that_has_it_only_the_tensors_that_it_needs() -> None:
    async with head_and_rig() as (plan, _, worker), relay_to(plan.workers[0].address) as relay:
        await load(worker, plan, relay.address)
        await assert_like_the_folder(plan, worker)
        assert relay.came < 0.6 * (NANO_FOLDER / FILE).stat().st_size


async def test_a_stream_that_is_cut_in_a_tensor_goes_on_where_it_broke_off() -> None:
    async with head_and_rig() as (plan, _, worker), relay_to(plan.workers[0].address) as relay:
        await load(worker, plan, relay.address)
        whole = relay.came
    async with head_and_rig() as (plan, _, worker), relay_to(plan.workers[0].address) as relay:
        relay.cuts = [600_000, 300_000]
        await load(worker, plan, relay.address)
        await assert_like_the_folder(plan, worker)
        assert relay.connections == 3
        assert relay.came < whole + 600_000
        assert any("broke off" in line and "asks again from byte" in line for line in worker.stock.said)


async def test_when_a_rig_dies_the_load_goes_on_from_another_and_says_so() -> None:
    async with head_and_rig() as (plan, _, worker), relay_to(plan.workers[0].address) as dying:
        dying.cuts = [600_000]
        loading = asyncio.ensure_future(load(worker, plan, dying.address, plan.workers[0].address))
        while dying.cuts:
            await asyncio.sleep(0)
        if dying._server:
            dying._server.close()
        await loading
        await assert_like_the_folder(plan, worker)
        assert any("rig0" in line and "goes on with the next source" in line for line in worker.stock.said)


async def test_a_rig_that_no_one_else_can_replace_is_named_when_it_is_lost() -> None:
    async with head_and_rig() as (plan, _, worker), relay_to(plan.workers[0].address) as dying:
        dying.cuts = [600_000]
        loading = asyncio.ensure_future(load(worker, plan, dying.address))
        while dying.cuts:
            await asyncio.sleep(0)
        if dying._server:
            dying._server.close()
        with pytest.raises(MissingWeights, match="rig0"):
            await loading


class Liar(WeightsServiceServicer):
    """Passes on what an honest rig says, changed."""

    def __init__(self, honest: str, change: Callable[[pb.ReadRequest, list[pb.Piece]], list[pb.Piece]]) -> None:
        self.change = change
        self.channel = grpc.aio.insecure_channel(honest)
        self.stub = WeightsServiceStub(self.channel)

    async def Outline(self, request, context):  # type: ignore[no-untyped-def]
        return await self.stub.Outline(request)

    async def Read(self, request, context):  # type: ignore[no-untyped-def]
        for piece in self.change(request, [piece async for piece in self.stub.Read(request)]):
            yield piece


@asynccontextmanager
async def liar(honest: str, change: Callable[[pb.ReadRequest, list[pb.Piece]], list[pb.Piece]]) -> AsyncIterator[str]:
    server, servicer = Credentials().server(), Liar(honest, change)
    add_WeightsServiceServicer_to_server(servicer, server)
    port = Credentials().bind(server, "127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)
    await servicer.channel.close()


def damaged(request: pb.ReadRequest, pieces: list[pb.Piece]) -> list[pb.Piece]:
    """A tensor's byte is another one on its way."""
    if len(pieces) > 1 and request.offset > 200_000:
        pieces[1].data = bytes([pieces[1].data[0] ^ 1]) + pieces[1].data[1:]
    return pieces


def longer(request: pb.ReadRequest, pieces: list[pb.Piece]) -> list[pb.Piece]:
    pieces[0].file_bytes += 1000
    return pieces


def too_many(request: pb.ReadRequest, pieces: list[pb.Piece]) -> list[pb.Piece]:
    if len(pieces) > 1:
        more = pieces[1].data + b"more"
        pieces[1] = pb.Piece(data=more, crc32=zlib.crc32(more))
    return pieces


def too_few(request: pb.ReadRequest, pieces: list[pb.Piece]) -> list[pb.Piece]:
    return pieces[:1]


def another_model(request: pb.ReadRequest, pieces: list[pb.Piece]) -> list[pb.Piece]:
    """Its first sample differs, and is sent with the checksum that it then has."""
    if len(pieces) > 1 and request.size == 1 << 16:
        data = bytes([pieces[1].data[0] ^ 1]) + pieces[1].data[1:]
        pieces[1] = pb.Piece(data=data, crc32=zlib.crc32(data))
    return pieces


@pytest.mark.parametrize("change", [damaged, longer, too_many, too_few, another_model])
async def test_what_a_rig_gives_damaged_is_taken_from_the_next_and_said(
    change: Callable[[pb.ReadRequest, list[pb.Piece]], list[pb.Piece]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.worker.weights_peer.PAUSE_S", 0.01)
    async with head_and_rig() as (plan, _, worker), liar(plan.workers[0].address, change) as address:
        await load(worker, plan, address, plan.workers[0].address)
        await assert_like_the_folder(plan, worker)
        assert any("rig0" in line and "goes on" in line for line in worker.stock.said)


async def test_a_rig_that_gives_nothing_but_damage_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.worker.weights_peer.PAUSE_S", 0.01)
    async with head_and_rig() as (plan, _, worker), liar(plan.workers[0].address, damaged) as address:
        with pytest.raises(CorruptWeights, match="damaged: a piece has another checksum"):
            await load(worker, plan, address)


async def test_without_the_key_nobody_reads_weights() -> None:
    async with head_and_rig(Credentials("secret")) as (plan, _, worker):
        await load(worker, plan, plan.workers[0].address)
        stranger = Stock(Credentials("guessed"))
        with pytest.raises(ModelError):
            await asyncio.to_thread(stranger.open, plan.model, "", [pb.Peer(address=plan.workers[0].address)])
        assert "key" in " ".join(stranger.said)


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "config.json", ""])
async def test_only_files_that_the_checkpoint_lists_can_be_read(name: str) -> None:
    async with head_and_rig() as (plan, _, _):
        peer = WeightsPeer(Credentials(), plan.workers[0].address, "", print)
        with pytest.raises(MissingWeights, match="has no file"):
            await asyncio.to_thread(PeerFile(peer, plan.model.model_id, name).size)
        with pytest.raises(MissingWeights, match="has not looked at the model"):
            await asyncio.to_thread(PeerFile(peer, "another", FILE).size)


async def test_many_read_at_once_and_each_gets_every_byte() -> None:
    async with head_and_rig() as (plan, _, _):
        path = NANO_FOLDER / FILE
        files = [
            PeerFile(WeightsPeer(Credentials(), plan.workers[0].address, "", print), plan.model.model_id, FILE) for _ in range(12)
        ]
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(12) as pool:  # their own: the server's reads would wait for a thread behind them
            reads = [loop.run_in_executor(pool, f.read, 100, 3_000_000) for f in files]
            found: Sequence[bytes] = await asyncio.gather(*reads)
        assert set(found) == {path.read_bytes()[100:3_000_100]}


async def test_what_several_read_at_the_same_time_is_read_from_the_disk_once(monkeypatch: pytest.MonkeyPatch) -> None:
    path, entered, all_here, read = NANO_FOLDER / FILE, 0, threading.Event(), list[tuple[int, int]]()
    reader = RecentPieces.reader

    @contextmanager
    def counted_reader(self: RecentPieces) -> Iterator[None]:
        nonlocal entered
        with reader(self):
            entered += 1
            if entered == 8:  # each of four asks for the size, and then for bytes
                all_here.set()
            yield

    def counted_read(self: LocalFile, offset: int, size: int) -> bytes:
        read.append((offset, size))
        assert all_here.wait(60)
        return path.read_bytes()[offset : offset + size]

    async with head_and_rig() as (plan, _, _):
        monkeypatch.setattr(RecentPieces, "reader", counted_reader)
        monkeypatch.setattr(LocalFile, "read", counted_read)
        peers = [WeightsPeer(Credentials(), plan.workers[0].address, "", print) for _ in range(4)]
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(4) as pool:
            files = [PeerFile(peer, plan.model.model_id, FILE) for peer in peers]
            found = await asyncio.gather(*(loop.run_in_executor(pool, f.read, 100, 6_000_000) for f in files))
    assert set(found) == {path.read_bytes()[100:6_000_100]}
    assert len(read) == len(set(read)) and sum(size for _, size in read) == 6_000_000


async def test_for_one_reader_no_piece_is_kept_and_what_could_not_be_read_is_read_again() -> None:
    file, recent, size = LocalFile(NANO_FOLDER / FILE), RecentPieces(), 1000
    with recent.reader():
        for at in range(0, 10 * size, size):
            assert (await recent.piece(file, FILE, at, size)).crc32 == zlib.crc32(file.read(at, size))
        assert len(recent._kept) == 1
    with recent.reader(), recent.reader():
        pieces = [recent.piece(file, FILE, at, size) for at in range(0, 10 * size, size)]
        assert recent.piece(file, FILE, 0, size) is pieces[0] and len(recent._kept) == 10
        with pytest.raises(MissingWeights):
            await recent.piece(LocalFile(NANO_FOLDER / "gone"), "gone", 0, size)
        assert (await recent.piece(file, "gone", 0, size)).data == file.read(0, size)
        await asyncio.gather(*pieces)
    assert not recent._kept


async def test_a_worker_that_lacks_a_file_says_so_before_it_loads() -> None:
    async with head_and_rig() as (plan, _, worker):
        peers = [pb.Peer(address=plan.workers[0].address)]
        async with Credentials().channel(plan.workers[1].address) as channel:
            request = pb.SurveyRequest(plan=plan.to_json(), name="w1", peers=peers)
            told = await WeightsServiceStub(channel).Survey(request)
            assert [a.name for a in told.absent] == [FILE]
            assert told.absent[0].file_bytes == (NANO_FOLDER / FILE).stat().st_size > told.absent[0].wanted_bytes > 0
            assert not told.held and not told.cache
            await load(worker, plan, plan.workers[0].address)
            assert not (await WeightsServiceStub(channel).Survey(request)).absent
        async with Credentials().channel(plan.workers[0].address) as channel:
            local = replace(plan, model=replace(plan.model, source="nano"))
            assert (await WeightsServiceStub(channel).Survey(pb.SurveyRequest(plan=local.to_json(), name="w0"))).held == [FILE]
