"""Hashes of token ids, by which a client and its Workers know that they speak of the same prefix; standard library only."""

from __future__ import annotations

from collections.abc import Iterable

_MASK = (1 << 64) - 1
EMPTY_HASH = 0x9E3779B97F4A7C15


def extend_hash(prefix: int, token: int) -> int:
    """The 64-bit hash of a prefix with one more token id (splitmix64's finaliser over a running sum)."""
    z = (prefix ^ (token + 0x9E3779B97F4A7C15)) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def prefix_hashes(tokens: Iterable[int], start: int = EMPTY_HASH) -> list[int]:
    """Hashes of all prefixes: entry i covers the first i tokens after `start`'s own; one more entry than tokens."""
    hashes = [start]
    for token in tokens:
        hashes.append(extend_hash(hashes[-1], token))
    return hashes
