"""Bytes of a weight file, read straight into a tensor's memory."""

from __future__ import annotations

import torch
from torch import Tensor

from swarm.weights.file import WeightFile


def fill(out: Tensor, file: WeightFile, offset: int) -> None:
    """Read all of `out` (contiguous, on the CPU) from byte `offset` on. Raises MissingWeights, CorruptWeights."""
    file.read_into(offset, out.view(-1).view(torch.uint8).numpy().data)
