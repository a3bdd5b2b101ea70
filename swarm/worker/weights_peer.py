"""Another Rig that has weights, asked over gRPC by a thread that may wait: so that no event loop carries the bytes.

A range is asked for in requests of at most `REQUEST_BYTES`; each piece of an answer has its own CRC-32 and goes straight into
the memory that it is for. What was cut is asked for again from the byte where it broke off.
"""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from swarm.errors import CorruptWeights, MissingWeights, WrongKey
from swarm.wire.credentials import Credentials
from swarm.wire.status import UNREADABLE, from_rpc, in_one_line, silence
from swarm.wire.v1 import weights_pb2 as pb
from swarm.wire.v1.weights_pb2_grpc import WeightsServiceStub

REQUEST_BYTES = 32 * 2**20
REQUEST_S = 60.0
"""How long one request may take; what came by then is kept."""
ASK_S = 10.0
"""For what has no bytes to speak of."""
TRIES = 3
"""In a row without a good piece."""
PAUSE_S = 0.3
REST_S = 10.0
"""How long a Rig that failed is left alone; what is asked of it meanwhile fails at once."""


class WeightsPeer:
    """Any thread may ask. All methods raise MissingWeights, or CorruptWeights where pieces come damaged again and again.

    Args:
        address: host:port of one of its Workers.
        rig: its name, for messages.
        say: takes what people should know: where an answer broke off and is asked for again.
    """

    def __init__(self, credentials: Credentials, address: str, rig: str, say: Callable[[str], None]) -> None:
        self._say = say
        self.what = f"rig {rig} at {address}" if rig else f"the worker at {address}"
        self._channel = credentials.blocking_channel(address)
        self._stub = WeightsServiceStub(self._channel)
        self._resting_until = 0.0
        self._trouble = ""
        self._lock = threading.Lock()

    def outline(self, model_id: str) -> pb.OutlineReply:
        """What a model is made of."""
        try:
            reply: pb.OutlineReply = self._stub.Outline(pb.OutlineRequest(model_id=model_id), timeout=ASK_S)
            return reply
        except grpc.RpcError as error:
            raise MissingWeights(f"{self.what} does not say what the model is made of ({_why(error)})") from None

    def read(self, model_id: str, file: str, offset: int, buffer: memoryview) -> int:
        """Fill a buffer of bytes from `offset` on; returns the size of the file. An empty buffer only asks for that."""
        self._check_rested()
        at, tries, file_bytes = 0, 0, -1
        while at < len(buffer) or file_bytes < 0:
            before = at
            request = pb.ReadRequest(model_id=model_id, file=file, offset=offset + at, size=min(len(buffer) - at, REQUEST_BYTES))
            answer = self._stub.Read(request, timeout=REQUEST_S)
            try:
                for piece in answer:
                    at += _take(piece, buffer[at : before + request.size], f"{self.what}: {file}")
                    file_bytes = piece.file_bytes or file_bytes
                trouble: Exception = MissingWeights(f"{self.what} gave fewer bytes of {file} than were asked for")
            except grpc.RpcError as error:
                final = error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
                if final or isinstance(from_rpc(error, self.what), WrongKey):
                    raise MissingWeights(f"{self.what} does not give {file} ({_why(error)})") from None
                trouble = MissingWeights(f"{self.what} broke off in {file} at byte {offset + at} ({_why(error)})")
            except CorruptWeights as error:
                answer.cancel()
                trouble = error
            if at < before + request.size or file_bytes < 0:
                tries = 1 if at > before else tries + 1
                if tries == TRIES:
                    self._rest(str(trouble))
                    raise trouble
                self._say(f"{trouble}; asks again from byte {offset + at}")
                time.sleep(PAUSE_S)
        return file_bytes

    def close(self) -> None:
        self._channel.close()

    def _rest(self, trouble: str) -> None:
        with self._lock:
            self._resting_until, self._trouble = time.monotonic() + REST_S, trouble

    def _check_rested(self) -> None:
        with self._lock:
            if time.monotonic() < self._resting_until:
                raise MissingWeights(self._trouble)


@dataclass(frozen=True)
class PeerFile:
    """A `WeightFile` on another Rig."""

    peer: WeightsPeer
    model_id: str
    name: str

    @property
    def path(self) -> Path:
        return Path(self.name)

    def size(self) -> int:
        return self.peer.read(self.model_id, self.name, 0, memoryview(bytearray()))

    def read(self, offset: int, size: int) -> bytes:
        data = bytearray(min(size, max(0, self.size() - offset)))
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if len(buffer):
            self.peer.read(self.model_id, self.name, offset, buffer)


def _take(piece: pb.Piece, room: memoryview, what: str) -> int:
    """Put a piece where it belongs. Raises CorruptWeights where it is damaged, or more than was asked for."""
    data = piece.data  # once: each look at it is a copy
    if len(data) > len(room):
        raise CorruptWeights(f"{what} came with more bytes than were asked for")
    if zlib.crc32(data) != piece.crc32:
        raise CorruptWeights(f"{what} came damaged: a piece has another checksum than it was sent with")
    room[: len(data)] = data
    return len(data)


def _why(error: grpc.RpcError) -> str:
    text = silence(error)
    try:
        return in_one_line(str(json.loads(text)["message"]))
    except UNREADABLE:
        return in_one_line(text)  # gRPC's own words
