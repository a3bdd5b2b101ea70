"""A checkpoint whose files may be anywhere: in the Hub's cache, on another Rig, still on the Hub. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from swarm.config import ModelConfig
from swarm.weights.checkpoint import CONFIG, Checkpoint
from swarm.weights.file import WeightFile
from swarm.weights.gguf.model import GgufModel
from swarm.weights.header import header_of

AT_ONCE = 8
"""Files whose headers are read at the same time: far ones answer slowly."""


def far_checkpoint(folder: Path, files: Sequence[WeightFile], config: bytes | None = None) -> Checkpoint:
    """From all its weight files, ascending by name; the headers are read, and the samples for its checksum.

    Args:
        folder: with the config, where the format does not have it in the weights; for messages alone where `config` is given.
        config: what is in `config.json`.

    Raises:
        ModelError: see `Checkpoint.open`.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        if files[0].path.suffix == ".gguf":
            checkpoint = Checkpoint.of_gguf(folder / files[0].path.name, GgufModel.of(files))
        else:
            read = ModelConfig.from_folder(folder) if config is None else ModelConfig.from_bytes(config, str(folder / CONFIG))
            raw = (folder / CONFIG).read_bytes() if config is None else config
            checkpoint = Checkpoint.of(folder, read, list(pool.map(header_of, files)), raw)
        list(pool.map(lambda header: header.samples(), checkpoint.headers))  # now, at once: the files keep what they have fetched
    return checkpoint
