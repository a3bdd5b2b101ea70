"""What long-lived processes of a soak hold from rest to rest, in a file, so that runs add up; and whether that grows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from census import Held

FILE = "soak.jsonl"
MIB = 2**20


@dataclass(frozen=True)
class Rest:
    """One moment at which nobody asks anything.

    Args:
        run: the process that soaked.
        at_s: since its start.
        answers, wrong: since then, in all; wrong are those with another token, and those that were not completed.
        turns: Rigs that left and came back, in all.
        held: by process id, of those that are there from the start to the end.
    """

    run: str
    at_s: float
    answers: int
    wrong: int
    turns: int
    held: Mapping[str, Held]


def read(folder: Path) -> list[Rest]:
    """All that was written there."""
    file = folder / FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    raw = [json.loads(line) for line in lines]
    return [Rest(**{**r, "held": {pid: Held(**held) for pid, held in r["held"].items()}}) for r in raw]


def add(folder: Path, rest: Rest) -> None:
    """One more line."""
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(rest)) + "\n")


def by_run(rests: Iterable[Rest]) -> list[list[Rest]]:
    """Those of each run, in order."""
    runs: dict[str, list[Rest]] = {}
    for rest in rests:
        runs.setdefault(rest.run, []).append(rest)
    return list(runs.values())


def grown(run: Sequence[Rest], role: str) -> tuple[int, int, int]:
    """How many file descriptors, threads and bytes the processes of a role have more at the end of a run than at its beginning.

    The median of the last third beside that of the first, where the most that one process grew counts.
    """
    third = max(1, len(run) // 3)
    pids = [pid for pid, held in run[-1].held.items() if held.role == role]
    each = [_more([r.held[pid] for r in run[:third]], [r.held[pid] for r in run[-third:]]) for pid in pids]
    return (max(e[0] for e in each), max(e[1] for e in each), max(e[2] for e in each)) if each else (0, 0, 0)


def _more(first: Sequence[Held], last: Sequence[Held]) -> tuple[int, int, int]:
    def middle(held: Sequence[Held], what: str) -> int:
        return int(median(getattr(h, what) for h in held))

    fds, threads, size = (middle(last, w) - middle(first, w) for w in ("fds", "threads", "resident_bytes"))
    return fds, threads, size


def table(rests: Sequence[Rest]) -> str:
    """For people, in Markdown: what was done in all, and by role the most that a process grew in any run."""
    runs = by_run(rests)
    done = (
        f"{len(runs)} runs, {sum(run[-1].at_s for run in runs) / 60:.0f} minutes, {sum(run[-1].answers for run in runs)} answers "
        f"({sum(run[-1].wrong for run in runs)} wrong), {sum(run[-1].turns for run in runs)} times a Rig left and came back"
    )
    rows = []
    for role in sorted({held.role for run in runs for held in run[-1].held.values()}):
        fds, threads, size = (max(each) for each in zip(*(grown(run, role) for run in runs), strict=True))
        last = max((h for run in runs for h in run[-1].held.values() if h.role == role), key=lambda h: h.resident_bytes)
        rows.append(f"| {role} | {fds:+} | {threads:+} | {size / MIB:+.1f} MiB | {last.resident_bytes / MIB:.0f} MiB |")
    head = "| process | file descriptors | threads | resident | resident at the end |\n|---|--:|--:|--:|--:|"
    return "\n".join([done, "", head, *rows])
