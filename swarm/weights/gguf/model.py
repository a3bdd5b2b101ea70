"""A model in GGUF: one file, or one that is split into several. Standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.errors import CorruptWeights, MissingWeights, ModelError
from swarm.weights.file import WeightFile
from swarm.weights.gguf.config import hf_config
from swarm.weights.gguf.entry import GgufEntry
from swarm.weights.gguf.header import GgufHeader, gguf_header_of
from swarm.weights.gguf.names import renamed

SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
MAX_ENTRIES = 1 << 18
"""Tensors, with merged experts taken apart."""


@dataclass(frozen=True)
class GgufModel:
    """What a model's GGUF files hold; no tensor is read yet."""

    headers: tuple[GgufHeader, ...]
    """The first has the metadata."""
    config: dict[str, Any]
    """As Hugging Face's `config.json` has it."""
    entries: dict[str, GgufEntry]
    """By Hugging Face's names."""

    @classmethod
    def of(cls, files: Sequence[WeightFile]) -> GgufModel:
        """From all its files, here or on the Hub, in order. Raises ModelError: see `gguf_header_of` and `hf_config`."""
        headers = tuple(gguf_header_of(file) for file in files)
        _check_split(headers)
        tensors: dict[str, GgufEntry] = {}
        for header in headers:
            for name in header.tensors.keys() & tensors.keys():
                raise CorruptWeights(f"{header.file.path} has {name}, which {tensors[name].path} has too: fetch both again")
            tensors |= header.tensors
        experts = sum(t.shape[0] for t in tensors.values() if len(t.shape) == 3)
        if len(tensors) + experts > MAX_ENTRIES:
            raise CorruptWeights(f"{headers[0].file.path} is damaged: it claims {experts} experts; fetch it again")
        config = hf_config(headers[0].metadata, tensors)
        arch = headers[0].metadata.text("general.architecture")
        entries = renamed(tensors, arch, config["num_attention_heads"], config["num_key_value_heads"])
        return cls(headers, config, entries)

    def config_json(self) -> bytes:
        return json.dumps(self.config, indent=1).encode()


def is_gguf(path: Path) -> bool:
    """Whether a model here is GGUF: a file of that name, or a folder with such files and no config of Hugging Face's."""
    if path.is_dir():
        return not (path / "config.json").exists() and any(path.glob("*.gguf"))
    return path.suffix == ".gguf"


def gguf_files(path: Path) -> list[Path]:
    """All files of the model that a path means, in order; they need not be there.

    Raises:
        MissingWeights: a folder without any.
        ModelError: a folder with several models.
    """
    if path.is_dir():
        models = sorted({split_names(one.name)[0] for one in path.glob("*.gguf")})
        if not models:
            raise MissingWeights(f"{path} has no .gguf file: give a folder or a file with weights")
        if len(models) > 1:
            raise ModelError(f"{path} has several models: give the path of one of {', '.join(models[:8])}")
        path = path / models[0]
    return [path.parent / name for name in split_names(path.name)]


def split_names(name: str) -> list[str]:
    """The names of all files of the model that has a file of this name, in order: `x-00001-of-00003.gguf` has three."""
    match = SPLIT.fullmatch(name)
    if match is None or not int(match[3]):
        return [name]
    return [f"{match[1]}-{i + 1:05}-of-{match[3]}.gguf" for i in range(int(match[3]))]


def _check_split(headers: Sequence[GgufHeader]) -> None:
    for number, header in enumerate(headers):
        meta = header.metadata
        count, at = meta.integer("split.count", 1), meta.integer("split.no", 0)
        if (max(1, count), at) != (len(headers), number):
            raise CorruptWeights(
                f"{meta.path} is part {at + 1} of {count} where {len(headers)} files were found, this as number {number + 1}: "
                "give its path as llama.cpp named it, beside all other parts"
            )
