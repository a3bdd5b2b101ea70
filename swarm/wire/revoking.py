"""The numbers of invitations as they cross a wire and lie in files, and the call that has them called back in one process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc.aio

from swarm.errors import Refused
from swarm.wire.admission import Admission
from swarm.wire.v1 import key_pb2 as pb
from swarm.wire.v1.key_pb2_grpc import KeyServiceServicer

NUMBER_BYTES = 20
"""RFC 5280, 4.1.2.2: the longest number of a certificate."""
MOST_NUMBERS = 10_000

Context = grpc.aio.ServicerContext[Any, Any]


def request_for(numbers: Iterable[int]) -> pb.RevokeRequest:
    return pb.RevokeRequest(numbers=[number.to_bytes(NUMBER_BYTES, "big") for number in sorted(numbers)])


def numbers_of(request: pb.RevokeRequest) -> frozenset[int]:
    """The numbers in a request. Raises Refused where they are none, or too many."""
    if len(request.numbers) > MOST_NUMBERS or any(len(number) > NUMBER_BYTES for number in request.numbers):
        raise Refused(f"at most {MOST_NUMBERS} invitations are called back at once, each named by {NUMBER_BYTES} bytes")
    return frozenset(int.from_bytes(number, "big") for number in request.numbers)


class Revoking(KeyServiceServicer):
    """`KeyService` of one process: calls invitations back at its own server."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def Revoke(self, request: pb.RevokeRequest, context: Context) -> pb.RevokeReply:
        self._admission.revoke(numbers_of(request))  # what is refused, the server's guard tells
        return pb.RevokeReply()
