"""What the routers of this Worker's Blocks chose, kept as long as a Block is here, whichever epochs have it."""

from __future__ import annotations

from collections.abc import Iterable

from swarm.wire.v1 import worker_pb2 as pb
from swarm.worker.epoch import Epoch


class RouterCounts:
    """(model id, Block) → rows that chose each expert. The compute thread adds; the loop makes, reads and forgets them."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], list[int]] = {}

    def of(self, model_id: str, block: int, num_experts: int) -> list[int]:
        """The counts of a Block: the same list for every epoch that has it."""
        return self._counts.setdefault((model_id, block), [0] * num_experts)

    def keep_only(self, epochs: Iterable[Epoch]) -> None:
        """Forget the Blocks that none of these epochs has in its Stage here."""
        kept = {(e.plan.model.model_id, block) for e in epochs for block in e.blocks}
        self._counts = {key: counts for key, counts in self._counts.items() if key in kept}

    def tell(self, status: pb.WorkerStatus, epoch: Epoch) -> None:
        """Put the counts of an epoch's Blocks into a status."""
        for block in epoch.blocks:
            counts = self._counts.get((epoch.plan.model.model_id, block))
            if counts is not None:
                status.choices.add(block=block, counts=counts)
