"""Workers that ended a moment ago and that their Rigs start anew: it costs less to wait for them than to move what they held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cluster.absence import Absence
from cluster.roster import Roster
from swarm.plan import Plan

BACK_S = 1.5
"""How long a Worker that ended is waited for, where its Rig is there: with a warm process at hand it is back in less."""
SETTLED_S = 5.0
"""How long after a loss that standby copies made good the best Plan for what is left, or came back, is decided."""


class Returning:
    """Knows whom to wait for. `ended` of a Device says when its Worker's process was found gone."""

    def __init__(self, roster: Roster, absence: Absence) -> None:
        self._roster, self._absence = roster, absence

    def soon(self, plan: Plan | None, look: Callable[[], object]) -> bool:
        """Whether a Worker of the Plan may be back in a moment; `look` is called when that is over."""
        names, now = {w.name for w in plan.workers} if plan else set(), time.monotonic()
        ended = [d.ended_at for d in self._roster.devices() if d.silent and d.name in names and self._absence.is_here(d.rig_id)]
        left = max(ended, default=0.0) + BACK_S - now
        if left > 0:
            asyncio.get_running_loop().call_later(left, look)
        return left > 0

    def later(self, look: Callable[[], object]) -> None:
        """Have `look` called when those who come back are back."""
        asyncio.get_running_loop().call_later(SETTLED_S, look)
