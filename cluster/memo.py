"""What a swarm was last asked to hold, and what was measured, in files: a Coordinator that is made anew goes on with them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from cluster.measurements import Measurements
from cluster.pauses import Pauses
from cluster.target import Target

MEASURED = "measured.json"
PAUSED = "paused.json"


class Memo:
    """Keeps one Target as it was asked for: a Plan has only what became of it (the dtype resolved, the context capped)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, target: Target) -> None:
        """Keep it. A disk that does not take it is no reason to stop serving: it is said in the log."""
        _write(self._path, json.dumps(asdict(target)), f"a restart forgets {target.source}")

    def read(self) -> Target | None:
        """What was kept; None where there is nothing, or nothing that can be read."""
        try:
            return Target(**json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    def pauses(self, forget: bool) -> Pauses:
        """Which Devices were paused; none where that is to be forgotten. Kept in a file beside this one from now on."""
        path = self._path.with_name(PAUSED)

        def keep(text: str) -> None:
            _write(path, text, "a restart resumes what is paused")

        try:
            return Pauses("" if forget else path.read_text(encoding="utf-8"), keep)
        except (OSError, ValueError, TypeError, RecursionError):
            return Pauses(keep=keep)

    def measurements(self, forget: bool) -> Measurements:
        """What was measured before. Kept in a file beside this one from now on.

        Args:
            forget: measure again; what was measured before serves for Devices that serve without a pause.
        """
        path = self._path.with_name(MEASURED)

        def keep(text: str) -> None:
            _write(path, text, "a restart measures again")

        try:
            text = path.read_text(encoding="utf-8")
            return Measurements(keep=keep, before=Measurements(text)) if forget else Measurements(text, keep)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return Measurements(keep=keep)


def _write(path: Path, text: str, otherwise: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror}): {otherwise}", file=sys.stderr)
