"""What stands before every call of a server: who may make it, and that what was sent can be read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from swarm.errors import Refused, WrongKey
from swarm.wire.admission import Admission, UnderWay
from swarm.wire.status import to_rpc

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in its stubs alone


DAMAGED = "what was sent is no message of this swarm: compare the versions with `swarm --version` on both sides"


class _Damaged:
    """Stands for the one request of a call, where it is no message."""


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs alone
    """Refuses calls of who may not make them, and messages that cannot be read.

    Args:
        admission: who may call what; None: everybody, as in a swarm without a key.
    """

    def __init__(self, admission: Admission | None) -> None:
        self._admission = admission

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(details)
        return handler if handler is None else self._guarded(handler, str(details.method))

    def _guarded(self, handler: Handler, method: str) -> Handler:
        """The same handler behind a look at the certificate: one a call, so that a stream's messages cost no more."""
        deserializer: Any = handler.request_deserializer
        many = handler.request_streaming
        read = _readable_here(deserializer) if many else _readable(deserializer)
        if handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler if many else grpc.unary_stream_rpc_method_handler
            stream: Any = handler.stream_stream if many else handler.unary_stream

            async def streaming(request: Any, context: Context) -> None:
                try:
                    with self._admitted(context, method) as call:
                        async with call.making(stream(_sound(request), context)) as replies:
                            async for reply in replies:
                                await call.write(context.write(reply))
                except (Refused, WrongKey) as error:
                    await context.abort(*to_rpc(error))

            return make(streaming, read, handler.response_serializer)
        make_unary = grpc.stream_unary_rpc_method_handler if many else grpc.unary_unary_rpc_method_handler
        unary: Any = handler.stream_unary if many else handler.unary_unary

        async def answering(request: Any, context: Context) -> Any:
            try:
                with self._admitted(context, method):
                    return await unary(_sound(request), context)
            except (Refused, WrongKey) as error:
                await context.abort(*to_rpc(error))

        return make_unary(answering, read, handler.response_serializer)

    def _admitted(self, context: Context, method: str) -> AbstractContextManager[UnderWay]:
        return nullcontext(UnderWay()) if self._admission is None else self._admission.call(context, method)


def _readable(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Where the one request of a call cannot be read gRPC would say that we failed, and not who sent it."""

    def reading(raw: bytes) -> Any:
        try:
            return read(raw)
        except DecodeError:
            return _Damaged()

    return reading


def _readable_here(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Of a stream, each request is read where its handler asks for it: that is who hears of one that cannot be."""

    def reading(raw: bytes) -> Any:
        try:
            return read(raw)
        except DecodeError:
            raise Refused(DAMAGED) from None

    return reading


def _sound(request: Any) -> Any:
    """The request, or the stream of them, as it came. Raises Refused for what is no message of ours."""
    if isinstance(request, _Damaged):
        raise Refused(DAMAGED)
    return request
