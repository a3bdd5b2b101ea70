"""Our Plans beside the peers' ways to split a model, on random homes, all priced by one cost model; and how near to the best.

    python -m benchmarks.placement --swarms 300 --tight 40 --seed 0

Every home is planned for one objective, in turn; how many are done goes to stderr. Gains are in tokens a second of a Session,
as each objective counts them (`objective_s`): ours over theirs, where theirs fits.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from random import Random
from statistics import median

from benchmarks.home_swarms import HomeSwarm, home_swarm
from benchmarks.policies import POLICIES
from benchmarks.tight_homes import tight_home
from cluster.planner import Load, make_plan
from cluster.planner.make import decide
from cluster.planner.predict import objective_s, predict
from swarm.errors import DoesNotFit
from swarm.plan import Plan
from swarm.plan_check import OBJECTIVES

MANY = (16, 32, 64)
STEP = 10
"""Homes between two lines of progress."""
WORSE = 1 + 1e-9
"""What rounding may make of equal seconds."""


class Tally:
    """What was seen of one objective: gains over each policy, and how often who did not fit."""

    def __init__(self) -> None:
        self.gains: defaultdict[str, list[float]] = defaultdict(list)
        self.no_fit: defaultdict[str, int] = defaultdict(int)
        self.took_s: list[float] = []
        self.ours = 0

    def add(self, home: HomeSwarm, load: Load) -> None:
        """Plan one home in every way."""
        start = time.perf_counter()
        ours = _ours(home, load)
        self.took_s.append(time.perf_counter() - start)
        self.ours += ours is not None
        for name, policy in POLICIES.items():
            theirs = policy(home.model, home.hardware, load)
            if theirs is None:
                self.no_fit[name] += ours is not None
            elif ours is None:
                raise AssertionError(f"{name} fits and ours does not: {home}")
            else:
                self.gains[name].append(_seconds(theirs, home, load) / _seconds(ours, home, load))

    def rows(self, objective: str) -> list[str]:
        """Lines of the table that `main` prints."""
        rows = []
        for name in POLICIES:
            gains = self.gains[name]
            shown = f"{median(gains) - 1:+.0%} | {max(gains) - 1:+.0%}" if gains else "- | -"
            worse = sum(gain * WORSE < 1 for gain in gains)
            rows.append(f"| {objective} | {name} | {shown} | {self.no_fit[name]} | {worse} |")
        return rows


def _ours(home: HomeSwarm, load: Load) -> Plan | None:
    try:
        return make_plan(home.model, home.hardware, load, 1)
    except DoesNotFit:
        return None


def _seconds(plan: Plan, home: HomeSwarm, load: Load) -> float:
    return objective_s(predict(plan, home.hardware, load), load)


def against_peers(swarms: int, seed: int) -> list[str]:
    """A table over so many homes, and what planning them took."""
    rows = ["| objective | policy | median gain | best gain | ours fits, theirs not | ours worse |", "|---|---|---|---|---|---|"]
    took: list[float] = []
    tallies = {objective: Tally() for objective in OBJECTIVES}
    for i in range(swarms):
        objective = OBJECTIVES[i % len(OBJECTIVES)]
        home = home_swarm(Random(1_000_003 * seed + i))
        tallies[objective].add(home, home.for_objective(objective))
        if (i + 1) % STEP == 0:
            print(f"{i + 1} of {swarms} homes", file=sys.stderr, flush=True)
    for objective, tally in tallies.items():
        rows += tally.rows(objective)
        took += tally.took_s
    if not took:
        return rows
    return [*rows, "", f"Planning took {median(took):.2f} s (median), {max(took):.2f} s (worst), over {len(took)} plans."]


def tight_homes(swarms: int, seed: int) -> list[str]:
    """How far from the optimum a Plan can be at most where a released model's whole Blocks do not fit, and what deciding takes."""
    seen: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for i in range(swarms):
        home = tight_home(Random(1_000_003 * seed + i))
        load = home.for_objective(OBJECTIVES[i % len(OBJECTIVES)])
        start = time.process_time()
        choice = decide(home.model, home.hardware, load)
        took_s = time.process_time() - start
        if choice is None:
            raise AssertionError(f"it fits, and no plan was found: {home}")
        seen[len(home.hardware.devices)].append((choice.seconds / choice.at_least - 1, took_s))
    rows = ["| devices | homes | at most above the optimum, median | worst | CPU s, median | worst |", "|---|---|---|---|---|---|"]
    for count, homes in sorted(seen.items()):
        gaps, took = [gap for gap, _ in homes], [took_s for _, took_s in homes]
        rows.append(f"| {count} | {len(homes)} | {median(gaps):.2%} | {max(gaps):.2%} | {median(took):.2f} | {max(took):.2f} |")
    return rows


def many_devices(counts: Sequence[int], seed: int) -> list[str]:
    """How long planning takes for many Devices, and how far from optimal the Plan can be at most."""
    rows = ["| devices | objective | s | at most above the optimum |", "|---|---|---|---|"]
    for count in counts:
        home = home_swarm(Random(seed), max(4, count // 4), count)
        for objective in OBJECTIVES:
            load = home.for_objective(objective)
            start = time.perf_counter()
            plan = _ours(home, load)
            took_s = time.perf_counter() - start
            choice = decide(home.model, home.hardware, load)
            gap = f"{_seconds(plan, home, load) / choice.at_least - 1:.1%}" if plan and choice else "does not fit"
            rows.append(f"| {count} | {objective} | {took_s:.1f} | {gap} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swarms", type=int, default=300, help="random homes, a third for each objective")
    parser.add_argument("--tight", type=int, default=40, help="homes of 2 to 6 devices in which whole Blocks do not fit")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--devices", type=int, nargs="*", default=MANY, help="sizes of the large swarms")
    asked = parser.parse_args()
    tables = against_peers(asked.swarms, asked.seed), tight_homes(asked.tight, asked.seed), many_devices(asked.devices, asked.seed)
    print("\n\n".join("\n".join(table) for table in tables))


if __name__ == "__main__":
    main()
