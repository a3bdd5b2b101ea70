"""The header of a GGUF file, checked before anything believes it. Standard library only.

Format: magic, version, counts; metadata; a table of tensors; padding; the tensors' bytes, each aligned
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The gguf package's own reader trusts lengths and counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from swarm.errors import CorruptWeights, ModelError
from swarm.weights.file import WeightFile
from swarm.weights.gguf.cursor import Cursor, corrupt
from swarm.weights.gguf.entry import GgufEntry
from swarm.weights.gguf.kinds import KINDS, OTHERS
from swarm.weights.gguf.metadata import Metadata, read_metadata
from swarm.weights.header import samples

MAGIC = int.from_bytes(b"GGUF", "little")
VERSIONS = (2, 3)
MAX_TENSORS = 1 << 16
MAX_NAME_BYTES = 256
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 16
DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class GgufHeader:
    """One file: its metadata and tensors, under the names that the file gives them, and the bytes that say so."""

    file: WeightFile
    raw: bytes
    metadata: Metadata
    tensors: dict[str, GgufEntry]
    data_offset: int
    file_bytes: int

    def samples(self) -> tuple[bytes, bytes]:
        """See `swarm.weights.header.samples`."""
        return samples(self.file, self.data_offset, self.file_bytes)


def gguf_header_of(file: WeightFile) -> GgufHeader:
    """Read and check the header of one GGUF file, here or on the Hub.

    Raises:
        MissingWeights: there is no such file.
        CorruptWeights: it is truncated, or its header contradicts itself or the file.
        ModelError: it is of a version, or has a kind of tensor, that swarm does not read.
    """
    cursor = Cursor(file)
    version = _version(cursor)
    if version not in VERSIONS:
        raise ModelError(f"{file.path} is GGUF of version {version}; swarm reads 2 and 3: convert it anew with llama.cpp")
    num_tensors, num_keys = cursor.number("Q"), cursor.number("Q")
    if num_tensors > MAX_TENSORS:
        raise corrupt(file.path, f"its header claims {num_tensors} tensors")
    metadata = read_metadata(cursor, num_keys)
    claims = [_claim(cursor) for _ in range(num_tensors)]
    metadata.raw = bytes(cursor.raw[: cursor.at])
    alignment = _alignment(metadata)
    data_offset = cursor.at + -cursor.at % alignment
    tensors = _placed(file, claims, data_offset, alignment, cursor.file_bytes)
    return GgufHeader(file, metadata.raw, metadata, tensors, data_offset, cursor.file_bytes)


def _version(cursor: Cursor) -> int:
    if cursor.number("I") != MAGIC:
        raise CorruptWeights(f"{cursor.file.path} is not a GGUF file: fetch it again, or give another")
    return cursor.number("I")


def _alignment(metadata: Metadata) -> int:
    found = metadata.integer("general.alignment", DEFAULT_ALIGNMENT)
    if not 0 < found <= MAX_ALIGNMENT or found & (found - 1):
        raise corrupt(metadata.path, f"its tensors are said to be aligned to {found} bytes")
    return found


def _claim(cursor: Cursor) -> GgufEntry:
    """One line of the table; its offset is still from the start of the tensors' bytes."""
    path, name = cursor.file.path, cursor.text(MAX_NAME_BYTES)
    dimensions = cursor.number("I")
    if not 0 < dimensions <= MAX_DIMENSIONS:
        raise corrupt(path, f"{name} has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    number, offset = cursor.number("I"), cursor.number("Q")
    kind = KINDS.get(number)
    if kind is None:
        raise _unread(path, name, number)
    if 0 in shape or shape[-1] % kind.weights or prod(shape) >= 2**63:
        raise corrupt(path, f"{name} has the shape {list(shape)}, which {kind.name} cannot have")
    return GgufEntry(cursor.file, name, kind, shape, offset)


def _unread(path: Path, name: str, number: int) -> ModelError:
    what = OTHERS.get(number, f"of the kind {number}")
    known = ", ".join(kind.name for kind in KINDS.values())
    return ModelError(f"{path}: {name} is {what}, which swarm does not read; it reads {known}: give another file of this model")


def _placed(file: WeightFile, claims: list[GgufEntry], data_offset: int, alignment: int, file_bytes: int) -> dict[str, GgufEntry]:
    """The tensors by name, where they are in the file: aligned, one after another, and inside it."""
    at, tensors = 0, {}
    for claim in sorted(claims, key=lambda claim: (claim.offset, claim.name)):
        if claim.name in tensors:
            raise corrupt(file.path, f"it has {claim.name} twice")
        if claim.offset < at or claim.offset % alignment:
            raise corrupt(file.path, f"the bytes of {claim.name} overlap another tensor's or are not aligned")
        at = claim.offset + claim.num_bytes
        if data_offset + at > file_bytes:
            raise corrupt(file.path, f"{claim.name} ends at byte {data_offset + at} of a file of {file_bytes}")
        tensors[claim.name] = claim.moved(data_offset)
    return tensors
