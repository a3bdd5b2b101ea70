"""What the routers chose, Block by Block, read from a status document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BlockCounts:
    """One Block of one Route.

    Args:
        worker: who has the Block in its Stage, and counts.
        counts: rows that chose each expert, by its id; empty where nothing was counted.
        away: expert → the Worker that holds it in the owner's place.
        copies: expert → the Worker that holds it, too.
    """

    block: int
    route: int
    worker: str
    counts: tuple[int, ...]
    away: Mapping[int, str]
    copies: Mapping[int, str]

    @property
    def shares(self) -> list[float]:
        """Of all choices, by expert; they sum to 1."""
        total = sum(self.counts)
        return [count / total for count in self.counts]

    def to_json(self) -> dict[str, Any]:
        """As `swarm experts --json` writes it."""
        return {
            "block": self.block,
            "route": self.route,
            "worker": self.worker,
            "counts": list(self.counts),
            "shares": [round(share, 6) for share in self.shares],
            "away": {str(expert): worker for expert, worker in self.away.items()},
            "copies": {str(expert): worker for expert, worker in self.copies.items()},
        }


def block_counts(document: Mapping[str, Any]) -> list[BlockCounts]:
    """All Blocks of which something was counted, in order; those of several Routes beside each other.

    Args:
        document: as `swarm.wire.overview` and the Coordinator write it.
    """
    workers = document.get("workers", ())
    found = [
        BlockCounts(
            block=int(block),
            route=worker.get("route") or 0,
            worker=str(worker["name"]),
            counts=tuple(counts),
            away=_holders(workers, int(block), worker.get("route") or 0, copy=False),
            copies=_holders(workers, int(block), worker.get("route") or 0, copy=True),
        )
        for worker in workers
        for block, counts in worker.get("choices", {}).items()
        if any(counts)
    ]
    return sorted(found, key=lambda b: (b.block, b.route))


def _holders(workers: Any, block: int, route: int, copy: bool) -> dict[int, str]:
    """Expert → Worker, in ascending order."""
    found = {
        int(expert): str(worker["name"])
        for worker in workers
        for shard in worker.get("shards", ())
        if (shard["block"], shard["route"], shard["copy"]) == (block, route, copy)
        for expert in shard["experts"]
    }
    return dict(sorted(found.items()))
