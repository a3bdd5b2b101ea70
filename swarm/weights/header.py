"""The header of a safetensors file, checked before anything believes it. Standard library only.

Format: 8 bytes little-endian length, that many bytes of JSON, then the tensors' bytes without holes
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from swarm.bits import Form
from swarm.errors import CorruptWeights
from swarm.weights.file import LocalFile, WeightFile

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
MAX_VALUES = 1 << 20
"""What its JSON may have in all; 65,000 tensors have as many."""
MAX_DIMENSIONS = 8
SAMPLE_BYTES = 1 << 16
ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}


@dataclass(frozen=True)
class Entry:
    """Where one tensor's bytes are."""

    file: WeightFile
    """Read through it: it may be on another Rig."""
    name: str
    dtype: str
    """As the format spells it, a key of `ITEM_BYTES`."""
    shape: tuple[int, ...]
    offset: int
    """From the start of the file."""

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def coding(self) -> str:
        return ""

    @property
    def form(self) -> Form | None:
        return None

    @property
    def auto_form(self) -> Form | None:
        return None


@dataclass(frozen=True)
class Header:
    """One file: its tensors, and the bytes that say so."""

    file: WeightFile
    raw: bytes
    entries: dict[str, Entry]
    data_offset: int
    file_bytes: int

    def samples(self) -> tuple[bytes, bytes]:
        """See `samples`."""
        return samples(self.file, self.data_offset, self.file_bytes)


def samples(file: WeightFile, data_offset: int, file_bytes: int) -> tuple[bytes, bytes]:
    """`SAMPLE_BYTES` from either end of a file's data, for the model's checksum. Raises MissingWeights."""
    return file.read(data_offset, SAMPLE_BYTES), file.read(max(data_offset, file_bytes - SAMPLE_BYTES), SAMPLE_BYTES)


def read_header(path: Path) -> Header:
    """Read and check the header of one safetensors file; see `header_of`."""
    return header_of(LocalFile(path))


def header_of(file: WeightFile) -> Header:
    """Read and check the header of one safetensors file, here or on the Hub.

    Raises:
        MissingWeights: there is no such file.
        CorruptWeights: it is truncated, or its header contradicts itself or the file.
    """
    path, file_bytes = file.path, file.size()
    length = int.from_bytes(file.read(0, 8), "little")
    if file_bytes < 8 or length > min(MAX_HEADER_BYTES, file_bytes - 8):
        raise _corrupt(path, f"its header claims {length} bytes of a file of {file_bytes}")
    raw = file.read(8, length)
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise _corrupt(path, f"its header has more than {MAX_VALUES} values")
    return Header(file, raw, _entries(file, raw, 8 + length, file_bytes), 8 + length, file_bytes)


def _entries(file: WeightFile, raw: bytes, data_offset: int, file_bytes: int) -> dict[str, Entry]:
    path = file.path
    try:
        table = json.loads(raw)
    except (ValueError, RecursionError):
        raise _corrupt(path, "its header is not JSON") from None
    if not isinstance(table, dict):
        raise _corrupt(path, "its header is not a JSON object")
    table.pop("__metadata__", None)
    spans: list[tuple[int, int, str]] = []
    entries: dict[str, Entry] = {}
    for name, claim in table.items():
        dtype, shape, begin, end = _claim(path, name, claim)
        entry = Entry(file, name, dtype, shape, data_offset + begin)
        if end - begin != entry.num_bytes:
            raise _corrupt(path, f"{name} has {end - begin} bytes where its shape and dtype need {entry.num_bytes}")
        entries[name] = entry
        spans.append((begin, end, name))
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            raise _corrupt(path, f"the bytes of {name} overlap another tensor's or leave a hole")
        at = end
    if data_offset + at != file_bytes:
        raise _corrupt(path, f"it has {file_bytes} bytes where its header promises {data_offset + at}")
    return entries


def _claim(path: Path, name: str, claim: Any) -> tuple[str, tuple[int, ...], int, int]:
    """What the header says of one tensor: dtype, shape, first byte, end byte."""
    if not name.isprintable():
        raise _corrupt(path, "a name of its header is no printable text")
    try:
        dtype, shape, (begin, end) = claim["dtype"], claim["shape"], claim["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise _corrupt(path, f"its header lacks dtype, shape or offsets of {name}") from None
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _corrupt(path, f"{name} has the unknown dtype {dtype!r:.40}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise _corrupt(path, f"{name} has no usable shape")
    if any(type(i) is not int or not 0 <= i < 2**63 for i in (*shape, begin, end)) or end < begin:
        raise _corrupt(path, f"{name} has a shape or offsets that cannot be")
    return dtype, tuple(shape), begin, end


def _corrupt(path: Path, what: str) -> CorruptWeights:
    return CorruptWeights(f"{path} is damaged: {what}; fetch it again")
