"""RAM and cores that this process may use: the machine's, or less where a cgroup says so.

Formats: proc(5) for /proc/meminfo and /proc/self/cgroup; the kernel's admin guides of cgroup v1 (memory, cpu) and v2.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """RAM in bytes and cores; `available_bytes` is what could be taken now without swapping."""

    total_bytes: int
    available_bytes: int
    cores: int
    label: str


def read_host(root: Path = Path("/")) -> Host:
    """Read what `root` (of a running Linux) says about the calling process."""
    memory = _meminfo(root)
    total, available = memory["MemTotal"], memory["MemAvailable"]
    for limit, used in _memory_limits(root):
        total, available = min(total, limit), min(available, max(0, limit - used))
    cores = [len(os.sched_getaffinity(0)), *_core_limits(root)]
    return Host(total, min(total, available), max(1, min(cores)), _label(root))


def _meminfo(root: Path) -> dict[str, int]:
    lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 2**10 for name in ("MemTotal", "MemAvailable")}


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each cgroup above this process that has a limit."""
    for version, group in _groups(root, "memory"):
        limit = _number(group / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        used = _number(group / ("memory.current" if version == 2 else "memory.usage_in_bytes"))
        if limit is not None and used is not None:
            yield limit, max(0, used - _file_cache(group))


def _file_cache(group: Path) -> int:
    """File pages that the kernel gives up first; they count as use and are none."""
    lines = (_text(group / "memory.stat") or "").splitlines()
    fields = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(fields.get("total_inactive_file", fields.get("inactive_file", "0")))


def _core_limits(root: Path) -> Iterator[int]:
    """Whole cores of each quota above this process, rounded up."""
    for version, group in _groups(root, "cpu"):
        if version == 2:
            quota, _, period = (_text(group / "cpu.max") or "max 1").partition(" ")
        else:
            quota, period = _text(group / "cpu.cfs_quota_us") or "-1", _text(group / "cpu.cfs_period_us") or "1"
        if quota.isdigit() and period.isdigit():
            yield max(1, -(-int(quota) // max(1, int(period))))


def _groups(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """cgroup version and folder of this process and of everything above it; a limit anywhere on the way counts."""
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        here = top / path.lstrip("/")
        for folder in (here, *here.parents):
            if folder.is_relative_to(top):
                yield (1 if controllers else 2), folder


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text and text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _label(root: Path) -> str:
    lines = (_text(root / "proc/cpuinfo") or "").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")
