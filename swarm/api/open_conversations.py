"""How many conversations each client has with this rig: none takes what all share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from swarm.errors import Full

OF_ONE = 64
"""Of one client: a certificate."""
OF_ALL = 512


class OpenConversations:
    """Those under way, by client."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    @contextmanager
    def one_more(self, client: str) -> Iterator[None]:
        """Around one conversation. Raises Full where its client, or all together, have as many as may be."""
        if self._open[client] >= OF_ONE:
            raise Full(f"you have {OF_ONE} conversations with this rig and may have no more: end some")
        if len(self) >= OF_ALL:
            raise Full(f"{OF_ALL} conversations go over this rig already: try again later, or via another rig")
        self._open[client] += 1
        try:
            yield
        finally:
            self._open -= Counter((client,))
