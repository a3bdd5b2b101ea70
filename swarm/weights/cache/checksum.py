"""A checksum that keeps up with a fast disk: against damage, not against somebody who means harm.

Each 32 KiB is one sum of 64-bit words times odd constants, modulo 2**64; the sums go through BLAKE2b.
An odd factor can be divided by, so that a change of one word always shows; any other stays unseen once in about 2**64.
Source: multilinear hashing (Lemire and Kaser, arXiv 1202.4961).
"""

from __future__ import annotations

import hashlib
import mmap

import numpy as np

DIGEST_BYTES = 16
WORD_BYTES = 8
ROW_WORDS = 4096
FACTORS = np.frombuffer(hashlib.shake_256(b"swarm weights").digest(ROW_WORDS * WORD_BYTES), "<u8") | np.uint64(1)


def checksum(data: mmap.mmap | memoryview, size: int) -> bytes:
    """`DIGEST_BYTES` for the first `size` bytes of a mapped file; `size` is a multiple of `WORD_BYTES`."""
    words = np.frombuffer(data, "<u8", size // WORD_BYTES)
    rows = words[: len(words) // ROW_WORDS * ROW_WORDS].reshape(-1, ROW_WORDS)
    digest = hashlib.blake2b((rows @ FACTORS).astype("<u8").tobytes(), digest_size=DIGEST_BYTES)
    digest.update(words[rows.size :].tobytes())
    return digest.digest()
