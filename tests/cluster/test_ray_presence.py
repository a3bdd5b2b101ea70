"""A rig whose Ray node dies: its Worker serves on, `swarm status` says so, and its Agent is there again with the node."""

from __future__ import annotations

import pytest
from memory_swarm import NEED, Swarm, offer

from cluster import ray_presence


async def test_status_says_which_rig_has_no_ray_node_and_its_agents_come_back_with_it(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = {"a": "node-1", "b": "node-2"}

    async def living() -> dict[str, str]:
        return dict(nodes)

    await swarm.coordinator.stop()
    monkeypatch.setattr(ray_presence, "LOOK_S", 0.01)
    swarm.agents.nodes = living  # type: ignore[method-assign]
    await swarm.coordinator.start()
    await swarm.coordinator.join(offer("a", NEED * 3 // 4))
    await swarm.coordinator.join(offer("b", NEED * 3 // 4))
    await swarm.seen(lambda: "block" in swarm.agents.named.get("b/cpu", ""))
    before, named = swarm.plan.epoch, swarm.agents.named.pop("b/cpu")

    def said() -> list[str]:
        return [note for note in swarm.coordinator.status()["notes"] if "Ray node" in note]

    assert said() == []
    del nodes["b"]
    await swarm.seen(said)
    assert said()[0].startswith("b has no Ray node now: its workers serve on and chats go on")
    assert swarm.plan.epoch == before and "b/cpu" not in swarm.agents.named
    nodes["b"] = "node-3"
    await swarm.seen(lambda: swarm.agents.named.get("b/cpu") == named)
    assert said() == [] and swarm.plan.epoch == before
