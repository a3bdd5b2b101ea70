"""Models whose first Blocks have a dense MLP instead of experts: what a Plan says that each Worker holds."""

from __future__ import annotations

import pytest
from released import RELEASED

from cluster.planner import Load, Prices, budget_of, needed_bytes
from swarm.config import ModelConfig, Sizes
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
