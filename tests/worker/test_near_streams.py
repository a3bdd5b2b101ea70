"""Streams between Workers of one rig without gRPC: messages whole and in order, and each end says why it ended."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the Workers of these tests need it")

from plans import plan_of
from raw_client import bits, raw, step
from swarm_processes import until, workers_here

from swarm.errors import Refused
from swarm.plan import MESSAGE_BYTES
from swarm.wire import near
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker import near_streams
from swarm.worker.link import Link
from swarm.worker.near_streams import ENDED, GONE, Call, NearStream, Served, listening

TEXT = [(29 * i) % 2000 + 50 for i in range(24)]
NO_GRPC = "no stream through gRPC was wanted"


@dataclass
class Echo:
    """Serves streams: says each number back, refuses what names no model."""

    send: Callable[[pb.Report], None]
    ended: list[Echo] = field(repr=False)

    def take(self, frame: pb.MicroBatch) -> None:
        if not frame.model_id:
            raise Refused("a frame without a model")
        self.send(pb.Report(id=frame.id, failed=[pb.StepStatus(message=frame.model_id)]))

    def end(self) -> None:
        self.ended.append(self)


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Path, list[Echo]]]:
    """A socket where that is served, and what of it has ended."""
    ended: list[Echo] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        async with listening(path, {Call.HOP: Served(pb.MicroBatch, lambda send: Echo(send, ended))}):
            yield path, ended
        assert not path.exists()


def frame(number: int, text: str = "m") -> pb.MicroBatch:
    return pb.MicroBatch(id=number, model_id=text)


def link_to(path: Path, replies: list[pb.Report], broken: list[str]) -> Link[pb.MicroBatch, pb.Report]:
    async def near_one(on_reply: Callable[[pb.Report], None]) -> NearStream[pb.Report]:
        return await NearStream.to(path, Call.HOP, pb.Report, on_reply)

    def grpc_one() -> Any:
        raise AssertionError(NO_GRPC)

    return Link(grpc_one, replies.append, broken.append, near_one)


async def test_messages_of_any_size_come_whole_and_in_order_both_ways() -> None:
    sizes = [1, 70_000, 3, 5_000_000, 65_536, 10]
    replies: list[pb.Report] = []
    async with echoing() as (path, ended):
        link = link_to(path, replies, [])
        for number, size in enumerate(sizes):
            link.send(frame(number, "x" * size))
        await until(lambda: len(replies) == len(sizes), "the answers do not come")
        link.send(frame(9))  # at once, for the stream is there
        await until(lambda: replies[-1].id == 9, "the answer does not come")
        assert [len(r.failed[0].message) for r in replies[:-1]] == sizes
        await link.close()
        await until(lambda: len(ended) == 1, "its end is not heard of")


async def test_a_refusal_is_told_in_its_words_and_the_next_message_opens_another_stream() -> None:
    replies: list[pb.Report] = []
    broken: list[str] = []
    async with echoing() as (path, ended):
        link = link_to(path, replies, broken)
        link.send(frame(1, ""))
        await until(lambda: bool(broken), "nobody says that it broke")
        assert broken == ["a frame without a model"] and not replies
        link.send(frame(2))
        await until(lambda: [r.id for r in replies] == [2], "the answer does not come")
        await link.close()
        assert broken[1:] == ["the stream was closed"]
        await until(lambda: len(ended) == 2, "an end is not heard of")


async def test_who_stops_serving_ends_its_streams() -> None:
    replies: list[pb.Report] = []
    broken: list[str] = []
    async with echoing() as (path, _):
        link = link_to(path, replies, broken)
        link.send(frame(1))
        await until(lambda: bool(replies), "the answer does not come")
    await until(lambda: bool(broken), "nobody says that it broke")
    assert broken == [GONE]
    await link.close()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\x07", "the name of no stream"),
        (b"\x01" + (MESSAGE_BYTES + 1).to_bytes(4, "little"), f"a message of {MESSAGE_BYTES + 1} bytes"),
        (b"\x01" + (2).to_bytes(4, "little") + b"\xff\xff", "what is no message"),
        (b"\x01" + ENDED.to_bytes(4, "little"), f"a message of {ENDED} bytes"),
    ],
)
async def test_what_is_no_message_ends_the_stream_with_a_sentence_and_no_other(sent: bytes, said: str) -> None:
    async with echoing() as (path, _):
        replies: list[pb.Report] = []
        link = link_to(path, replies, [])
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(), 60)
        assert answer == ENDED.to_bytes(4, "little") + f"it was sent {said}".encode()
        writer.close()
        link.send(frame(3))
        await until(lambda: [r.id for r in replies] == [3], "the answer does not come")
        await link.close()


async def test_a_message_cut_anywhere_is_put_together_again() -> None:
    async with echoing() as (path, _):
        reader, writer = await asyncio.open_unix_connection(str(path))
        message = frame(5, "cut").SerializeToString()
        for byte in b"\x01" + len(message).to_bytes(4, "little") + message:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        length = int.from_bytes(await asyncio.wait_for(reader.readexactly(4), 60), "little")
        assert pb.Report.FromString(await reader.readexactly(length)).id == 5
        writer.close()


async def test_a_process_of_another_user_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async with echoing() as (path, _):
        with monkeypatch.context() as patched:
            patched.setattr(near_streams, "peer_of", lambda connected: os.getuid() + 1)
            broken: list[str] = []
            link = link_to(path, [], broken)
            link.send(frame(1))
            await until(lambda: bool(broken), "it is not told")
            assert broken == [GONE]
            await link.close()


def test_the_kernel_says_whose_process_it_is() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert near_streams.peer_of(one) == os.getuid()


async def test_who_reads_nothing_loses_its_stream_and_not_our_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_streams, "UNREAD_BYTES", 1 << 20)
    async with echoing() as (path, ended):
        _, writer = await asyncio.open_unix_connection(str(path), limit=1)  # nobody reads what is answered
        message = frame(1, "x" * 100_000).SerializeToString()
        writer.write(b"\x01" + 64 * (len(message).to_bytes(4, "little") + message))
        await until(lambda: len(ended) == 1, "the stream is still open")
        writer.close()


async def test_hops_and_experts_of_one_rig_need_no_grpc_stream_and_the_bits_are_those_of_two_rigs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from swarm.worker.stage_servicer import StageServicer

    asked: list[str] = []
    for name in ("Hop", "Experts"):
        was = getattr(StageServicer, name)
        monkeypatch.setattr(
            StageServicer, name, lambda self, *given, was=was, name=name: (asked.append(name), was(self, *given))[1]
        )
    found = []
    for rigs in (("here", "here"), ("here", "there")):
        plan = plan_of([3, 8], [("w1", 1, (2, 5))])
        plan = replace(plan, workers=tuple(replace(w, rig=rig) for w, rig in zip(plan.workers, rigs, strict=True)))
        async with workers_here(plan), raw(plan) as client:
            found.append(bits(*await client.ask(step(await client.open(64), TEXT, 0))))
        assert sorted(asked) == ([] if rigs[0] == rigs[1] else ["Experts", "Hop"])
    assert found[0] == found[1]


async def test_where_no_streams_are_taken_they_go_through_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "streams_for", lambda worker, port: None)
    plan = plan_of([3, 8])
    plan = replace(plan, workers=tuple(replace(w, rig="here") for w in plan.workers))
    async with workers_here(plan), raw(plan) as client:
        assert near.streams_of("w1", int(plan.worker("w1").address.rpartition(":")[2])) is None
        assert await client.ask(step(await client.open(64), TEXT, 0))


@asynccontextmanager
async def met() -> AsyncIterator[tuple[NearStream[pb.Report], socket.socket]]:
    """A stream, and the other end of it: a socket that nobody reads but the test."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "s"
        listener.bind(str(path))
        listener.listen()
        stream = await NearStream.to(path, Call.HOP, pb.Report, lambda report: None)
        other, _ = listener.accept()
        with other:
            assert other.recv(1) == bytes((Call.HOP,))
            yield stream, other
            stream.close()
            await stream.ended()


def read(other: socket.socket) -> pb.MicroBatch:
    """The next message, once it is there."""
    length = int.from_bytes(other.recv(4, socket.MSG_WAITALL), "little")
    return pb.MicroBatch.FromString(other.recv(length, socket.MSG_WAITALL))


async def test_another_thread_sends_while_the_loop_is_busy() -> None:
    async with met() as (stream, other):
        sending = threading.Thread(target=stream.send, args=(frame(7),))
        sending.start()
        sending.join()  # nothing runs on the loop
        assert read(other).id == 7


async def test_a_link_is_sent_on_from_another_thread_once_its_stream_is_there() -> None:
    replies: list[pb.Report] = []
    async with echoing() as (path, _):
        link = link_to(path, replies, [])
        assert not link.send_at_once(frame(1)), "no stream is there"
        link.send(frame(2))
        await until(lambda: [r.id for r in replies] == [2], "the answer does not come")
        assert await asyncio.to_thread(link.send_at_once, frame(3))
        await until(lambda: [r.id for r in replies] == [2, 3], "the answer does not come")
        await link.close()
        assert not link.send_at_once(frame(4)), "it is closed"


async def test_experts_are_asked_and_answer_from_compute_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    senders: list[tuple[type, str]] = []
    was = near_streams._End.send

    def send(end: near_streams._End, message: Any) -> None:
        senders.append((type(message), threading.current_thread().name))
        was(end, message)

    monkeypatch.setattr(near_streams._End, "send", send)
    plan = plan_of([8], [("w1", 1, (2, 5))])
    async with workers_here(plan), raw(plan) as client:
        session = await client.open(64)
        await client.ask(step(session, TEXT, 0, 12))  # opens the stream
        senders.clear()
        await client.ask(step(session, TEXT, 12))
    assert set(senders) == {(pb.ExpertRequest, "compute w0"), (pb.ExpertReply, "compute w1")}


@pytest.mark.parametrize("size", [10, 3000, 150_000])
async def test_messages_of_two_threads_stay_whole_and_each_threads_in_order(size: int) -> None:
    many = max(40, min(2000, 3_000_000 // size))
    async with met() as (stream, other):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)

        def send() -> None:
            for number in range(many):
                stream.send(frame(number, "t" * (size + number % 7)))

        sending = threading.Thread(target=send)
        sending.start()
        came: list[pb.MicroBatch] = []
        reading = threading.Thread(target=lambda: came.extend(read(other) for _ in range(2 * many)), daemon=True)
        reading.start()
        for number in range(many):
            stream.send(frame(number, "l" * (size + number % 5)))
            if number % 10 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(came) == 2 * many, "not all messages come")
        sending.join()
    for letter, spread in (("t", 7), ("l", 5)):
        texts = [(m.id, m.model_id) for m in came if m.model_id[0] == letter]
        assert texts == [(n, letter * (size + n % spread)) for n in range(many)]


async def test_what_the_socket_does_not_take_from_another_thread_goes_before_what_the_loop_sends_later() -> None:
    async with met() as (stream, other):
        sent = 0
        while not stream._later:  # nobody reads: at some point it is full
            sending = threading.Thread(target=stream.send, args=(frame(sent, "x" * 10_000),))
            sending.start()
            sending.join()
            sent += 1
        stream.send(frame(sent))
        other.settimeout(60)
        came = await asyncio.to_thread(lambda: [read(other).id for _ in range(sent + 1)])
        assert came == list(range(sent + 1))


async def test_a_thread_that_sends_on_a_stream_which_ended_does_no_harm() -> None:
    async with met() as (stream, other):
        other.close()
        await stream.ended()
        sending = threading.Thread(target=stream.send, args=(frame(1),))
        sending.start()
        sending.join()
        assert not stream._later
