"""From what the exact search found to a Choice: Devices, Blocks and copies by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from cluster.planner.choice import Choice, Kind, StageChoice
from cluster.planner.exact_best import Found


def choice_of(routes: Sequence[Found], seconds: float, at_least: float) -> Choice:
    """The Choice with these Routes, all with as many micro-batches under way."""
    return Choice(tuple(tuple(_stages(found)) for found in routes), routes[0].program.in_flight, seconds, min(seconds, at_least))


def _stages(found: Found) -> Iterator[StageChoice]:
    devices, program = found.program.ground.devices, found.program
    copies = [
        [devices[d].name for d, n in enumerate(row) for _ in range(int(n))] if program.rig_sets else []
        for row in found.solved.copies
    ]
    by_rigs = dict(zip(program.rig_sets, copies, strict=True)) if program.rig_sets else {}
    chosen: dict[int, StageChoice] = {}
    for o, owner in enumerate(program.owners):
        kinds: Counter[Kind] = Counter()
        for k in np.flatnonzero(found.solved.blocks[o]):
            away = tuple((devices[d].name, round(float(program.held[o, d, k]))) for d in np.flatnonzero(program.held[o, :, k]))
            for _ in range(int(found.solved.blocks[o, k])):
                standby = by_rigs[program.serving[o][k]].pop(0) if by_rigs else ""
                kinds[Kind(tuple(sorted(away)), standby)] += 1
        chosen[owner] = StageChoice(
            devices[owner].name, tuple(sorted(kinds.items(), key=lambda item: (item[0].away, item[0].standby)))
        )
    return (chosen[o] for o in found.owners)
