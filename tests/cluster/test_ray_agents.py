"""An Agent whose actor Ray has lost, in any of the ways in which Ray says so, still reaches its Worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

pytest.importorskip("ray")

import ray
from fake_worker import CONFIG, MODELS, FakeWorker

from cluster.agents import PrepareOrder, WorkerAgent
from cluster.planner import Hardware, Load, Measured, Speed, make_plan
from cluster.ray_agents import RayAgent
from swarm.plan import WorkerSpec

LOSSES = ("RayActorError", "OwnerDiedError", "RaySystemError", "TaskCancelledError", "LocalRayletDiedError", "RpcError")


def loss(name: str) -> Exception:
    """Some of them want arguments that only Ray has."""
    made: Exception = getattr(ray.exceptions, name).__new__(getattr(ray.exceptions, name))
    return made


class LostActor:
    """Answers every call as Ray does for an actor that it has lost."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, method: str) -> LostActor:
        return self

    def options(self, num_returns: str) -> LostStream:
        return LostStream(self._error)

    async def remote(self, *args: object) -> None:
        raise self._error


class LostStream:
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def remote(self, *args: object) -> AsyncIterator[Any]:
        raise self._error
        yield


@pytest.mark.parametrize("name", LOSSES)
async def test_orders_go_straight_to_the_worker_when_ray_has_lost_the_actor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cancel", lambda stream: None)
    worker = FakeWorker("w0")
    agent = RayAgent(LostActor(loss(name)), cast(WorkerAgent, worker), "w0")
    device = Measured(WorkerSpec("w0", "a", "cpu", "h:1", 2**30), Speed.of(50e9, 1e12, 2e-5, 2))
    plan = make_plan(MODELS["nano"], Hardware((device,)), Load(1, 64), 7)
    assert (await agent.describe("nano", "fp32")).model.config == CONFIG
    assert [counts async for counts in agent.prepare(PrepareOrder(plan.to_json(), "w0", False))][-1][0] > 0
    await agent.commit(7)
    await agent.drain(7, 1.0)
    assert worker.orders == ["w0: prepare 7", "w0: commit 7", "w0: drain 7"]


@pytest.mark.parametrize("name", [*LOSSES, "ActorHandleNotFoundError"])
async def test_giving_an_agent_up_never_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(actor: object) -> None:
        raise loss(name)

    monkeypatch.setattr(ray, "kill", kill)
    await RayAgent(LostActor(loss(name)), cast(WorkerAgent, FakeWorker("w0")), "w0").close()
