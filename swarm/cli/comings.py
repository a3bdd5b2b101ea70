"""Who came to the swarm and who went, in words: from one status to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Comings:
    """Compares the documents of `swarm status --json`. The first says who is there, and is no news."""

    def __init__(self) -> None:
        self._rigs: set[str] | None = None
        self._returning: set[str] = set()
        """Who was there before nobody could be asked: a Coordinator that was started anew has them join again."""
        self._out: dict[str, str] = {}

    def news(self, document: Mapping[str, Any]) -> list[str]:
        """What is new. An empty document: nobody could be asked."""
        if not document:
            self._returning |= self._rigs or set()
            return []
        rigs = {str(rig["name"]): bool(rig.get("leaving")) for rig in document.get("rigs", ())}
        return [*self._of_rigs(rigs), *self._of_devices(document, {name for name, leaving in rigs.items() if leaving})]

    def _of_rigs(self, rigs: Mapping[str, bool]) -> Iterator[str]:
        before, self._rigs = self._rigs, set(rigs)
        if before is not None:
            yield from (f"{name} joined" for name in rigs if name not in before | self._returning)
            yield from (f"{name} is no longer in the swarm" for name in sorted(before - set(rigs) - self._returning))
        self._returning -= set(rigs)

    def _of_devices(self, document: Mapping[str, Any], leaving: set[str]) -> Iterator[str]:
        """Those that are planned without, and why."""
        out = {str(w["name"]): str(w.get("out") or "") for w in document.get("workers", ()) if w["rig"] not in leaving}
        for name, why in out.items():
            if why and why != self._out.get(name, ""):
                yield f"{name}: {why}"
            elif not why and self._out.get(name):
                yield f"{name} is planned on again"
        self._out = out
