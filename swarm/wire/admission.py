"""Who may call what, by the certificate that is shown; and which invitations were called back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc.aio
from cryptography import x509

from swarm.errors import WrongKey
from swarm.wire.authority import MEMBER
from swarm.wire.roles import FOR_CLIENTS

Context = grpc.aio.ServicerContext[Any, Any]
INVITATIONS = "an invitation is for chatting: for this, give the swarm's key with --key"
REVOKED = "this invitation was revoked: ask who invited you for another one"


class Admission:
    """Looks at the certificates of who calls the servers of this process. Lives on the loop's thread."""

    def __init__(self) -> None:
        self._revoked: set[int] = set()
        self._calls: defaultdict[int, set[asyncio.Task[Any]]] = defaultdict(set)
        """Number of an invitation → its calls that are under way."""

    @property
    def revoked(self) -> frozenset[int]:
        """The numbers of all invitations that were called back."""
        return frozenset(self._revoked)

    def revoke(self, numbers: Iterable[int]) -> None:
        """Call invitations back, by their certificates' numbers: their calls end, and no other is answered."""
        for number in set(numbers) - self._revoked:
            self._revoked.add(number)
            for call in self._calls.pop(number, ()):
                call.cancel()

    @contextmanager
    def call(self, context: Context, method: str) -> Iterator[None]:
        """Around a call. Raises WrongKey where it may not be made, or (at any time) may no more."""
        shown = context.auth_context()
        if MEMBER.encode() in shown.get("x509_subject_alternative_name", ()):
            yield
            return
        if method not in FOR_CLIENTS:
            raise WrongKey(INVITATIONS)
        number = _number(shown.get("x509_pem_cert", ()))
        if number in self._revoked:
            raise WrongKey(REVOKED)
        with self._under_way(number):
            yield

    @contextmanager
    def _under_way(self, number: int) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None, "a call has a task"
        self._calls[number].add(task)
        try:
            yield
        except asyncio.CancelledError:
            if number in self._revoked:  # else it is the client that is gone
                task.uncancel()
                raise WrongKey(REVOKED) from None
            raise
        finally:
            if number in self._calls:
                self._calls[number].discard(task)
                if not self._calls[number]:
                    del self._calls[number]


def _number(pems: Iterable[bytes]) -> int:
    return next((x509.load_pem_x509_certificate(pem).serial_number for pem in pems), 0)
