"""How prompts are cut comes from what was measured: the rows that take a chunk as long as its start does."""

from __future__ import annotations

from dataclasses import replace

from cluster.planner import Hardware, Load, Measured, Prices, Speed, make_plan
from cluster.planner.chunks import start_rows
from cluster.planner.costs import Costs
from cluster.planner.hardware import Link, Links
from swarm.config import ModelConfig
from swarm.plan import Model, Plan, Route, Stage, WorkerSpec

CONFIG = ModelConfig("MixtralForCausalLM", 4096, 14336, 8, 32, 8, 128, 8, 2, 32000, 32768, 1e-5, 1e6, False, "bf16", 1, (2,))
MODEL = Model("mixtral", "mixtral", "1" * 16, "bf16", CONFIG)
LOAD = Load(sessions=2, context=512)
CPU = Speed.of(20e9, 1e12, 20e-6, 2)


def rows_of(speed: Speed, bytes_per_s: float = 1e12) -> int:
    """Of two equal Devices with half the Blocks each."""
    devices = tuple(Measured(WorkerSpec(n, n, "cpu", f"{n}:1", 2**40), speed) for n in ("a", "b"))
    plan = Plan(1, MODEL, tuple(d.spec for d in devices), (Route((Stage("a", 0, 4), Stage("b", 4, 8))),))
    return start_rows(plan, Costs(Prices.of(MODEL, LOAD), Hardware(devices, Links(default=Link(1e-3, bytes_per_s)))))


def test_the_dearer_a_chunk_starts_beside_its_rows_the_larger_it_is_to_be() -> None:
    assert rows_of(replace(CPU, start_s=5e-3)) > rows_of(CPU)
    assert rows_of(replace(CPU, several_start_s=5e-3)) > rows_of(CPU), "a chunk is several rows"
    assert rows_of(Speed.of(20e9, 4e12, 20e-6, 2)) > rows_of(CPU)
    assert rows_of(Speed.of(5e9, 1e12, 20e-6, 2)) > rows_of(CPU)


def test_over_a_slow_link_every_row_is_dear_and_chunks_are_small() -> None:
    assert rows_of(CPU, bytes_per_s=1e5) == 1 < rows_of(CPU)


def test_a_plan_is_made_with_what_its_devices_measured() -> None:
    for speed in (CPU, replace(CPU, start_s=5e-3)):
        hardware = Hardware((Measured(WorkerSpec("a", "a", "cpu", "a:1", 2**40), speed),))
        plan = make_plan(MODEL, hardware, LOAD, 1)
        assert plan.start_rows == start_rows(plan, Costs(Prices.of(MODEL, LOAD), hardware)) > 1
