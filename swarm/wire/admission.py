"""Who may call what, by the certificate that is shown; and which invitations were called back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import grpc.aio
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from swarm.errors import WrongKey
from swarm.wire.authority import MEMBER
from swarm.wire.roles import FOR_CLIENTS

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")
INVITATIONS = "an invitation is for chatting: for this, give the swarm's key with --key"
CHANGED = "the swarm's key was changed: ask for the new one and give it with --key; the rig that ran `swarm up` shows it"
REVOKED = "this invitation was revoked: ask who invited you for another one"
HALF_SENT_S = 5.0
"""What makes the messages for a client that is refused is given up, if that client does not take one within so long."""


class UnderWay:
    """A call that is being answered, by this task."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a call has a task"
        self.task: asyncio.Task[Any] = task
        self._replies: AsyncGenerator[Any] | None = None
        self._writing = False
        self._ends: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Cancel its task: while it writes, behind that, for gRPC sends no status while a first message is on its way."""
        if self._writing:
            self._ends = self.task.get_loop().call_later(HALF_SENT_S, self._give_up)
        else:
            self.task.cancel()

    @asynccontextmanager
    async def making(self, replies: AsyncGenerator[T]) -> AsyncIterator[AsyncGenerator[T]]:
        """Around what makes its messages, which is closed behind it."""
        self._replies = replies
        try:
            yield replies
        finally:
            if self._ends is not None:
                self._ends.cancel()
            await (self._closing or replies.aclose())

    async def write(self, sent: Awaitable[None]) -> None:
        """Wait until a message is sent. Raises CancelledError where the call ended meanwhile."""
        self._writing = True
        await sent
        self._writing = False
        if self._ends is not None:
            raise asyncio.CancelledError

    def _give_up(self) -> None:
        """Have what makes the messages let go of all that it holds; the status comes when the client takes what is on its way."""
        assert self._replies is not None, "it writes what somebody makes"
        self._closing = self.task.get_loop().create_task(self._replies.aclose())


class Admission:
    """Looks at the certificates of who calls the servers of this process. Lives on the loop's thread."""

    def __init__(self) -> None:
        self._revoked: set[int] = set()
        self._authorities: list[x509.Certificate] = []
        self._ours: dict[bytes, bool] = {}
        """Certificate → whether one of them issued it."""
        self._calls: defaultdict[bytes, set[UnderWay]] = defaultdict(set)
        """Certificate → its calls that are under way."""

    @property
    def revoked(self) -> frozenset[int]:
        """The numbers of all invitations that were called back."""
        return frozenset(self._revoked)

    def revoke(self, numbers: Iterable[int]) -> None:
        """Call invitations back, by their certificates' numbers: their calls end, and no other is answered."""
        self._revoked.update(numbers)
        self._end_refused()

    def only(self, *authorities: bytes) -> None:
        """Answer only who shows a certificate of one of these authorities (PEM); the calls of others end.

        Connections that were made before stay open: who may make new ones is decided in the handshake.
        """
        self._authorities = [x509.load_pem_x509_certificate(each) for each in authorities]
        self._ours.clear()
        self._end_refused()

    @contextmanager
    def call(self, context: Context, method: str) -> Iterator[UnderWay]:
        """Around a call. Raises WrongKey where it may not be made, or (at any time) may no more."""
        shown = context.auth_context()
        certificate = next(iter(shown.get("x509_pem_cert", ())), b"")
        if not _is_member(context) and method not in FOR_CLIENTS:
            raise WrongKey(INVITATIONS)
        if why := self._refuses(certificate):
            raise WrongKey(why)
        with self._under_way(certificate) as call:
            yield call

    @contextmanager
    def _under_way(self, certificate: bytes) -> Iterator[UnderWay]:
        call = UnderWay()
        self._calls[certificate].add(call)
        try:
            yield call
        except asyncio.CancelledError:
            if why := self._refuses(certificate):  # else it is the client that is gone
                call.task.uncancel()
                raise WrongKey(why) from None
            raise
        finally:
            if certificate in self._calls:
                self._calls[certificate].discard(call)
                if not self._calls[certificate]:
                    del self._calls[certificate]

    def _end_refused(self) -> None:
        for certificate in [c for c in self._calls if self._refuses(c)]:
            for call in self._calls.pop(certificate):
                call.end()

    def _refuses(self, certificate: bytes) -> str:
        """Why who shows it is answered no more; empty: he is."""
        if not self._is_ours(certificate):
            return CHANGED
        return REVOKED if self._revoked and _number(certificate) in self._revoked else ""

    def _is_ours(self, certificate: bytes) -> bool:
        if not self._authorities:  # the handshake admits one authority's, and did all the time
            return True
        if certificate not in self._ours:
            self._ours[certificate] = any(_issued(certificate, each) for each in self._authorities)
        return self._ours[certificate]


def is_guest(context: Context) -> bool:
    """Whether who calls has an invitation only. Where the swarm has no key, nobody shows a certificate, and nobody is."""
    return "x509_pem_cert" in context.auth_context() and not _is_member(context)


def _is_member(context: Context) -> bool:
    return MEMBER.encode() in context.auth_context().get("x509_subject_alternative_name", ())


def _number(certificate: bytes) -> int:
    return x509.load_pem_x509_certificate(certificate).serial_number if certificate else 0


def _issued(certificate: bytes, authority: x509.Certificate) -> bool:
    try:
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
