"""Rigs that drop and come back again and again: each time moves everybody's Blocks, so they are held back for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from cluster.roster import Rig
from swarm.plan import Plan

DROPS = 4
"""Drops in a row after which a Rig is held back."""
STEADY_S = 300.0
"""A Rig that stays so long begins anew."""
HOLD_S = 30.0
HOLD_MOST_S = 960.0
"""How long it is held back after the last drop: at first, and at most; each further drop doubles it."""


@dataclass(frozen=True)
class _Drops:
    """How often one Rig dropped in a row, and when it last did."""

    count: int
    at: float

    @property
    def hold_s(self) -> float:
        if self.count < DROPS:
            return 0.0
        doubled = min(self.count - DROPS, 16)  # more would be no float one day
        return min(HOLD_S * 2.0**doubled, HOLD_MOST_S)


class Flapping:
    """Counts the drops of Rigs by their ids, which they keep whatever their address.

    Args:
        clock: seconds, growing.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._drops: dict[str, _Drops] = {}
        self._before: dict[str, _Drops] = {}
        """What was counted before the last drop, of Rigs that have not joined again since."""

    def joined(self, rig_id: str) -> None:
        """A Rig is there: if it dropped before, it did."""
        self._before.pop(rig_id, None)

    def dropped(self, rig_id: str) -> None:
        """A Rig went without a word."""
        before = self._before[rig_id] = self._row(rig_id)
        self._drops[rig_id] = _Drops(before.count + 1, self._clock())

    def left(self, rig_id: str) -> None:
        """A Rig says goodbye: that it stopped listening just before was no drop."""
        if before := self._before.pop(rig_id, None):
            self._drops[rig_id] = before

    def held_s(self, rig_id: str) -> float:
        """For how long yet a Rig is to be held back; 0: it is not."""
        drops = self._row(rig_id)
        return max(0.0, drops.at + drops.hold_s - self._clock())

    def hold_back(self, rig: Rig, plan: Plan | None, look: Callable[[], object]) -> None:
        """Plan without a Rig that drops again and again, but not where the Plan in force has it.

        Args:
            look: called when it is let in.
        """
        seconds, count = self.held_s(rig.offer.rig_id), self._row(rig.offer.rig_id).count
        if not seconds or (plan and {w.rig for w in plan.workers} & {rig.name}):
            return
        rig.held = (
            f"its rig dropped {count} times in a row and is held back for {seconds:.0f} s, so that it does not move everybody's "
            "blocks each time; it is let in by itself: look at its network and its power meanwhile"
        )

        def let_in() -> None:
            rig.held = ""
            look()

        asyncio.get_running_loop().call_later(seconds, let_in)

    def _row(self, rig_id: str) -> _Drops:
        """The drops since it was last steady. The time that it is held back is no time that it stays."""
        drops = self._drops.get(rig_id, _Drops(0, 0.0))
        return drops if self._clock() < drops.at + drops.hold_s + STEADY_S else _Drops(0, 0.0)
