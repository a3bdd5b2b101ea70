"""A checkpoint whose files may be anywhere: in the Hub's cache, on another Rig, still on the Hub. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from swarm.config import ModelConfig
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.file import WeightFile
from swarm.weights.gguf.model import GgufModel
from swarm.weights.header import header_of

AT_ONCE = 8
"""Files whose headers are read at the same time: far ones answer slowly."""


def far_checkpoint(folder: Path, files: Sequence[WeightFile]) -> Checkpoint:
    """From all its weight files, ascending by name; the headers are read, and the samples for its checksum.

    Args:
        folder: with the config, where the format does not have it in the weights.

    Raises:
        ModelError: see `Checkpoint.open`.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        if files[0].path.suffix == ".gguf":
            checkpoint = Checkpoint.of_gguf(folder / files[0].path.name, GgufModel.of(files))
        else:
            checkpoint = Checkpoint.of(folder, ModelConfig.from_folder(folder), list(pool.map(header_of, files)))
        list(pool.map(lambda header: header.samples(), checkpoint.headers))  # now, at once: the files keep what they have fetched
    return checkpoint
