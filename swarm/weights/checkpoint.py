"""A checkpoint: a folder in Hugging Face layout with a config and safetensors files. Standard library only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.config import ModelConfig
from swarm.errors import CorruptWeights, MissingWeights
from swarm.weights import names
from swarm.weights.header import Entry, Header, read_header

ASSETS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""The small files beside the weights, as far as they have fixed names."""
SENTENCEPIECE = "tokenizer.model*"
"""Its vocabularies; Mistral's have a version behind that name."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Checkpoint:
    """What a model's files hold; no tensor is read yet."""

    folder: Path
    """With the config; the weights may still be on the Hub."""
    config: ModelConfig
    headers: tuple[Header, ...]
    """By file name, ascending."""
    entries: dict[str, Entry]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Read the config and all headers of a folder, and check that they fit each other.

        Raises:
            MissingWeights: a file, or a tensor that the config asks for, is not there; the message names it.
            CorruptWeights: a file is truncated, its header contradicts itself, or a shape is not the config's.
            ModelError: the config is unusable (see `ModelConfig.from_folder`).
        """
        config = ModelConfig.from_folder(folder)
        return cls.of(folder, config, [read_header(folder / name) for name in weight_files(folder)])

    @classmethod
    def of(cls, folder: Path, config: ModelConfig, headers: Sequence[Header]) -> Checkpoint:
        """From headers that were read, ascending by file name. Raises MissingWeights, CorruptWeights: see `open`."""
        entries = {name: entry for header in headers for name, entry in header.entries.items()}
        for name, shape in names.expected(config, entries):
            _check(folder, entries.get(name), name, shape)
        return cls(folder, config, tuple(headers), entries)

    def model_id(self) -> str:
        """32 hex digits over the config, every header, and the first and last 64 KiB of every file's data."""
        digest = hashlib.sha256((self.folder / "config.json").read_bytes())
        for header in self.headers:
            digest.update(header.raw)
            for sample in header.samples():
                digest.update(sample)
        return digest.hexdigest()[:32]


def weight_files(folder: Path) -> list[str]:
    """The names of a folder's weight files, ascending; they need not be there.

    Raises:
        MissingWeights: the folder has neither a single file nor an index.
        CorruptWeights: the index is unusable.
    """
    index = folder / INDEX
    if not index.is_file():
        if not (folder / SINGLE).exists():
            raise MissingWeights(f"{folder} has neither {SINGLE} nor {INDEX}: give a folder with safetensors weights")
        return [SINGLE]
    try:
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise CorruptWeights(f"{index} is not an index of safetensors files: fetch it again") from None
    if not shards or any(not isinstance(s, str) or Path(s).name != s or not s.endswith(".safetensors") for s in shards):
        raise CorruptWeights(f"{index} names files that are not safetensors files beside it: fetch it again")
    return shards


def _check(folder: Path, entry: Entry | None, name: str, shape: names.Shape) -> None:
    if entry is None:
        raise MissingWeights(f"{folder} lacks the tensor {name}, which its config asks for: fetch the model again, whole")
    if entry.shape != shape:
        raise CorruptWeights(
            f"{entry.path}: {name} is {list(entry.shape)} where config.json asks for {list(shape)}: fetch both again"
        )
    if entry.dtype not in FLOATS:
        raise CorruptWeights(f"{entry.path}: {name} is {entry.dtype}; swarm reads {', '.join(FLOATS)}: give another checkpoint")
