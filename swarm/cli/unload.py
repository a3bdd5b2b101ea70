"""`swarm unload`: give the memory of the model back.

Give all weights and caches back, on all rigs. The swarm stays: its rigs, its key, its processes. The next question, or
`swarm load`, brings the model back, from the quantized weights that the rigs keep on their disks where there are any. A chat that
is in the middle of an answer is such a question: it pauses and goes on when the model is back.
"""

from __future__ import annotations

import asyncio

import grpc.aio

from swarm.cli import options, output
from swarm.errors import gib
from swarm.wire.status import from_rpc
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub


def unload(swarm: options.Swarm = None, key: options.Key = None, key_file: options.KeyFile = None) -> None:
    """Give all weights back; the swarm stays, and the next question or `swarm load` brings the model back."""
    reply = asyncio.run(_unload(options.target(swarm, key, key_file)))
    output.stdout().print(f"unloaded {reply.model}: {gib(reply.bytes)} given back; a question brings it back, or `swarm load`")


async def _unload(target: options.Target) -> pb.UnloadReply:
    async with target.channel() as channel:
        try:
            reply: pb.UnloadReply = await SwarmServiceStub(channel).Unload(pb.UnloadRequest())
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, target.what) from None
    return reply
