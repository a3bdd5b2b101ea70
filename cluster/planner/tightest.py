"""The tightest fit there is: which Devices have Stages, of how many Blocks, so that most experts find a place.

Exact, by dynamic programming over the Devices: what counts of those decided so far is only how many Blocks they hold, which ends
of the model, and for how many experts they leave room, since an expert may sit on any Device. Devices x Blocks^2 steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cluster.planner.budget import Prices
from cluster.planner.choice import Choice, Kind, StageChoice
from swarm.plan import WorkerSpec

MIDDLE, FIRST, LAST = 0, 1, 2
BOTH = FIRST | LAST


class _Role(NamedTuple):
    """What one Device may do: a Stage of `blocks` (0: none) with that end of the model, and room for `experts`."""

    end: int
    blocks: int
    experts: int


class _Partial(NamedTuple):
    """The best of all ways to come to a number of Blocks and certain ends."""

    experts: int
    roles: tuple[_Role, ...]


@dataclass(frozen=True)
class Packing:
    """The roles of all Devices; a Plan only where `missing_bytes` is 0."""

    devices: tuple[WorkerSpec, ...]
    roles: tuple[_Role, ...]
    missing_bytes: int
    """That much more on one of its Stages would be enough."""

    def choice(self, prices: Prices) -> Choice:
        """Blocks and experts where they fit: of each Stage, the last Blocks give theirs away, to Devices of its own Rig first."""
        pairs = sorted(
            ((d, role) for d, role in zip(self.devices, self.roles, strict=True) if role.blocks),
            key=lambda p: (_place(p[1]), p[0].rig),
        )
        spare = Counter({d.name: r.experts - r.blocks * prices.num_experts for d, r in zip(self.devices, self.roles, strict=True)})
        rigs = {d.name: d.rig for d in self.devices}
        return Choice((tuple(_stage(d, role, spare, rigs, prices) for d, role in pairs),), 1, 0.0)


def tightest(devices: Sequence[WorkerSpec], prices: Prices) -> Packing | None:
    """As `pack`, and where that lacks something with Blocks that are not alike counted to the byte."""
    packing = pack(devices, prices)
    if packing is None or packing.missing_bytes:
        exact = pack(devices, replace(prices, to_the_byte=True))
        return min((p for p in (packing, exact) if p), key=lambda p: p.missing_bytes, default=None)
    return packing


def pack(devices: Sequence[WorkerSpec], prices: Prices) -> Packing | None:
    """The packing that lacks least; None where not even one Block finds a place between both ends of the model."""
    ordered = tuple(sorted(devices, key=lambda w: (-w.memory_bytes, w.name)))
    ways = [*_several(ordered, prices), *_alone(ordered, prices)]
    packings = (Packing(ordered, roles, _missing(roles, prices)) for roles in ways)
    return min(packings, key=lambda p: (p.missing_bytes, sum(r.blocks > 0 for r in p.roles)), default=None)


def _missing(roles: Sequence[_Role], prices: Prices) -> int:
    experts = max(0, prices.num_blocks * prices.num_experts - sum(r.experts for r in roles))
    return (prices.num_blocks - sum(r.blocks for r in roles)) * prices.core + experts * prices.expert


def _several(devices: Sequence[WorkerSpec], prices: Prices) -> Iterator[tuple[_Role, ...]]:
    """For each number of Blocks, the roles of all Devices that leave room for most experts, the ends on two of them."""
    best = {(MIDDLE, 0): _Partial(0, ())}
    for worker in devices:
        roles = list(_roles(worker, prices))
        grown: dict[tuple[int, int], _Partial] = {}
        for (ends, blocks), partial in best.items():
            for role in roles:
                if ends & role.end or blocks + role.blocks > prices.num_blocks:
                    continue
                key, experts = (ends | role.end, blocks + role.blocks), partial.experts + role.experts
                if key not in grown or experts > grown[key].experts:
                    grown[key] = _Partial(experts, (*partial.roles, role))
        best = grown
    return (partial.roles for (ends, _), partial in best.items() if ends == BOTH)


def _roles(worker: WorkerSpec, prices: Prices) -> Iterator[_Role]:
    yield _helping(worker, prices)
    for end in (MIDDLE, FIRST, LAST):
        yield from _staged(worker, end, prices)


def _staged(worker: WorkerSpec, end: int, prices: Prices) -> Iterator[_Role]:
    room = worker.memory_bytes - prices.fixed(bool(end & FIRST), bool(end & LAST))
    for blocks in range(1, min(prices.num_blocks, room // prices.core) + 1):
        yield _Role(end, blocks, (room - blocks * prices.core) // prices.expert)


def _helping(worker: WorkerSpec, prices: Prices) -> _Role:
    return _Role(MIDDLE, 0, max(0, worker.memory_bytes - prices.helper) // prices.expert)


def _alone(devices: Sequence[WorkerSpec], prices: Prices) -> Iterator[tuple[_Role, ...]]:
    """One Device with both ends, all others with experts only."""
    for sole in devices:
        for role in _staged(sole, BOTH, prices):
            yield tuple(role if w is sole else _helping(w, prices) for w in devices)


def _place(role: _Role) -> int:
    return {FIRST: 0, BOTH: 0, MIDDLE: 1, LAST: 2}[role.end]


def _stage(device: WorkerSpec, role: _Role, spare: Counter[str], rigs: dict[str, str], prices: Prices) -> StageChoice:
    short = max(0, role.blocks * prices.num_experts - role.experts)
    kinds: Counter[Kind] = Counter()
    for _ in range(role.blocks):
        away = min(short, prices.num_experts)
        short -= away
        kinds[Kind(tuple(sorted(_taken(away, device, spare, rigs))))] += 1
    return StageChoice(device.name, tuple(sorted(kinds.items(), key=lambda item: item[0].away)))


def _taken(experts: int, owner: WorkerSpec, spare: Counter[str], rigs: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Places for so many experts, on the fewest Devices, of the owner's Rig first."""
    for name in sorted((n for n in spare if n != owner.name), key=lambda n: (rigs[n] != owner.rig, -spare[n], n)):
        count = min(experts, spare[name])
        if count > 0:
            experts -= count
            spare[name] -= count
            yield name, count
