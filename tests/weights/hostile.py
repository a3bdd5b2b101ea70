"""Hostile weight files, byte by byte: `python tests/weights/hostile.py` writes them into `tests/corpus/weights`, which
the tests read.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parents[1] / "corpus" / "weights"
U8, U32, F32, STRING, ARRAY, U64 = 0, 4, 6, 8, 9, 10


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(
    name: str = "a", shape: tuple[int, ...] = (4, 2), kind: int = 0, offset: int = 0, dimensions: int | None = None
) -> bytes:
    """A line of the table; `dimensions` is what it says of how many there are."""
    count = len(shape) if dimensions is None else dimensions
    return text(name) + struct.pack("<I", count) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)


def header(
    *parts: bytes, keys: int = 0, tensors: int = 0, magic: bytes = b"GGUF", version: int = 3, data: bytes = bytes(32)
) -> bytes:
    """A file of parts that may be none of what the counts say."""
    raw = magic + struct.pack("<IQQ", version, tensors, keys) + b"".join(parts)
    return raw + bytes(-len(raw) % 32) + data


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + items


def safetensors(table: Any, data: bytes = b"", length: int | None = None) -> bytes:
    raw = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


GGUF: dict[str, bytes] = {
    "empty": b"",
    "another magic": header(magic=b"GGML"),
    "version 1": header(version=1),
    "big endian": header(version=3 << 24),
    "cut short": header()[:15],
    "a billion tensors": header(tensors=10**9),
    "2^64-1 tensors": header(tensors=2**64 - 1),
    "a billion keys": header(keys=10**9),
    "2^64-1 keys": header(keys=2**64 - 1),
    "an endless key": header(struct.pack("<Q", 2**63), keys=1),
    "a key of a gigabyte": header(struct.pack("<Q", 2**30), keys=1),
    "a key that cannot be printed": header(key("\x1b[2J", U8, b"1"), keys=1),
    "a key that is no utf-8": header(key(b"\xff".decode("latin-1"), U8, b"1").replace(b"\xc3\xbf", b"\xff\xff"), keys=1),
    "a key twice": header(key("k", U8, b"1") * 2, keys=2),
    "an unknown type": header(key("k", 13, b""), keys=1),
    "an endless string": header(key("k", STRING, struct.pack("<Q", 2**63)), keys=1),
    "an endless array of numbers": header(key("k", ARRAY, array(U64, 2**63)), keys=1),
    "an endless array of strings": header(key("k", ARRAY, array(STRING, 2**62)), keys=1),
    "an array of strings that ends": header(key("k", ARRAY, array(STRING, 1000, text("a") * 3)), keys=1),
    "an array of arrays": header(key("k", ARRAY, array(ARRAY, 1, array(ARRAY, 1, array(U8, 2**40)))), keys=1),
    "alignment 0": header(key("general.alignment", U32, struct.pack("<I", 0)), keys=1),
    "alignment 3": header(key("general.alignment", U32, struct.pack("<I", 3)), keys=1),
    "alignment 2^31": header(key("general.alignment", U32, struct.pack("<I", 2**31)), keys=1),
    "alignment in words": header(key("general.alignment", STRING, text("32")), keys=1),
    "no dimensions": header(tensor(shape=()), tensors=1),
    "2^32-1 dimensions": header(tensor(dimensions=2**32 - 1), tensors=1),
    "a dimension of 0": header(tensor(shape=(0, 4)), tensors=1),
    "an absurd shape": header(tensor(shape=(2**62, 2**62)), tensors=1),
    "a shape larger than the file": header(tensor(shape=(1024, 1024)), tensors=1),
    "rows that are no whole blocks": header(tensor(shape=(33, 2), kind=8), tensors=1),
    "an unknown kind": header(tensor(kind=99), tensors=1),
    "an offset beyond the file": header(tensor(offset=2**63), tensors=1),
    "an offset that is not aligned": header(tensor(offset=8), tensors=1, data=bytes(64)),
    "overlapping tensors": header(tensor("a"), tensor("b"), tensors=2),
    "a tensor twice": header(tensor("a"), tensor("a", offset=32), tensors=2, data=bytes(64)),
    "a table that ends": header(tensor("a"), tensors=2, data=b""),
    "no architecture": header(tensor(), tensors=1),
}
SAFETENSORS: dict[str, bytes] = {
    "empty": b"",
    "an endless header": safetensors(b"{}", length=2**64 - 1),
    "no json": safetensors(b"{"),
    "no utf-8": safetensors(b'{"\xff": 1}'),
    "a number of 5000 digits": safetensors(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 4]}}'),
    "a name that cannot be printed": safetensors({"\x1b[2J": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "half a character for a name": safetensors(b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', bytes(4)),
    "an absurd shape": safetensors({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}, bytes(4)),
    "overlapping tensors": safetensors({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)),
    "numbers that are none": safetensors(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, Infinity]}}', bytes(4)),
}


if __name__ == "__main__":
    for ending, files in (("gguf", GGUF), ("safetensors", SAFETENSORS)):
        for name, raw in files.items():
            (CORPUS / f"{name}.{ending}").write_bytes(raw)
