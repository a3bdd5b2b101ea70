"""`swarm resume`: plan on what was paused again.

Plan on devices again that `swarm pause` gave back. They load their part from the rig's cache where there is one; the others serve
meanwhile. Without `RIG` it is this machine; without `--device`, all of its devices.
"""

from __future__ import annotations

import asyncio

from swarm.cli import options
from swarm.cli.pause import Device, Rig, own_rig, show
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub


def resume(
    rig: Rig = "",
    device: Device = "",
    swarm: options.Swarm = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Plan on what was paused again."""
    asyncio.run(_resume(options.target(swarm, key, key_file), rig, device))


async def _resume(target: options.Target, rig: str, device: str) -> None:
    request = pb.PauseRequest(rig=rig or await own_rig(target), device=device)
    async with target.channel() as channel:
        await show(target, lambda: SwarmServiceStub(channel).Resume(request))
