"""A checkpoint: a folder in Hugging Face layout with a config and safetensors files, or GGUF. Standard library only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from swarm.config import ModelConfig
from swarm.errors import CorruptWeights, MissingWeights, UnknownArchitecture
from swarm.weights import names
from swarm.weights.entry import AnyEntry, AnyHeader
from swarm.weights.file import LocalFile, WeightFile
from swarm.weights.gguf.model import GgufModel, gguf_files, is_gguf
from swarm.weights.header import Entry, Header, header_of
from swarm.weights.layouts import laid_out
from swarm.weights.packed import packed_entries

CONFIG = "config.json"
ASSETS = (
    CONFIG,
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
OTHER_TOKENIZERS = ("tekken.json", "vocab.json", "tiktoken.model")
"""Whose names alone a client gets, so that it can say why it cannot read them."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FLOATS = ("F32", "F16", "BF16")
AT_ONCE = 8
"""Files whose headers are read at the same time: far ones answer slowly."""


@dataclass(frozen=True)
class Checkpoint:
    """What a model's files hold; no tensor is read yet."""

    folder: Path
    """With the config; the weights may still be on the Hub. Of GGUF, what was given: a file, or a folder with it."""
    config: ModelConfig
    headers: tuple[AnyHeader, ...]
    """By file name, ascending."""
    entries: dict[str, AnyEntry]
    """By Hugging Face's names."""
    config_raw: bytes = b""
    """`config.json`; empty for GGUF, whose headers say it all."""

    @classmethod
    def open(cls, where: Path) -> Checkpoint:
        """Read the config and all headers of a folder or a GGUF file, and check that they fit each other.

        Raises:
            MissingWeights: a file, or a tensor that the config asks for, is not there; the message names it.
            CorruptWeights: a file is truncated, its header contradicts itself, or a shape is not the config's.
            ModelError: the config is unusable (see `ModelConfig.from_folder`).
        """
        if is_gguf(where):
            return cls.of_gguf(where, GgufModel.of([LocalFile(path) for path in gguf_files(where)]))
        config = ModelConfig.from_folder(where)
        headers = _headers([LocalFile(where / name) for name in weight_files(where)])
        return cls.of(where, config, headers, (where / CONFIG).read_bytes())

    @classmethod
    def of(cls, folder: Path, config: ModelConfig, headers: Sequence[Header], config_raw: bytes) -> Checkpoint:
        """From headers that were read, ascending by file name. Raises ModelError: see `open`."""
        raw = {name: entry for header in headers for name, entry in header.entries.items()}
        entries = laid_out(folder, config, raw) | packed_entries(raw, config_raw, folder / CONFIG)
        _check_all(folder, config, entries)
        return cls(folder, config, tuple(headers), entries, config_raw)

    @classmethod
    def of_gguf(cls, where: Path, model: GgufModel) -> Checkpoint:
        """From what GGUF files hold. Raises ModelError: see `open`; UnknownArchitecture: they hold more than the model has."""
        config = ModelConfig.from_hf(model.config, str(where))
        entries: dict[str, AnyEntry] = {**model.entries}
        _check_all(where, config, entries)
        for name in sorted(entries.keys() - {name for name, _ in names.expected(config, entries)}):
            # It would be left out in silence, where llama.cpp computes with it.
            raise UnknownArchitecture(f"{where} has the tensor {name}, which swarm knows no use for: give another model")
        return cls(where, config, model.headers, entries)

    def model_id(self) -> str:
        """32 hex digits over the config, every header, and the first and last 64 KiB of every file's data."""
        digest = hashlib.sha256(self.config_raw)
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
            raise MissingWeights(f"{folder} has {_instead(folder)}: give a folder with safetensors weights, or a .gguf file")
        return [SINGLE]
    try:
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise CorruptWeights(f"{index} is not an index of safetensors files: fetch it again") from None
    if not shards or any(not isinstance(s, str) or Path(s).name != s or not s.endswith(".safetensors") for s in shards):
        raise CorruptWeights(f"{index} names files that are not safetensors files beside it: fetch it again")
    return shards


def pickles_in(folder: Path) -> list[str]:
    """The names of a folder's files that may be pickled weights, ascending."""
    return sorted(path.name for ending in PICKLES for path in folder.glob(f"*{ending}"))


def _instead(folder: Path) -> str:
    """What a folder without weights that can be read has, in words."""
    if pickles := pickles_in(folder):
        return f"its weights only as {pickles[0]}, a pickle, which can run any program and is never read"
    return f"neither {SINGLE} nor {INDEX}"


def _headers(files: Sequence[WeightFile]) -> list[Header]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(header_of, files))


def _check_all(where: Path, config: ModelConfig, entries: Mapping[str, AnyEntry]) -> None:
    for name, shape in names.expected(config, entries):
        _check(where, entries.get(name), name, shape)


def _check(where: Path, entry: AnyEntry | None, name: str, shape: names.Shape) -> None:
    if entry is None:
        raise MissingWeights(f"{where} lacks the tensor {name}, which its config asks for: fetch the model again, whole")
    if entry.shape != shape:
        raise CorruptWeights(
            f"{entry.path}: {name} is {list(entry.shape)} where the model's config asks for {list(shape)}: fetch both again"
        )
    if isinstance(entry, Entry) and entry.dtype not in FLOATS:
        raise CorruptWeights(f"{entry.path}: {name} is {entry.dtype}; swarm reads {', '.join(FLOATS)}: give another checkpoint")
