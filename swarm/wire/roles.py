"""What somebody with an invitation may ask: what a client needs to chat. All else is for members, who hold the key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import grpc.aio

from swarm.errors import WrongKey
from swarm.wire.authority import MEMBER
from swarm.wire.status import to_rpc

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in its stubs alone
FOR_CLIENTS = {
    *(f"/swarm.v1.SwarmService/{name}" for name in ("GetPlan", "WatchPlan", "GetAssets", "GetStatus", "ReportFailure")),
    *(f"/swarm.v1.StageService/{name}" for name in ("Open", "Close", "Submit", "Listen", "WholeRow", "Release")),
    "/swarm.v1.WorkerService/Status",
}


class MembersOnly(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs alone
    """Refuses calls of somebody who shows a client's certificate, but for those in `FOR_CLIENTS`."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(details)
        if handler is None or details.method in FOR_CLIENTS:
            return handler
        return _guarded(handler)


def _guarded(handler: Handler) -> Handler:
    """The same handler behind a look at the certificate; a stream is looked at once, and its messages cost no more."""
    if handler.response_streaming:
        make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        stream: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def streaming(request: Any, context: Context) -> None:
            await _check(context)
            async with aclosing(stream(request, context)) as replies:
                async for reply in replies:
                    await context.write(reply)

        return make(streaming, handler.request_deserializer, handler.response_serializer)
    make_unary = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
    unary: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary

    async def answering(request: Any, context: Context) -> Any:
        await _check(context)
        return await unary(request, context)

    return make_unary(answering, handler.request_deserializer, handler.response_serializer)


async def _check(context: Context) -> None:
    names = context.auth_context().get("x509_subject_alternative_name", ())
    if MEMBER.encode() not in names:
        await context.abort(*to_rpc(WrongKey("an invitation is for chatting: for this, give the swarm's key with --key")))
