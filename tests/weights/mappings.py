"""What the system was told of memory that is mapped."""

from __future__ import annotations

from pathlib import Path

import pytest

needs_large_pages = pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system has no large pages"
)


def flags(at: int) -> set[str]:
    """Of the mapping that an address is in, as proc(5) calls them."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            first, end = (int(n, 16) for n in words[0].split("-"))
            inside = first <= at < end
        elif inside and words[0] == "VmFlags:":
            return set(words[1:])
    raise AssertionError("nothing is mapped there")
