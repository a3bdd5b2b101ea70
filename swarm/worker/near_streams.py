"""Streams between two Workers of one rig, over a Unix socket and without gRPC: what is sent has left when `send` returns.

What gRPC takes of a Hop is more than half of it (docs/performance.md). For experts compute threads ask and answer by themselves:
waking the loop takes about as long as the way through the socket. Who connects names the stream in one byte; then messages go
both ways, each behind its length. The length `ENDED` says that a sentence follows: why who serves has ended the stream. The
folder of the socket is its user's alone, and the kernel says whose process connects: nobody else is answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from swarm.errors import SwarmError
from swarm.plan import MESSAGE_BYTES
from swarm.worker.outbox import UNREAD_BYTES

_LOG = logging.getLogger(__name__)
_LENGTH = struct.Struct("<I")
_PEER = struct.Struct("3i")
ENDED = 2**32 - 1
JOINED_BYTES = 1 << 16
"""A message up to so large leaves in one piece with its length: copying it is quicker than another system call."""
GONE = "the connection was lost"

In = TypeVar("In", bound=Message)


class Call(IntEnum):
    """Which stream it is: of `StageService`, or `Echo` of `WorkerService`."""

    HOP = 1
    EXPERTS = 2
    ECHO = 3


class Taking(Protocol):
    """Who serves one stream."""

    def take(self, message: Any) -> None:
        """The next message. Raises SwarmError, which ends the stream."""
        ...

    def end(self) -> None:
        """Nothing comes any more, and nothing that is sent arrives."""
        ...


@dataclass(frozen=True)
class Served:
    """How a call is served: what is sent to it, and what begins with each of its streams, given what sends on it."""

    message: type[Message]
    begin: Callable[[Callable[[Any], None]], Taking]


class _End(asyncio.Protocol):
    """One end of a stream. Lives on the loop's thread, but for `send`."""

    hears_why = False
    """Whether the other end may say why it ended the stream."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._held = bytearray()
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._lock = threading.Lock()
        """Held while something is written, so that messages of several threads stay whole and in order."""
        self._file = -1
        """The socket's number."""
        self._paused = False
        """Something that was written waits in the transport for the other end to read."""
        self._later: deque[bytes | memoryview] = deque()
        """What another thread could not write at once: the loop writes it before anything else."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(high=0)
        self._file = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        with self._lock:  # behind this the socket's number may be another file's
            self._later.clear()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def data_received(self, data: bytes) -> None:
        self._held += data
        while len(self._held) >= _LENGTH.size and not self._transport.is_closing():
            (length,) = _LENGTH.unpack_from(self._held)
            end = _LENGTH.size + length
            if length == ENDED and self.hears_why:
                return
            if length > MESSAGE_BYTES:
                self._wrong(f"a message of {length} bytes")
                return
            if len(self._held) < end:
                return
            with memoryview(self._held) as held:
                body = bytes(held[_LENGTH.size : end])
            del self._held[:end]
            try:
                self._arrived(body)
            except DecodeError:
                self._wrong("what is no message")

    def send(self, message: Message) -> None:
        """Send a message, from any thread; nothing where the stream has ended."""
        data = message.SerializeToString()
        length = _LENGTH.pack(len(data))
        pieces = [length + data] if len(data) <= JOINED_BYTES else [length, data]
        with self._lock:
            if self._transport.is_closing():
                return
            if threading.get_ident() == self._thread:
                self._write(pieces)
            elif self._later:
                self._later += pieces
            elif left := self._left_of(pieces):
                self._later += left
                self._loop.call_soon_threadsafe(self._write_later)

    def _left_of(self, pieces: Sequence[bytes]) -> Sequence[bytes | memoryview]:
        """Write as much as the socket takes at once, on another thread than the loop's; what is left of it."""
        if self._paused:
            return pieces
        for place, piece in enumerate(pieces):
            try:
                written = os.write(self._file, piece)
            except OSError:  # it is full, or broken, which the transport finds out when it writes this
                return pieces[place:]
            if written < len(piece):
                return [memoryview(piece)[written:], *pieces[place + 1 :]]
        return []

    def _write_later(self) -> None:
        with self._lock:
            if self._transport.is_closing():
                self._later.clear()
            else:
                self._write([])

    def _write(self, pieces: Sequence[bytes]) -> None:
        """On the loop's thread, behind what waits for it."""
        while self._later:
            self._transport.write(self._later.popleft())
        for piece in pieces:
            self._transport.write(piece)

    def close(self) -> None:
        """End the stream."""
        self._transport.abort()

    def _arrived(self, body: bytes) -> None:
        raise NotImplementedError

    def _wrong(self, what: str) -> None:
        raise NotImplementedError


class NearStream(_End, Generic[In]):
    """A stream to another Worker of this rig."""

    hears_why = True

    def __init__(self, reply: type[In], on_reply: Callable[[In], None]) -> None:
        super().__init__()
        self._reply, self._on_reply = reply, on_reply
        self._why = GONE
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @classmethod
    async def to(cls, path: Path, call: Call, reply: type[In], on_reply: Callable[[In], None]) -> NearStream[In]:
        """Connect.

        Args:
            on_reply: called with each message that comes back.

        Raises:
            OSError: nobody listens there.
        """
        _, stream = await asyncio.get_running_loop().create_unix_connection(lambda: cls(reply, on_reply), str(path))
        stream._transport.write(bytes((call,)))
        return stream

    async def ended(self) -> str:
        """Return a sentence why the stream ended, once it has."""
        return await asyncio.shield(self._ended)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        told = self._held[_LENGTH.size :] if self._held.startswith(_LENGTH.pack(ENDED)) else b""
        self._ended.set_result(told.decode(errors="replace") or self._why)

    def _arrived(self, body: bytes) -> None:
        self._on_reply(self._reply.FromString(body))

    def _wrong(self, what: str) -> None:
        self._why = f"it sent {what}"
        self.close()


class _Serving(_End):
    """A stream that another Worker of this rig opened."""

    def __init__(self, calls: Mapping[int, Served], open_ones: set[_Serving]) -> None:
        super().__init__()
        self._calls, self._open_ones = calls, open_ones
        self._served: Served | None = None
        self._taking: Taking | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._open_ones.add(self)
        if peer_of(transport.get_extra_info("socket")) != os.getuid():
            _LOG.warning("a process of another user wanted a stream, and was not answered")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._open_ones.discard(self)
        if self._taking is not None:
            self._taking.end()

    def data_received(self, data: bytes) -> None:
        if self._taking is None and data:
            if (served := self._calls.get(data[0])) is None:
                self._wrong("the name of no stream")
                return
            self._served, self._taking, data = served, served.begin(self.send), data[1:]
        super().data_received(data)

    def _write(self, pieces: Sequence[bytes]) -> None:
        super()._write(pieces)
        if self._transport.get_write_buffer_size() > UNREAD_BYTES:
            _LOG.warning("a worker of this rig lets more pile up than is kept: its stream is closed")
            self.close()

    def _arrived(self, body: bytes) -> None:
        assert self._served is not None and self._taking is not None
        message = self._served.message.FromString(body)
        try:
            self._taking.take(message)
        except SwarmError as error:
            self._refuse(str(error))

    def _wrong(self, what: str) -> None:
        self._refuse(f"it was sent {what}")

    def _refuse(self, why: str) -> None:
        """End the stream with a sentence."""
        with self._lock:
            if not self._transport.is_closing():
                self._write([_LENGTH.pack(ENDED) + why.encode()])
                self._transport.close()


@asynccontextmanager
async def listening(path: Path | None, calls: Mapping[int, Served]) -> AsyncIterator[None]:
    """Serve streams at a socket while the block runs. None: there is no place for one, and others come through gRPC."""
    if path is None or not hasattr(socket, "SO_PEERCRED"):
        yield
        return
    open_ones: set[_Serving] = set()
    server = await asyncio.get_running_loop().create_unix_server(lambda: _Serving(calls, open_ones), str(path))
    ours = path.stat().st_ino
    try:
        yield
    finally:
        server.close()
        for stream in list(open_ones):
            stream.close()
        with suppress(OSError):
            if path.stat().st_ino == ours:  # not that of one which serves here by now
                path.unlink()


def peer_of(connected: socket.socket) -> int:
    """Whose process is at the other end of a Unix socket: its user's number."""
    _, user, _ = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(user)
