"""The search for long models: within a thousandth of the best Plan, and with a bound that no Plan beats."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from brute_force import brute_force
from swarms import Size, swarm

from benchmarks.home_swarms import HomeSwarm
from benchmarks.tight_homes import tight_home
from cluster.planner import exact
from cluster.planner.exact_split import NEAR
from cluster.planner.make import decide
from swarm.plan_check import OBJECTIVES

SIZES = (Size(3, 4, 4, 3), Size(3, 4, 4, 3), Size(4, 5, 4, 3))
ROUNDED = 1 + 1e-9


def homes(seeds: tuple[int, ...]) -> Iterator[HomeSwarm]:
    for seed in seeds:
        home = tight_home(Random(seed))
        yield HomeSwarm(home.model, home.hardware, home.for_objective(OBJECTIVES[seed % 3]))


@pytest.mark.parametrize("part", range(8))
def test_of_small_swarms_it_finds_what_brute_force_finds(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "SHORT", 0)  # so that models of few Blocks are searched as long ones are
    for seed in range(20 * part, 20 * part + 20):
        asked = swarm(Random(seed), SIZES[seed % 3])
        best, choice = brute_force(asked.model, asked.hardware, asked.load), decide(asked.model, asked.hardware, asked.load)
        assert (best is None) == (choice is None), seed
        if best and choice:
            assert choice.at_least <= best[0] * ROUNDED, f"seed {seed}: the bound is above the best Plan"
            assert choice.seconds * (1 - NEAR) <= best[0] * ROUNDED, f"seed {seed}: {choice.seconds / best[0] - 1:+.2%}"


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 9, 14])
def test_of_a_long_model_it_finds_what_programs_over_every_kind_of_block_find(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    [home] = homes((seed,))
    found = decide(home.model, home.hardware, home.load)
    monkeypatch.setattr(exact, "SHORT", home.model.config.num_blocks)
    best = decide(home.model, home.hardware, home.load)
    assert found and best and best.at_least == best.seconds
    assert found.at_least <= best.seconds * ROUNDED
    assert best.seconds <= found.seconds * ROUNDED
    assert found.seconds * (1 - NEAR) <= best.seconds * ROUNDED


@pytest.mark.parametrize("seed", [7, 18, 20, 21])
def test_a_released_model_whose_whole_blocks_do_not_fit_at_home_is_planned_within_a_thousandth_of_the_bound(seed: int) -> None:
    [home] = homes((seed,))
    choice = decide(home.model, home.hardware, home.load)
    assert choice and any(kind.away for route in choice.routes for stage in route for kind, _ in stage.kinds)
    assert choice.seconds * (1 - NEAR) <= choice.at_least * ROUNDED
