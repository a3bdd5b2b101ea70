"""One file of the cache: the tensors of one part, as they lie in memory, and a checksum over all bytes before it.

Format: safetensors (https://github.com/huggingface/safetensors#format), so that every reader of that can look at it. Each tensor
begins on a multiple of `ALIGNMENT`, with tensors named `pad...` between them: mapped into memory, they are used where they are.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swarm.errors import CorruptWeights
from swarm.model.memory import ALIGNMENT, in_large_pages
from swarm.weights.cache.checksum import DIGEST_BYTES, checksum
from swarm.weights.header import Entry, Header, read_header
from swarm.weights.torch_dtypes import TORCH

UNFINISHED = ".unfinished-"
"""How the names of files begin that somebody is writing, or was writing when he ended."""
CHECKSUM = "checksum"
PAD = "pad."
POPULATE_READ = 22
"""MADV_POPULATE_READ of Linux 5.14 and newer, which Python 3.11 has no name for."""
SAFETENSORS = {dtype: name for name, dtype in TORCH.items()}


@dataclass(frozen=True)
class Mapped:
    """What a file holds. The tensors are the file's own pages, shared by all processes that map it; writing to one copies them."""

    about: dict[str, Any]
    tensors: dict[str, Tensor]


def write(path: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a file whole or not at all: under another name, to the disk, then renamed. Makes its folder.

    Args:
        about: JSON of what the tensors are.
        tensors: contiguous ones; on a card they are copied to the host one by one.

    Raises:
        OSError: no room, or no right to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED)
    try:
        with os.fdopen(handle, "w+b") as file:
            file.write(_header(about, tensors))
            for tensor in tensors.values():
                assert tensor.is_contiguous(), "weights are contiguous"
                file.write(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
                file.write(bytes(-file.tell() % ALIGNMENT))
            file.flush()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as written:
                digest = checksum(written, len(written))
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def read(path: Path) -> Mapped:
    """Map a file, all of it checked, which brings it into memory.

    Raises:
        MissingWeights, OSError: it cannot be read.
        CorruptWeights: it is truncated, damaged, or no file of the cache.
    """
    try:
        header = read_header(path)
    except CorruptWeights:  # which says to fetch it again
        raise CorruptWeights(f"{path} is cut or damaged") from None
    mapped = _mapped(path, header.file_bytes)
    pages = mapped.numpy().data
    end = header.entries.get(CHECKSUM)
    if end is None or end.num_bytes != DIGEST_BYTES or end.offset + DIGEST_BYTES != len(pages) or end.offset % ALIGNMENT:
        raise CorruptWeights(f"{path} has no checksum at its end")
    if pages[8 : 8 + len(header.raw)] != header.raw or checksum(pages, end.offset) != pages[end.offset :]:
        raise CorruptWeights(f"{path} is damaged: its checksum is another")
    entries = [e for e in header.entries.values() if e is not end and not e.name.startswith(PAD)]
    if any(e.dtype not in TORCH for e in entries):
        raise CorruptWeights(f"{path} has tensors that no weights are made of")
    return Mapped(_about(path, header), {e.name: _tensor(mapped, e) for e in entries})


def _mapped(path: Path, size: int) -> Tensor:
    """All bytes of a file, read now. It is not kept open, as Python's own mmap keeps it: a model may have thousands of parts.

    Raises OSError where the disk fails, which would else kill the process.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < size:
            raise CorruptWeights(f"{path} became shorter while it was looked at")
    # Not shared: a stray write must not reach the file. Large pages are what is not in memory yet, where the file system has them.
    pages = in_large_pages(torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.madvise(ctypes.c_void_p(pages.data_ptr()), ctypes.c_size_t(size), POPULATE_READ):
        error = ctypes.get_errno()
        if error != errno.EINVAL:  # a kernel that knows nothing of it
            raise OSError(error, os.strerror(error), str(path))
    return pages


def _tensor(pages: Tensor, entry: Entry) -> Tensor:
    return pages[entry.offset : entry.offset + entry.num_bytes].view(TORCH[entry.dtype]).view(entry.shape)


def _about(path: Path, header: Header) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(json.loads(header.raw)["__metadata__"]["swarm"])
        return about
    except (KeyError, TypeError, ValueError):
        raise CorruptWeights(f"{path} does not say what it holds") from None


def _header(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Length and JSON, filled up with spaces so that the data begin aligned."""
    table: dict[str, Any] = {"__metadata__": {"swarm": json.dumps(about)}}
    for name, dtype, shape, begin, end in _spans(tensors):
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    raw = json.dumps(table).encode()
    raw += b" " * (-(8 + len(raw)) % ALIGNMENT)
    return len(raw).to_bytes(8, "little") + raw


def _spans(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str, list[int], int, int]]:
    """Name, dtype, shape, first and end byte of what is in the file, in its order."""
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.numel() * tensor.element_size()
        yield name, SAFETENSORS[tensor.dtype], list(tensor.shape), at, end
        at = end + -end % ALIGNMENT
        if at != end:
            yield f"{PAD}{name}", "U8", [at - end], end, at
    yield CHECKSUM, "U8", [DIGEST_BYTES], at, at + DIGEST_BYTES
