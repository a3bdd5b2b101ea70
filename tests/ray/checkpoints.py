"""Mixtral checkpoints of any number of Blocks, with the embedded model's shape and tokenizer beside them."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import torch

from swarm.weights.header import read_header
from swarm.weights.source import NANO_FOLDER

WEIGHTS = "model.safetensors"


def write_mixtral(folder: Path, num_blocks: int, seed: int | None = None) -> Path:
    """A folder that `swarm load` takes: random weights with a seed; without one, zeros that take no room on the disk."""
    folder.mkdir(parents=True)
    for file in NANO_FOLDER.iterdir():
        if file.name not in (WEIGHTS, "config.json"):
            shutil.copy(file, folder / file.name)
    config = json.loads((NANO_FOLDER / "config.json").read_text()) | {"num_hidden_layers": num_blocks}
    (folder / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, shape in _shapes(num_blocks).items():
        size = 2 * torch.Size(shape).numel()
        header[name], at = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}, at + size
    raw = json.dumps(header).encode()
    with (folder / WEIGHTS).open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(file.tell() + at)
        if seed is not None:
            _fill(file, header, torch.Generator().manual_seed(seed))
    return folder


def _shapes(num_blocks: int) -> dict[str, tuple[int, ...]]:
    entries = {name: tuple(entry.shape) for name, entry in read_header(NANO_FOLDER / WEIGHTS).entries.items()}
    block = {name: shape for name, shape in entries.items() if ".layers.0." in name}
    shapes = {name: shape for name, shape in entries.items() if ".layers." not in name}
    for number in range(num_blocks):
        shapes |= {name.replace(".layers.0.", f".layers.{number}."): shape for name, shape in block.items()}
    return shapes


def _fill(file: Any, header: dict[str, dict[str, Any]], generator: torch.Generator) -> None:
    for name, entry in header.items():
        values = torch.ones(entry["shape"]) if "norm" in name else 0.05 * torch.randn(entry["shape"], generator=generator)
        file.write(values.to(torch.bfloat16).view(torch.uint8).numpy().tobytes())
