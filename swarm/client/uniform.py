"""Random numbers that depend on (seed, position) alone, so that a replayed Session draws what it drew before."""

from __future__ import annotations

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(state: int) -> int:
    """The 64-bit output of splitmix64 for a state already advanced (Steele, Lea, Flood: Fast Splittable Pseudorandom
    Number Generators, OOPSLA 2014; constants of Vigna's public-domain code)."""
    z = state & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1), a multiple of 2**-53, for one position of one seed.

    Output `position` (from 0) of the splitmix64 stream that begins at splitmix64(seed + golden): seeds are hashed
    first, since streams of neighbouring raw states would be one stream, shifted.
    """
    start = splitmix64(seed + _GOLDEN)
    return (splitmix64(start + (position + 1) * _GOLDEN) >> 11) * 2.0**-53
