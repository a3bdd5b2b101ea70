"""Stop strings, found in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.errors import UsageError


class StopScanner:
    """Lets text through up to the first stop string, holding back what could still become one.

    The first stop string is the one that is complete first; of several complete at the same character, the longest.
    So the outcome does not depend on how the text was cut into pieces, and no token is drawn to settle it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if any(not stop for stop in stops):
            raise UsageError("an empty stop string would end every answer before it begins: give --stop some text")
        self._stops = tuple(dict.fromkeys(stops))
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self._hit = False

    def push(self, text: str) -> tuple[str, bool]:
        """Take the next piece: text to show now, and whether a stop string has been found (nothing comes after it)."""
        if self._hit:
            return "", True
        window = self._held + text
        found = [(start + len(stop), start) for stop in self._stops if (start := window.find(stop)) >= 0]
        if found:
            self._hit, self._held = True, ""
            return window[: min(found)[1]], True
        keep = len(window) - self._possible_beginning(window)
        self._held = window[keep:]
        return window[:keep], False

    def finish(self) -> str:
        """What was held back, now that no stop string can come of it."""
        held, self._held = self._held, ""
        return held

    def _possible_beginning(self, window: str) -> int:
        """Length of the longest suffix that some stop string begins with."""
        for size in range(min(len(window), self._longest - 1), 0, -1):
            if any(stop.startswith(window[-size:]) for stop in self._stops):
                return size
        return 0
