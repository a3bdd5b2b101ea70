"""One object makes every channel and every server, so that who may talk is decided in one place.

With a key, every connection is TLS on which both ends show a certificate of the authority that the key is: without the key
nobody reads what passes, and nobody is answered. Without a key everything is plain text. Who has the key can be given another
one while it runs (`accept`, `use`, `settle`): servers are of both authorities meanwhile, and show each client the one it means.
Keepalive is set on both ends: a server left at its default ping limit answers a client's pings with GOAWAY.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import grpc
import grpc.aio

from swarm.errors import PortInUse, WrongKey
from swarm.plan import MESSAGE_BYTES
from swarm.wire import invitation
from swarm.wire.admission import Admission
from swarm.wire.authority import Authority, Papers
from swarm.wire.guard import Guard

HANDSHAKE_S = 10
"""How long a connection may take until it speaks gRPC, TLS included."""
STREAMS = 1024
"""Calls under way on one connection; the next wait at the client."""
_SIZES = [("grpc.max_send_message_length", MESSAGE_BYTES), ("grpc.max_receive_message_length", MESSAGE_BYTES)]
_KEEPALIVE = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
_SERVER = [
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
    # Who connects and then says nothing, or half of a handshake, is gone after that; gRPC's own limit is two minutes.
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
    ("grpc.max_concurrent_streams", STREAMS),
]
_CLIENT = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # how long one attempt to connect may take: TLS over a slow link takes a second
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
_CHANNEL: list[tuple[str, int | str]] = [*_SIZES, *_KEEPALIVE, *_CLIENT]


@dataclass(eq=False)
class Credentials:
    """The swarm's key, or an invitation in its place, and how channels and servers are made with it.

    An empty key admits everybody, in plain text: only for Workers that a Plan file describes.

    Args:
        name: who shows it: the rig, the Worker, or a client.
        kept: where this key is kept, which has another one once it was changed; None: somebody gave it.

    Raises:
        WrongKey: no swarm's key looks so, or the invitation is damaged or has expired.
    """

    key: str = ""
    name: str = "client"
    kept: Callable[[], str] | None = field(default=None, repr=False)
    _also: str = field(default="", init=False, repr=False)
    _issued: dict[str, Papers] = field(default_factory=dict, init=False, repr=False)
    """By key: deriving an authority takes a while."""
    _admissions: WeakSet[Admission] = field(default_factory=WeakSet, init=False, repr=False)

    def __post_init__(self) -> None:
        check(self.key)
        if invitation.is_invitation(self.key):
            invitation.read(self.key)

    def __reduce__(self) -> tuple[type[Credentials], tuple[str, str]]:
        """What goes to another process (an actor of Ray): not the papers, each process issues its own."""
        return Credentials, (self.key, self.name)

    @property
    def papers(self) -> Papers:
        """Certificates and private key of this process. Derived when first asked for."""
        return self._papers_of(self.key)

    def accept(self, key: str) -> None:
        """Servers admit who has that key, too, from the next connection on; empty: only who has the one that is used.

        Raises:
            WrongKey: no swarm's key looks so.
        """
        if key:
            check(key)
            self._papers_of(key)
        self._also = key if key != self.key else ""
        self._admit()

    def use(self, key: str) -> None:
        """Dial with that key from now on; servers still admit who has the one before. Raises WrongKey."""
        if key != self.key:
            self.accept(key)
            self.key, self._also = key, self.key

    def settle(self) -> None:
        """Admit only who has the key that is used: the calls of all others end, also over connections that they have already."""
        self._also = ""
        self._admit()

    def _admit(self) -> None:
        for admission in self._admissions:
            admission.only(*(self._papers_of(key).authority for key in self._accepted))

    def renew(self) -> bool:
        """Whether another key is kept by now where this one was; it is used from now on."""
        key = self.kept() if self.kept else ""
        if key in ("", self.key):
            return False
        self.use(key)
        self.settle()
        return True

    def papers_at(self, addresses: Sequence[str]) -> Papers:
        """Papers that name addresses too, for programs that are not ours."""
        self.check_member()
        return self._authority.member(self.name, addresses)

    @property
    def fingerprint(self) -> str:
        """Of the authority that the key is."""
        self.check_member()
        return self._authority.fingerprint

    @property
    def _authority(self) -> Authority:
        return Authority.of(self.key)

    def _papers_of(self, key: str) -> Papers:
        if key not in self._issued:
            self._issued[key] = invitation.read(key) if invitation.is_invitation(key) else Authority.of(key).member(self.name)
        return self._issued[key]

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel to host:port. Connects when first used."""
        if not self.key:
            return grpc.aio.insecure_channel(address, options=_CHANNEL)
        return grpc.aio.secure_channel(address, self._for_channels, options=self._options)

    def blocking_channel(self, address: str) -> grpc.Channel:
        """A channel for a thread that may wait. Connects when first used."""
        if not self.key:
            return grpc.insecure_channel(address, options=_CHANNEL)
        return grpc.secure_channel(address, self._for_channels, options=self._options)

    def server(self, admission: Admission | None = None) -> grpc.aio.Server:
        """A server that tells members from who has only an invitation. Listens with `bind`.

        Args:
            admission: through which invitations can be called back.
        """
        admission = admission or Admission()
        self._admissions.add(admission)
        guard = Guard(admission) if self.key else Guard(None)
        return grpc.aio.server(interceptors=[guard], options=[*_SIZES, *_KEEPALIVE, *_SERVER])

    def bind(self, server: grpc.aio.Server, address: str) -> int:
        """Listen on host:port (port 0: any) and return the port.

        Raises:
            PortInUse: somebody else listens there, or the host is not ours.
            WrongKey: an invitation does not make a member.
        """
        self.check_member()
        try:
            port = server.add_secure_port(address, self._for_servers) if self.key else server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise PortInUse(
                f"cannot listen on {address}: the port is in use or the address is not this machine's; choose other --ports"
            )
        return port

    def check_member(self) -> None:
        """Raise WrongKey for an invitation: it is for who chats, and makes no server."""
        if invitation.is_invitation(self.key):
            raise WrongKey("this is an invitation, which is for chatting: give the swarm's key with --key")

    @property
    def _for_channels(self) -> grpc.ChannelCredentials:
        papers = self.papers
        return grpc.ssl_channel_credentials(papers.authority, papers.private_key, papers.certificate)

    @property
    def _options(self) -> list[tuple[str, int | str]]:
        """A server proves that it belongs to the swarm, at whatever address it is."""
        return [*_CHANNEL, ("grpc.ssl_target_name_override", self.papers.server)]

    @property
    def _for_servers(self) -> grpc.ServerCredentials:
        shown = self._accepted

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """What gRPC asks before each handshake, on a thread of its own; None: as before."""
            nonlocal shown
            if shown == (now := self._accepted):
                return None
            shown = now
            return self._configuration(now)

        ask: Callable[[], Any] = fetch  # its stubs do not know that None means as before
        return grpc.dynamic_ssl_server_credentials(self._configuration(shown), ask, require_client_authentication=True)

    @property
    def _accepted(self) -> tuple[str, ...]:
        """Whoever means none of them by name is shown the first."""
        return (self.key, self._also) if self._also else (self.key,)

    def _configuration(self, keys: Sequence[str]) -> grpc.ServerCertificateConfiguration:
        papers = [self._papers_of(key) for key in keys]
        shown = [(each.private_key, each.certificate) for each in papers]
        return grpc.ssl_server_certificate_configuration(shown, b"".join(each.authority for each in papers))


def check(key: str) -> None:
    """Raise WrongKey where no swarm's key looks so."""
    if not key.isascii() or not (key == "" or key.isprintable()):
        raise WrongKey("the key has characters that no swarm's key has: copy it again from what `swarm up` printed")
