"""How much RAM is free, and what uses the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.doctor.finding import Finding, fine, note
from cluster.hardware.host import Host, read_host
from swarm.errors import gib

ABOUT = "memory"
LITTLE = 0.25
MOST_USES = 3


@dataclass(frozen=True)
class MemoryFacts:
    """The machine's RAM, and the processes that hold most of it: name, pid, resident bytes."""

    host: Host
    uses: tuple[tuple[str, int, int], ...] = ()


def read_memory(root: Path = Path("/")) -> MemoryFacts:
    """Read /proc of `root` (a running Linux)."""
    found = sorted(_uses(root), key=lambda use: -use[2])
    return MemoryFacts(read_host(root), tuple(found[:MOST_USES]))


def memory_findings(facts: MemoryFacts) -> Iterator[Finding]:
    host = facts.host
    what = f"{gib(host.available_bytes)} of {gib(host.total_bytes)} RAM free, {host.cores} cores ({host.label})"
    if host.available_bytes >= LITTLE * host.total_bytes:
        yield fine(ABOUT, what)
        return
    most = ", ".join(f"{name} (pid {pid}) {gib(num_bytes)}" for name, pid, num_bytes in facts.uses)
    yield note(
        ABOUT, f"{what}; most is used by {most}" if most else what, "end what is not needed, or give less with --device cpu=SIZE"
    )


def _uses(root: Path) -> Iterator[tuple[str, int, int]]:
    page = os.sysconf("SC_PAGE_SIZE")
    for process in (root / "proc").glob("[0-9]*"):
        try:
            resident = int((process / "statm").read_text().split()[1]) * page
            yield (process / "comm").read_text().strip(), int(process.name), resident
        except (OSError, IndexError, ValueError):
            continue  # it ended
