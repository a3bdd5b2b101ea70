"""The Coordinator as a detached Ray actor that serves the swarm's door. Run as a program, it starts that actor.

python -m cluster.actor < settings.json      prints `ready`, and ends; the actor stays with its Ray node
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.calling import Calling
from cluster.chronicle import tell
from cluster.coordinator import Coordinator
from cluster.coordinator_settings import CoordinatorSettings
from cluster.door import Door, RayDoor
from cluster.memo import Memo
from cluster.ray_agents import RayAgents
from cluster.ray_node import NAMESPACE, ray_host
from cluster.revocations import Revocations
from swarm.errors import SwarmError
from swarm.logs.file import LogFile
from swarm.wire.admission import Admission
from swarm.wire.credentials import Credentials
from swarm.wire.open_files import allow_many
from swarm.wire.v1 import key_pb2_grpc, swarm_pb2_grpc

_LOG = logging.getLogger(__name__)
NAME = "swarm-coordinator"
START_S = 60.0


class CoordinatorActor:
    """Runs a Coordinator and its door in a loop of their own; Ray makes it anew with the same settings when it dies."""

    def __init__(self, settings: CoordinatorSettings) -> None:
        self._settings = settings
        self._ready: Future[None] = Future()
        threading.Thread(target=self._run, daemon=True, name="coordinator").start()
        self._ready.result(START_S)

    def __repr__(self) -> str:
        return f"coordinator · {self._settings.address}"

    def ready(self) -> bool:
        """Answers once the door is open."""
        return True

    def _run(self) -> None:
        settings = self._settings
        with open(os.devnull, "wb") as null:  # the solver prints lines there by itself, past Python; nobody else does
            os.dup2(null.fileno(), 1)
        with LogFile(Path(settings.logs), settings.rig, "coordinator") if settings.logs else nullcontext():
            self._run_logged()

    def _run_logged(self) -> None:
        try:
            asyncio.run(self._serve())
        except (SwarmError, OSError, RuntimeError) as error:
            if not self._ready.done():
                self._ready.set_exception(RuntimeError(str(error)))
                return
            _LOG.exception("the coordinator ends")
        finally:
            if self._ready.done() and not self._ready.exception():
                os._exit(1)  # Ray makes it anew, and it adopts what the Workers serve

    async def _serve(self) -> None:
        settings = self._settings
        credentials = Credentials(settings.key, "coordinator")
        memo = Memo(Path(settings.memo))
        restarted = settings.restarted or ray.get_runtime_context().was_current_actor_reconstructed
        target = (memo.read() if restarted else None) or settings.target
        memo.write(target)
        book = memo.measurements(forget=not restarted)
        pauses = memo.pauses(forget=not restarted)
        coordinator = Coordinator(target, RayAgents(credentials), settings.head, time.time, memo.write, restarted, book, pauses)
        allow_many()
        admission = Admission()
        server = credentials.server(admission)
        door = Door(coordinator, settings.address, RayDoor(settings.ray_address, settings.ray_token))
        swarm_pb2_grpc.add_SwarmServiceServicer_to_server(door, server)
        revoked = Path(settings.memo).with_name("revoked.json")
        revocations = Revocations(admission, credentials, revoked, coordinator.every_address)
        key_pb2_grpc.add_KeyServiceServicer_to_server(revocations, server)
        credentials.bind(server, settings.listen)
        await coordinator.start()
        await server.start()
        calling = Calling(credentials, Path(settings.memo).with_name("rigs.json"), settings.address)
        runs = (tell(coordinator), calling.run(coordinator.worker_addresses), revocations.run())
        beside = [asyncio.create_task(run) for run in runs]
        self._ready.set_result(None)
        try:
            await coordinator.failed()
        finally:
            for task in beside:
                task.cancel()


def start(settings: CoordinatorSettings) -> None:
    """Connect to Ray, start the actor on this node and wait until its door is open."""
    host = ray_host(settings.ray_address.rpartition(":")[0])
    ray.init(
        address=settings.ray_address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False, _node_ip_address=host,
        _skip_env_hook=True,
    )  # fmt: skip
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    made: Any = ray.remote(CoordinatorActor).options(
        name=NAME, namespace=NAMESPACE, lifetime="detached", num_cpus=0, max_restarts=-1, scheduling_strategy=here
    )
    actor = made.remote(settings)
    ray.get(actor.ready.remote(), timeout=START_S)


if __name__ == "__main__":
    # As a module, not as __main__: the actor's process imports the classes by name.
    from cluster import actor

    actor.start(CoordinatorSettings.from_json(sys.stdin.read()))
    print("ready", flush=True)
