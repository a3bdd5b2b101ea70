"""Reads a GGUF header forwards, in pieces, and never takes more memory than bytes that are there. Standard library only."""

from __future__ import annotations

import struct
from pathlib import Path

from swarm.errors import CorruptWeights
from swarm.weights.file import WeightFile

MAX_HEADER_BYTES = 1 << 26
"""Metadata and tensor table of one file: the largest vocabularies in use take a quarter of it."""
PIECE_BYTES = 1 << 16


class Cursor:
    """A place in a header. Every method raises CorruptWeights where the file, or `MAX_HEADER_BYTES`, ends first."""

    def __init__(self, file: WeightFile) -> None:
        self.file = file
        self.file_bytes = file.size()
        self.at = 0
        self.raw = bytearray()
        """All that was read, from the start of the file; it may reach beyond `at`."""

    def take(self, size: int) -> int:
        """Step over that many bytes, which are in `raw` then. Returns where they begin."""
        begin, end = self.at, self.at + size
        if end > self.file_bytes:
            raise corrupt(self.file.path, f"its header claims {size} bytes at {begin} of a file of {self.file_bytes}")
        if end > MAX_HEADER_BYTES:
            raise corrupt(self.file.path, f"its header is longer than {MAX_HEADER_BYTES} bytes")
        while len(self.raw) < end:
            missing = max(end - len(self.raw), PIECE_BYTES, len(self.raw) // 2)
            piece = self.file.read(len(self.raw), min(missing, self.file_bytes - len(self.raw)))
            if not piece:
                raise corrupt(self.file.path, "it became shorter while it was read")
            self.raw += piece
        self.at = end
        return begin

    def number(self, code: str) -> int:
        """One integer, by its letter in `struct`."""
        begin = self.take(struct.calcsize(f"<{code}"))
        return int(struct.unpack_from(f"<{code}", self.raw, begin)[0])

    def text(self, limit: int) -> str:
        """A name of at most `limit` bytes, fit to be printed."""
        size = self.number("Q")
        if size > limit:
            raise corrupt(self.file.path, f"its header has a name of {size} bytes")
        begin = self.take(size)
        name = text_of(self.file.path, bytes(self.raw[begin : self.at]))
        if not name.isprintable():
            raise corrupt(self.file.path, "a name of its header is no printable text")
        return name


def text_of(path: Path, raw: bytes) -> str:
    """UTF-8 as text. Raises CorruptWeights."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise corrupt(path, "a text of its header is not UTF-8") from None


def corrupt(path: Path, what: str) -> CorruptWeights:
    return CorruptWeights(f"{path} is damaged: {what}; fetch it again")
