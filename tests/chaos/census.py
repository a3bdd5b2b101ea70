"""What a swarm's processes hold: file descriptors, threads, memory; and what is left over when all is quiet."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MARK = "SWARM_CHAOS"
"""In the environment of all processes of one swarm."""
LINE = 100
"""So much of a command line tells processes apart."""
MORE_FDS = 24
MORE_THREADS = 24
"""A process may have so many more than at first: channels to Rigs that came since, threads that gRPC and torch keep."""
MORE_BYTES = 160 * 2**20
"""What the allocators of one process may keep: glibc's arenas, and torch's."""
NOT_COUNTED = ("relay", "idle", "ray's")
"""The relay is ours, and has two descriptors for each connection of others; Ray keeps empty processes as it sees fit, and its
agents write their names over the environment by which they are found, or not."""
MAY_BE_FEWER = "actor"
"""Ray ends an Agent that another one replaced in its own time: at first there may be both."""
ROLES = {"swarm.worker": "worker", "rig_process": "rig", "control_process": "control", "relay_process": "relay"}
ROLES |= {
    "chaos/chaos.py": "chats",
    "chaos/soak.py": "chats",
    "cluster.keeper": "keeper",
    "raylet/raylet": "raylet",
    "gcs_server": "gcs",
    "ray::IDLE": "idle",
    "ray::DashboardAgent": "ray's",
    "ray::RuntimeEnvAgent": "ray's",
    "ray::": "actor",
    "swarm.cli": "rig",
}


@dataclass(frozen=True)
class Held:
    """What one process holds. A role is what it does in the swarm; `line` is its command line, or what it calls itself."""

    role: str
    fds: int
    threads: int
    resident_bytes: int
    line: str = ""


@dataclass(frozen=True)
class Snapshot:
    """All processes of a swarm by process id, and what its Workers say of themselves, as in `swarm status --json`."""

    processes: Mapping[int, Held]
    workers: Sequence[Mapping[str, Any]] = field(default=())


def snapshot(mark: str, workers: Sequence[Mapping[str, Any]], variable: str = MARK) -> Snapshot:
    """Look at all processes that have the mark in a variable of their environment, and at this one.

    Here what only points at itself is collected first: Python would do so sooner or later.
    """
    gc.collect()
    sought = f"{variable}={mark}".encode()
    held = {pid: found for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if (found := _held(pid, sought))}
    return Snapshot(held, workers)


def _held(pid: int, sought: bytes) -> Held | None:
    folder = Path(f"/proc/{pid}")
    try:
        if pid != os.getpid() and sought not in (folder / "environ").read_bytes().split(b"\0"):
            return None
        line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        pages = int((folder / "statm").read_text().split()[1])
        threads, fds = len(os.listdir(folder / "task")), len(os.listdir(folder / "fd"))
    except OSError:
        return None  # it ended while we looked
    if not line:
        return None  # a zombie: its parent has not looked yet
    role = next((role for word, role in ROLES.items() if word in line), "other")
    return Held(role, fds, threads, pages * os.sysconf("SC_PAGE_SIZE"), line.strip()[:LINE])


def left_over(before: Snapshot, after: Snapshot) -> list[str]:
    """What is there that was not, in words; nothing where all is back to the start."""
    return [*_processes(before, after), *_grown(before, after), *_of_workers(after)]


def _processes(before: Snapshot, after: Snapshot) -> list[str]:
    there, here = (Counter(p.role for p in s.processes.values()) for s in (before, after))
    return [
        f"{here[role]} {role} processes, {there[role]} at first" + _lines(max(before, after, key=lambda s: _number(s, role)), role)
        for role in sorted((there | here).keys() - set(NOT_COUNTED))
        if here[role] > there[role] or (here[role] < there[role] and role != MAY_BE_FEWER)
    ]


def _number(seen: Snapshot, role: str) -> int:
    return sum(held.role == role for held in seen.processes.values())


def _lines(seen: Snapshot, role: str) -> str:
    lines = sorted(held.line for held in seen.processes.values() if held.role == role and held.line)
    return f" ({'; '.join(lines)})" if lines else ""


def _grown(before: Snapshot, after: Snapshot) -> list[str]:
    """Beside the same process where it lives on, else beside the most that one of its role had: so, too, a Worker that was warm."""
    found = []
    for pid, now in after.processes.items():
        if now.role in NOT_COUNTED:
            continue
        lived_on = pid in before.processes and now.role != "worker"
        same = [before.processes[pid]] if lived_on else [p for p in before.processes.values() if p.role == now.role]
        limits = [(p.fds + MORE_FDS, p.threads + MORE_THREADS, p.resident_bytes + MORE_BYTES) for p in same]
        most = [max(each) for each in zip(*limits, strict=True)] or [0, 0, 0]
        have = (now.fds, now.threads, now.resident_bytes)
        for count, limit, what in zip(have, most, ("file descriptors", "threads", "bytes resident"), strict=True):
            if limit and count > limit:
                found.append(f"{now.role} {pid} has {count} {what}, more than {limit}")
    return found


def _of_workers(after: Snapshot) -> list[str]:
    found = []
    for worker in after.workers:
        if worker["sessions"] or worker["memory"]["kv_used_bytes"]:
            found.append(
                f"{worker['name']} still has {worker['sessions']} sessions, {worker['memory']['kv_used_bytes']} bytes of KV"
            )
    return found
