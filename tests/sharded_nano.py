"""The embedded model as people publish large ones: a file for each Block, one for what is before and behind, and an index."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path

from swarm.weights.header import read_header
from swarm.weights.source import NANO_FOLDER

BLOCK = re.compile(r"\.layers\.(\d+)\.")


def sharded_nano(folder: Path) -> Path:
    """Write it: model-00001-of-00009 has the embedding, the norm and the head, the others a Block each."""
    folder.mkdir(parents=True)
    for file in NANO_FOLDER.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder / file.name)
    header = read_header(NANO_FOLDER / "model.safetensors")
    weight_map: dict[str, str] = {}
    for name in header.entries:
        block = BLOCK.search(name)
        weight_map[name] = f"model-{int(block[1]) + 2 if block else 1:05}-of-00009.safetensors"
    for shard in sorted(set(weight_map.values())):
        table, data = {}, b""
        for name, entry in header.entries.items():
            if weight_map[name] == shard:
                span = [len(data), len(data) + entry.num_bytes]
                table[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": span}
                data += header.file.read(entry.offset, entry.num_bytes)
        raw = json.dumps(table).encode()
        (folder / shard).write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder
