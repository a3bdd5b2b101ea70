"""What a swarm was last asked to hold, in a file: a Coordinator that is made anew goes on with it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from cluster.target import Target


class Memo:
    """Keeps one Target as it was asked for: a Plan has only what became of it (the dtype resolved, the context capped)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, target: Target) -> None:
        """Keep it. A disk that does not take it is no reason to stop serving: it is said in the log."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            fresh.write_text(json.dumps(asdict(target)), encoding="utf-8")
            fresh.replace(self._path)
        except OSError as error:
            print(f"{self._path} cannot be written ({error.strerror}): a restart forgets {target.source}", file=sys.stderr)

    def read(self) -> Target | None:
        """What was kept; None where there is nothing, or nothing that can be read."""
        try:
            return Target(**json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
