"""`swarm key rotate` of a swarm that runs: real Workers, a Coordinator in a process of its own, and chats under way."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc.aio
import pytest
from claimed_ports import free_range
from plain_head import PlainHead

from cluster import rig as rig_module
from cluster.hardware import Device
from cluster.joined_rig import JoinedRig
from cluster.rig import Rig, RigSettings
from cluster.target import Target

pytest.importorskip("torch")

from swarm.cli import options, settings
from swarm.cli.one_head import one_head
from swarm.client.client import open_client
from swarm.client.plan_source import SwarmPlan
from swarm.client.sampling import Sampling
from swarm.errors import SwarmError, WrongKey
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.status import from_rpc
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1.swarm_pb2_grpc import SwarmServiceStub

MEMORY = 64 * 2**20
"""Any two hold the model."""
TEXT = "The sky is blue. The grass is green. The sky is"
DEADLINE_S = 120.0
OLD = "the old key"


class Chat:
    """An answer that goes on as long as the test does: a token now and then, and more when the test waits for some."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        self.tokens: list[int] = []
        self.told: list[str] = []
        self._hurry = asyncio.Event()
        self.task = asyncio.create_task(self._read(address, credentials))

    async def _read(self, address: str, credentials: Credentials) -> None:
        async with open_client(SwarmPlan(address, credentials), credentials, self.told.append) as client:
            conversation = client.conversation(speculate=False)
            async for piece in conversation.generate(client.tokenizer.encode(TEXT), Sampling(temperature=0.0)):
                self.tokens.append(piece.token)
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await self._hurry.wait()

    async def goes_on(self, count: int = 5) -> None:
        wanted = len(self.tokens) + count
        self._hurry.set()
        await until(lambda: len(self.tokens) >= wanted or self.task.done())
        self._hurry.clear()
        assert not self.task.done(), self.task.exception()

    async def stopped(self) -> list[int]:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        return self.tokens


async def until(there: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not there():
            await asyncio.sleep(0.05)


def ordered(name: str, folder: Path, said: list[str]) -> RigSettings:
    return RigSettings(
        name=name, devices=(Device("cpu", "cpu", MEMORY, 1, "a CPU"),), host="127.0.0.1", key=OLD, state_dir=folder / name,
        environment=dict(os.environ), ports=free_range(), spread=True, notify=said.append,
    )  # fmt: skip


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[None]:
    async with rig:
        task = asyncio.create_task(rig.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def plan_with(address: str, credentials: Credentials, rigs: Sequence[str]) -> Plan:
    """The Plan in force, once these are its rigs."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with suppress(grpc.aio.AioRpcError):
                reply = await asked(address, credentials)
                plan = Plan.from_json(reply.plan, "it") if reply.plan else None
                if plan and {w.rig for w in plan.workers} == set(rigs):
                    return plan
            await asyncio.sleep(0.1)


async def asked(address: str, credentials: Credentials) -> pb.PlanReply:
    async with credentials.channel(address) as channel:
        return await SwarmServiceStub(channel).GetPlan(pb.PlanRequest(), timeout=20)


async def refused(address: str, credentials: Credentials) -> SwarmError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await asked(address, credentials)
    return from_rpc(raised.value, "it")


async def rotate(*words: str) -> tuple[int, str, str]:
    ran = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "swarm.cli.main", "key", "rotate", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ,
    )  # fmt: skip
    out, err = await ran.communicate()
    return ran.returncode or 0, out.decode(), err.decode()


@pytest.mark.timeout(240)
async def test_a_running_swarm_gets_another_key_its_own_chats_go_on_and_the_old_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig_module, "RAY_AGAIN_S", 0.1)
    said: dict[str, list[str]] = {name: [] for name in ("attic", "desk", "barn")}
    target = Target("nano", "fp32", sessions=4, context=512, spread=True)
    head = PlainHead(ordered("attic", tmp_path, said["attic"]), target)
    async with AsyncExitStack() as stack:
        stack.enter_context(one_head(settings.state_dir(), head.address))
        await stack.enter_async_context(running(head))
        settings.remember(head.address, OLD)
        head.rekeyed = settings.replace_key
        desk, barn = (JoinedRig(ordered(name, tmp_path, said[name]), head.address) for name in ("desk", "barn"))
        for rig in (desk, barn):
            await stack.enter_async_context(running(rig))
        own, stranger = options.target(head.address, None, None).credentials, Credentials(OLD)
        await plan_with(head.address, stranger, ["attic", "desk", "barn"])
        chats = ours, others = Chat(head.address, own), Chat(head.address, stranger)
        for chat in chats:
            await chat.goes_on()
        code, out, err = await rotate("--without", "barn", "--json")
        assert code == 0, err
        changed = json.loads(out)
        assert (changed["rigs"], changed["without"], changed["missing"]) == (["attic", "desk"], ["barn"], [])
        new = Credentials(changed["key"])
        await until(others.task.done)
        assert isinstance(why := others.task.exception(), WrongKey) and "the swarm's key was changed" in str(why)
        await ours.goes_on()
        plan = await plan_with(head.address, new, ["attic", "desk"])
        for address in (head.address, *(worker.address for worker in plan.workers)):
            assert isinstance(await refused(address, stranger), WrongKey)
        assert settings.recall().keys == {head.address: changed["key"]}
        assert [rig.settings.key for rig in (head, desk, barn)] == [changed["key"], changed["key"], OLD]
        assert desk.workers[0].order.key == changed["key"] and changed["key"] in head.join_line
        await until(lambda: any("does not accept this key" in what for what in said["barn"]))
        tokens = await ours.stopped()
        again = Chat(head.address, new)
        await again.goes_on(len(tokens))
        assert (await again.stopped())[: len(tokens)] == tokens
