"""Standby copies brought together, so that as many Stages as can be are stood by completely.

The search sees to it that each Block has a copy somewhere. Here an integer program gives each Stage of what was decided a way to
have its copies: as they are, or on one Worker or two, also on one that has nothing else to do. Where all of a Stage's copies are
where they can be served from, with the ends of the model, its Worker can be lost and nothing has to be loaded.
Source: Huangfu, Hall: Parallelizing the dual revised simplex method, Math. Prog. Comp. 10(1), 2018 (HiGHS, through scipy).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from cluster.planner.budget import Prices, budget_of
from cluster.planner.standing import busy, covers, neighbours, without_idle
from swarm.plan import Plan, Stage, Standby, WorkerSpec

COMPLETE, MORE = 1e4, 10.0
"""What a Stage that is stood by completely is worth, and what one more Device costs, in Blocks whose copies move."""
IDLE = 4
"""Workers without a Stage that are tried for the copies of each, at most; beside the Stage's neighbours."""
AWAY = 7
"""Other Workers up to which copies that cannot be served from are moved, too, to make room."""
NODES = 500
"""Of the integer program, at most."""
SPARE = 1e-5
"""Of a Block, that is left free where rounding took a first attempt beyond somebody's memory."""


@dataclass(frozen=True)
class _Way:
    """One way to have the copies of one Stage; `held`: bytes, by the place of a Worker."""

    stage: int
    runs: tuple[Standby, ...]
    held: dict[int, int]
    cost: float


def gathered(plan: Plan, devices: Sequence[WorkerSpec], spread: bool = False) -> Plan:
    """The Plan with as many Stages as memory allows stood by completely; of such Plans the one that moves fewest copies.

    Args:
        plan: its Workers are whole.
        devices: all that there are, also those that have nothing to do yet.
        spread: every Worker of the Plan keeps something to do.
    """
    if len(plan.routes) != 1:
        return plan
    names = {w.name for w in plan.workers}
    search = _Search(replace(plan, workers=(*plan.workers, *(d for d in devices if d.name not in names))), names, spread)
    found = (search.solved(spare) for spare in (0.0, SPARE))
    return without_idle(next((made for made in found if made is not None and _fits(made)), plan))


@dataclass(frozen=True)
class _Search:
    """Of one Plan with all Devices.

    Args:
        names: Workers that have something to do already.
    """

    plan: Plan
    names: set[str]
    spread: bool

    @cached_property
    def prices(self) -> Prices:
        return Prices(self.plan.model.sizes, self.plan.sessions_a_route, self.plan.context)

    @cached_property
    def bare(self) -> Plan:
        return replace(self.plan, standbys=())

    @cached_property
    def room(self) -> list[int]:
        """Bytes that each Worker has beside its Stage and experts of others."""
        serving = busy(self.bare)
        return [w.memory_bytes - budget_of(self.bare, w.name).total_bytes * (w.name in serving) for w in self.plan.workers]

    @cached_property
    def standing(self) -> list[int]:
        """What standing by costs each Worker that has no Stage, beside the copies."""
        fixed, helper, serving = self.prices.fixed(False, False), self.prices.helper, busy(self.bare)
        return [0 if self.plan.route_of(w.name) is not None else fixed - helper * (w.name in serving) for w in self.plan.workers]

    def solved(self, spare: float) -> Plan | None:
        """The best Plan, with that share of a Block left free on each Worker; None where none was found."""
        ways = [way for i, stage in enumerate(self.plan.routes[0].stages) for way in self._ways(i, stage)]
        count, workers = len(ways), self.plan.workers
        held, used = np.zeros((len(workers), count)), np.zeros((len(workers), count))
        for at, way in enumerate(ways):
            for place, num_bytes in way.held.items():
                held[place, at], used[place, at] = num_bytes / self.prices.whole, 1
        each = np.array([[way.stage == i for way in ways] for i in range(len(self.plan.routes[0].stages))], float)
        none, limits = np.zeros((len(each), len(workers))), []
        room = np.array(self.room) / self.prices.whole - spare
        stand = np.diag(np.array(self.standing) / self.prices.whole)
        asked = [float(self.spread and w.name in self.names - busy(self.bare)) for w in workers]
        limits.append(LinearConstraint(csr_matrix(np.hstack([each, none])), 1, 1))
        limits.append(LinearConstraint(csr_matrix(np.hstack([held, stand])), -np.inf, np.maximum(room, 0)))
        limits.append(LinearConstraint(csr_matrix(np.hstack([used, -len(each) * np.eye(len(workers))])), -np.inf, 0))
        limits.append(LinearConstraint(csr_matrix(np.hstack([used, np.zeros((len(workers), len(workers)))])), asked, np.inf))
        cost = np.append([way.cost for way in ways], [MORE * (w.name not in self.names) for w in workers])
        return self._plan(ways, _chosen(cost, limits, count))

    def _plan(self, ways: Sequence[_Way], chosen: NDArray[np.intp]) -> Plan | None:
        runs = sorted((run for at in chosen for run in ways[at].runs), key=lambda s: (s.first, s.worker))
        return replace(self.plan, standbys=tuple(runs)) if len(chosen) else None

    def _ways(self, at: int, stage: Stage) -> Iterator[_Way]:
        there = tuple(s for s in self.plan.standbys if s.first >= stage.first and s.end <= stage.end)
        whole = {b for s in there for b in s.blocks} == set(stage.blocks)
        with_ends = tuple(replace(s, ends=self._has_end(s.blocks)) for s in there)
        others = (runs for runs in self._others(stage) if whole)
        for runs in dict.fromkeys((there, with_ends, *others)):
            yield _Way(at, runs, self._held(runs), self._cost(stage, there, runs))

    def _others(self, stage: Stage) -> Iterator[tuple[Standby, ...]]:
        """All copies on one Worker, and on two with any cut: where they can be served from, and elsewhere without the ends."""
        able, away = list(self._able(stage)), self._away(stage)
        for names, ends in ((able, True), (away if len(away) <= AWAY else [], False)):
            for name in names:
                yield (self._run(name, stage.blocks, ends),)
            for one, other in combinations(names, 2):
                for cut in range(stage.first + 1, stage.end):
                    yield (
                        self._run(one, range(stage.first, cut), ends),
                        self._run(other, range(cut, stage.end), ends),
                    )

    def _away(self, stage: Stage) -> list[str]:
        """The Workers on another Rig than all that serve these Blocks."""
        rigs = {w.name: w.rig for w in self.plan.workers}
        serving = {stage.worker, *(s.worker for s in self.plan.shards if s.block in stage.blocks and not s.copy)}
        return [name for name in rigs if rigs[name] not in {rigs[w] for w in serving}]

    def _able(self, stage: Stage) -> Iterator[str]:
        """Those of them that the copies could be served from, in the order of the Stages."""
        away, (before, after) = self._away(stage), neighbours(self.plan, stage)
        room = dict(zip((w.name for w in self.plan.workers), self.room, strict=True))
        idle = [name for name in away if self.plan.route_of(name) is None]
        yield from (name for name in (before,) if name in away)
        yield from sorted(idle, key=lambda n: (n not in self.names, -room[n], n))[:IDLE]
        yield from (name for name in (after,) if name in away)

    def _held(self, runs: Sequence[Standby]) -> dict[int, int]:
        places = {w.name: place for place, w in enumerate(self.plan.workers)}
        held: dict[int, int] = {}
        for run in runs:
            place = places[run.worker]
            held[place] = held.get(place, 0) + len(run.blocks) * self.prices.whole + self._ends(run, place)
        return held

    def _ends(self, run: Standby, place: int) -> int:
        """Embedding and head where a run has them, and what a last Stage's workspace is more than another's."""
        first, last = run.ends and 0 in run.blocks, run.ends and self.prices.num_blocks - 1 in run.blocks
        return self.prices.fixed(first, last) - self.prices.fixed(False, False)

    def _run(self, name: str, blocks: range, ends: bool) -> Standby:
        return Standby(name, blocks.start, blocks.stop, ends and self._has_end(blocks))

    def _has_end(self, blocks: range) -> bool:
        return 0 in blocks or self.prices.num_blocks - 1 in blocks

    def _cost(self, stage: Stage, there: Sequence[Standby], runs: Sequence[Standby]) -> float:
        at = {(b, s.worker) for s in there for b in s.blocks}
        moved = sum((b, s.worker) not in at for s in runs for b in s.blocks) + sum(s.ends for s in runs) / 8
        complete = covers(replace(self.plan, standbys=tuple(runs)), stage) is not None
        return moved - complete * COMPLETE * (1 + len(stage.blocks) / self.prices.num_blocks / 2)


def _chosen(cost: NDArray[np.float64], limits: Sequence[LinearConstraint], count: int) -> NDArray[np.intp]:
    """The places of the ways that are taken; empty where there are none."""
    found = milp(
        cost,
        constraints=limits,
        integrality=np.ones(len(cost), np.int64),
        bounds=Bounds(0, 1),
        options={"node_limit": NODES, "mip_rel_gap": 0.0},
    )
    return np.flatnonzero(found.x[:count] > 0.5) if found.x is not None else np.zeros(0, np.intp)


def _fits(plan: Plan) -> bool:
    standing = {s.worker for s in plan.standbys}
    return all(budget_of(plan, w.name).total_bytes <= w.memory_bytes for w in plan.workers if w.name in standing)
