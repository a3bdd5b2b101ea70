"""One object makes every channel and every server, so that who may talk is decided in one place.

A call carries the swarm's key in its metadata; a server refuses calls without it before it reads a message.
Keepalive is set on both ends: a server left at its default ping limit answers a client's pings with GOAWAY.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio

from swarm.errors import PortInUse, WrongKey
from swarm.plan import MESSAGE_BYTES

_HEADER = "swarm-key"
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
]
_CLIENT = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True)
class Credentials:
    """The swarm's key, and how channels and servers are made with it.

    An empty key admits everybody: only for Workers on this machine that a Plan file describes.
    """

    key: str = ""

    def __post_init__(self) -> None:
        if not self.key.isascii() or not (self.key == "" or self.key.isprintable()):
            raise WrongKey("the key has characters that no swarm's key has: copy it again from what `swarm up` printed")

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel to host:port. Connects when first used."""
        channel = grpc.aio.insecure_channel(address, options=[*_SIZES, *_KEEPALIVE, *_CLIENT])
        return cast(grpc.aio.Channel, _KeyedChannel(channel, self.key)) if self.key else channel

    def blocking_channel(self, address: str) -> grpc.Channel:
        """A channel for a thread that may wait; its calls carry `metadata`. Connects when first used."""
        return grpc.insecure_channel(address, options=[*_SIZES, *_KEEPALIVE, *_CLIENT])

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What each call on a blocking channel carries."""
        return ((_HEADER, self.key),) if self.key else ()

    def server(self) -> grpc.aio.Server:
        """A server that answers only calls that carry the key."""
        interceptors = [_CheckKey(self.key)] if self.key else []
        return grpc.aio.server(interceptors=interceptors, options=[*_SIZES, *_KEEPALIVE, *_SERVER])

    def bind(self, server: grpc.aio.Server, address: str) -> int:
        """Listen on host:port (port 0: any) and return the port.

        Raises:
            PortInUse: somebody else listens there, or the host is not ours.
        """
        try:
            port = server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise PortInUse(
                f"cannot listen on {address}: the port is in use or the address is not this machine's; choose other --ports"
            )
        return port


class _CheckKey(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs alone
    """Refuses calls without the key, in the handler's own calling style."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        given = dict(details.invocation_metadata or ()).get(_HEADER, "")
        handler = await continuation(details)
        if handler is None or hmac.compare_digest(str(given).encode(), self._key):
            return handler
        return _refusal(handler)


async def _refuse_stream(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong key")
    yield  # pragma: no cover  (abort raised; a generator needs a yield)


async def _refuse_unary(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong key")


def _refusal(handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[(bool(handler.request_streaming), bool(handler.response_streaming))]
    return make(_refuse_stream if handler.response_streaming else _refuse_unary)


class _KeyedChannel:
    """A channel whose every call carries the key.

    Not an interceptor: those put a queue and a task between a stream's writer and its socket.
    """

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._channel = channel
        self._metadata = ((_HEADER, key),)

    def unary_unary(self, method: str, **how: Any) -> Callable[..., Any]:
        return self._keyed(self._channel.unary_unary(method, **how))

    def unary_stream(self, method: str, **how: Any) -> Callable[..., Any]:
        return self._keyed(self._channel.unary_stream(method, **how))

    def stream_unary(self, method: str, **how: Any) -> Callable[..., Any]:
        return self._keyed(self._channel.stream_unary(method, **how))

    def stream_stream(self, method: str, **how: Any) -> Callable[..., Any]:
        return self._keyed(self._channel.stream_stream(method, **how))

    def _keyed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(call, metadata=self._metadata)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)
