"""Which Rigs went without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from cluster.roster import Rig

GONE_S = 180.0
"""How long a Rig may be neither seen nor heard: a network, or a machine that sleeps for a moment, comes back."""


class Absence:
    """A Rig is absent while it does not watch the Plan and none of its Workers answers.

    Args:
        clock: seconds, growing.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._watching: Counter[str] = Counter()
        self._since: dict[str, float] = {}

    @contextmanager
    def watching(self, rig_id: str) -> Iterator[None]:
        """While the Rig's own process is there."""
        self._watching[rig_id] += 1
        try:
            yield
        finally:
            self._watching[rig_id] -= 1

    def is_here(self, rig_id: str) -> bool:
        """Whether the Rig's own process is there."""
        return self._watching[rig_id] > 0

    def gone(self, rigs: Iterable[Rig]) -> list[Rig]:
        """The Rigs that have been absent for `GONE_S`, as often as one looks."""
        now = self._clock()
        absent = {r.offer.rig_id: r for r in rigs if not self._watching[r.offer.rig_id] and all(d.silent for d in r.devices)}
        self._since = {rig_id: self._since.get(rig_id, now) for rig_id in absent}
        return [rig for rig_id, rig in absent.items() if now - self._since[rig_id] >= GONE_S]
