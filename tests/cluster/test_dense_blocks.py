"""Models whose first Blocks have a dense MLP instead of experts: what a Plan says that each Worker holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from released import RELEASED

from cluster.planner import Load, Prices, budget_of, make_plan, needed_bytes
from cluster.planner.hardware import Hardware, Links, Measured, Speed
from swarm.config import ModelConfig, Sizes
from swarm.errors import DoesNotFit
from swarm.plan import ExpertShard, Model, Plan, Route, Stage, WorkerSpec


@pytest.mark.parametrize("change", [{}, {"first_k_dense_replace": 3}])
def test_a_plan_of_a_model_with_dense_blocks_says_what_each_worker_has(change: dict[str, int]) -> None:
    deepseek = ModelConfig.from_hf(RELEASED["deepseek-moe-16b"][0] | change)
    dense = change.get("first_k_dense_replace", 1)
    assert [deepseek.experts_in(b) for b in (0, dense - 1, dense, 27)] == [0, 0, 64, 64]
    model, sizes = Model("m", "m", "0" * 32, "bf16", deepseek), Sizes(deepseek, "bf16")
    workers = tuple(WorkerSpec(f"w{i}", "rig", "cpu", f"h:{i}", 1 << 40) for i in range(3))
    shards = (ExpertShard("w2", 0, tuple(range(9))), ExpertShard("w2", 20, tuple(range(9))))
    plan = Plan(1, model, workers, (Route((Stage("w0", 0, 4), Stage("w1", 4, 28))),), shards=shards)
    found = {w.name: budget_of(plan, w.name).weights_bytes for w in workers}
    assert sum(found.values()) == sizes.weights, "each part once"
    assert found["w2"] == 9 * sizes.expert, "its first Block has none"
    counted = Prices(sizes, 1, 1).budget(range(4), 9, 0).weights_bytes
    assert found["w0"] <= counted, "never more than it was decided with"
    assert needed_bytes(model, Load(1, 16)) < sizes.weights + 2**30


def test_a_swarm_that_has_the_memory_to_the_byte_is_not_refused_for_experts_that_block_0_lacks() -> None:
    model = Model("m", "m", "0" * 32, "bf16", ModelConfig.from_hf(RELEASED["deepseek-moe-16b"][0]))
    route, load = Route((Stage("w0", 0, 14), Stage("w1", 14, 28))), Load(1, 512)
    roomy = tuple(WorkerSpec(f"w{i}", "ab"[i], "cpu", f"h:{i}", 1 << 40) for i in range(2))
    asked = Plan(1, model, roomy, (route,), sessions=1, context=512)

    def on(lacking: int) -> Hardware:
        memory = [budget_of(asked, w.name).total_bytes - lacking * (w.name == "w0") for w in roomy]
        specs = (replace(w, memory_bytes=m) for w, m in zip(roomy, memory, strict=True))
        return Hardware(tuple(Measured(spec, Speed.of(100e9, 1e12, 1e-5, 2)) for spec in specs), Links())

    made = make_plan(model, on(0), load, 1)
    assert made.routes == (route,) and all(w.planned_bytes == w.memory_bytes for w in made.workers)
    with pytest.raises(DoesNotFit):
        make_plan(model, on(Prices.of(model, load).lacking), load, 1)
