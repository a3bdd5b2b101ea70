"""The planner's promises, on random swarms and on those that people have."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.planner import Load, Prices, make_plan, needed_bytes
from cluster.planner.budget import budget_of
from swarm.config import ModelConfig
from swarm.errors import DoesNotFit, UsageError
from swarm.plan import Model, Plan, WorkerSpec

MIB, GIB = 2**20, 2**30


def config(blocks: int = 8, experts: int = 8, hidden: int = 256, ffn: int = 256) -> ModelConfig:
    return ModelConfig(
        "MixtralForCausalLM", hidden, ffn, blocks, 8, 2, 32, experts, 2, 3072, 4096, 1e-5, 1e6, False, "bf16", 1, (2,)
    )


def model(**shape: int) -> Model:
    return Model("nano", "nano", "0" * 16, "bf16", config(**shape))


MIXTRAL = Model(
    "mixtral",
    "mistralai/Mixtral-8x7B-v0.1",
    "1" * 16,
    "bf16",
    ModelConfig("MixtralForCausalLM", 4096, 14336, 32, 32, 8, 128, 8, 2, 32000, 32768, 1e-5, 1e6, False, "bf16", 1, (2,)),
)


def device(name: str, memory: float, rig: str = "a", kind: str = "cpu") -> WorkerSpec:
    return WorkerSpec(name, rig, kind, f"127.0.0.1:{7700 + int(name[1:])}", int(memory))


def devices(*memory: float, rigs: str = "") -> list[WorkerSpec]:
    return [device(f"w{i}", m, rigs[i] if rigs else "a") for i, m in enumerate(memory)]


def check(plan: Plan) -> None:
    """Every invariant, and that budgets are what the one accounting says and no worker is without work."""
    plan.check()
    assert Plan.from_json(plan.to_json()) == plan
    shape = plan.model.config
    for block in range(shape.num_blocks):
        held = sorted(e for w in plan.workers for e in plan.local_experts(w.name, block))
        assert held == list(range(shape.num_experts))
    for worker in plan.workers:
        budget = budget_of(plan, worker.name)
        assert (worker.weights_bytes, worker.kv_bytes, worker.workspace_bytes) == (
            budget.weights_bytes,
            budget.kv_bytes,
            budget.workspace_bytes,
        )
        assert plan.stage_of(worker.name) or plan.shards_of(worker.name)


swarms = st.lists(st.tuples(st.integers(0, 120), st.sampled_from("abcd")), min_size=1, max_size=16)
shapes = st.fixed_dictionaries({"blocks": st.integers(1, 14), "experts": st.sampled_from([2, 4, 8, 16])})
loads = st.builds(Load, sessions=st.integers(1, 6), context=st.sampled_from([100, 2048, 8192]), spread=st.booleans())


@settings(max_examples=300, deadline=None)
@given(swarms, shapes, loads)
def test_every_plan_holds_its_invariants_and_a_refusal_states_true_sums(
    swarm: list[tuple[int, str]], shape: dict[str, int], load: Load
) -> None:
    ask = model(**shape)
    offered = [device(f"w{i}", m * MIB, rig) for i, (m, rig) in enumerate(swarm)]
    prices = Prices.of(ask, load)
    unused = prices.fixed(True, True) + prices.core + prices.expert
    try:
        plan = make_plan(ask, offered, load, 3)
    except DoesNotFit as error:
        assert error.available_bytes == sum(w.memory_bytes for w in offered)
        assert error.needed_bytes > error.available_bytes
        assert error.needed_bytes >= needed_bytes(ask, load)
        assert sum(max(0, w.memory_bytes - unused) for w in offered) < shape["blocks"] * prices.whole
        return
    check(plan)
    assert plan.epoch == 3
    assert make_plan(ask, offered[::-1], load, 3) == plan
    assert sum(w.planned_bytes for w in plan.workers) >= needed_bytes(ask, load)
