"""Where the parts of a model come from that a Worker lacks: its files on this Rig."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from swarm.config import QUANTIZED
from swarm.errors import ModelError
from swarm.model.dtypes import TORCH_DTYPES
from swarm.plan import Model
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.load import Loader
from swarm.weights.source import resolve
from swarm.worker.holdings import Part, Weights, read_part


@dataclass(frozen=True)
class Supply:
    """Parts of one model for one Device, read one after the other in a loading thread.

    Args:
        folder: where the model's files are; empty: wherever its source says.
    """

    model: Model
    device: torch.device
    folder: str = ""

    def part(self, part: Part) -> Weights:
        """One part. Raises ModelError where the model's files are missing here, damaged, or not the Plan's."""
        return read_part(part, self._loader)

    @cached_property
    def _loader(self) -> Loader:
        dtype = self.model.dtype
        return Loader(self._checkpoint, TORCH_DTYPES[dtype], self.device, dtype if dtype in QUANTIZED else "")

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        where = Path(self.folder) if self.folder else resolve(self.model.source)
        checkpoint = Checkpoint.open(where)
        if (found := checkpoint.model_id()) != self.model.model_id:
            raise ModelError(
                f"{where} holds another model ({found}) than the plan's {self.model.name} ({self.model.model_id}): copy it anew"
            )
        return checkpoint
