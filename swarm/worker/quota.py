"""Whether a CPU quota pauses this process, which slows down what it computes for as long as the quota is set.

Formats: cgroups(7), and the kernel's admin guides of cgroup v1 (cpu) and v2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def pauses(root: Path = Path("/")) -> int:
    """How often quotas paused the cgroup of this process, or one above it, so far; 0 where none has a quota."""
    return sum(_throttled(group / "cpu.stat") for group in _groups(root))


def _groups(root: Path) -> Iterator[Path]:
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers
        here = top / path.lstrip("/")
        yield from (folder for folder in (here, *here.parents) if folder.is_relative_to(top))


def _throttled(file: Path) -> int:
    fields = dict(line.split(" ", 1) for line in _text(file).splitlines() if " " in line)
    return int(fields.get("nr_throttled", "0"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
