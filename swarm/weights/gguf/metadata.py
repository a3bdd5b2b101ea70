"""The metadata of a GGUF file: keys with values, whose lengths are checked at once and which are decoded when asked for.

Standard library only. Source: `gguf_metadata_value_type` of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

from swarm.errors import ModelError
from swarm.weights.gguf.cursor import Cursor, corrupt, text_of

MAX_KEYS = 1 << 14
MAX_ITEMS = 1 << 21
"""Of one array: four times the longest that models have."""
MAX_KEY_BYTES = 1 << 16
"""The format's own limit."""
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Letters of `struct`, by the format's number of a type."""
FLOAT32, STRING, ARRAY = 6, 8, 9
WHOLE = tuple(kind for kind, code in SCALARS.items() if code not in "fd?")


@dataclass(frozen=True)
class Value:
    """Where a value's bytes are: `count` of one type (a string's is preceded by its length)."""

    kind: int
    count: int
    begin: int
    is_array: bool


@dataclass
class Metadata:
    """Values by key. The methods raise ModelError where a value is of another type than was asked for, or absent."""

    path: Path
    values: dict[str, Value] = field(default_factory=dict)
    raw: bytes = b""
    """The header that the values are in."""

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default is not None, STRING, is_array=False)
        return self._texts(value)[0] if value else default or ""

    def texts(self, key: str) -> list[str]:
        """An array of strings; empty where there is none."""
        value = self._value(key, True, STRING, is_array=True)
        return self._texts(value) if value else []

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number or a flag, as a float."""
        value = self._value(key, default is not None, *SCALARS, is_array=False)
        found = self._numbers(value)[0] if value else default or 0.0
        if not math.isfinite(found):
            raise ModelError(f"{self.path} has {found} for {key}: fetch it again")
        return found

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if value != int(value):
            raise ModelError(f"{self.path} has {value} for {key}, which is no whole number: fetch it again")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.number(key, float(default)))

    def floats(self, key: str) -> list[float]:
        """An array of finite fp32 numbers; empty where there is none."""
        value = self._value(key, True, FLOAT32, is_array=True)
        found = self._numbers(value) if value else []
        if not all(map(math.isfinite, found)):
            raise ModelError(f"{self.path} has {key} in its metadata with numbers that are none: fetch it again")
        return found

    def integers(self, key: str) -> list[int]:
        """An array of whole numbers; empty where there is none."""
        value = self._value(key, True, *WHOLE, is_array=True)
        return list(map(int, self._numbers(value))) if value else []

    def _value(self, key: str, optional: bool, *kinds: int, is_array: bool) -> Value | None:
        value = self.values.get(key)
        if value is None and not optional:
            raise ModelError(f"{self.path} lacks {key} in its metadata: fetch it again, or convert it anew with llama.cpp")
        if value is not None and (value.kind not in kinds or value.is_array != is_array):
            raise ModelError(f"{self.path} has {key} in its metadata in no form that swarm knows: convert it anew with llama.cpp")
        return value

    def _numbers(self, value: Value) -> list[float]:
        return list(map(float, struct.unpack_from(f"<{value.count}{SCALARS[value.kind]}", self.raw, value.begin)))

    def _texts(self, value: Value) -> list[str]:
        found, at = [], value.begin
        for _ in range(value.count):
            size = int.from_bytes(self.raw[at : at + 8], "little")
            found.append(text_of(self.path, self.raw[at + 8 : at + 8 + size]))
            at += 8 + size
        return found


def read_metadata(cursor: Cursor, count: int) -> Metadata:
    """`count` keys with their values; `raw` is still to be filled in. Raises CorruptWeights."""
    path = cursor.file.path
    if count > MAX_KEYS:
        raise corrupt(path, f"its header claims {count} keys")
    metadata = Metadata(path)
    for _ in range(count):
        key = cursor.text(MAX_KEY_BYTES)
        if key in metadata.values:
            raise corrupt(path, f"its metadata has {key:.60} twice")
        metadata.values[key] = _read_value(cursor, key)
    return metadata


def _read_value(cursor: Cursor, key: str) -> Value:
    kind, count, is_array = cursor.number("I"), 1, False
    if kind == ARRAY:
        kind, count, is_array = cursor.number("I"), cursor.number("Q"), True
    begin = cursor.at
    if count > MAX_ITEMS:
        raise corrupt(cursor.file.path, f"{key:.60} of its metadata claims {count} items")
    if kind in SCALARS:
        cursor.take(count * struct.calcsize(f"<{SCALARS[kind]}"))
    elif kind == STRING:
        for _ in range(count):
            cursor.take(cursor.number("Q"))
    else:
        raise corrupt(cursor.file.path, f"{key:.60} of its metadata is of no known type")
    return Value(kind, count, begin, is_array)
