"""What became of each fault: a line of JSON in a file, so that runs add up; and the table over all lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

FILE = "faults.jsonl"
LONG_PAUSE_S = 10.0
"""What takes so long wants to be explained."""


@dataclass(frozen=True)
class Result:
    """One fault.

    Args:
        seed, number, shape, kind: of the `Blow`.
        answers: how many were given around it.
        changed: in how many another token came.
        lost: what answers that were not completed said instead.
        left_over: what was there afterwards and not before, in words.
        recovered: all is as it should be.
        pause_s: the longest time between two tokens of an answer, from the fault on.
        held_s: how long the fault itself lasted.
        took_s: until all answered anew.
        whole_s, settled_s: how long it took from there until the swarm was whole, and from there until nothing was left over.
        at_s: when it struck, in Unix time: the logs have that, too. 0 where an older run did not write it down.
    """

    seed: int
    number: int
    shape: str
    kind: str
    answers: int
    changed: int
    lost: tuple[str, ...]
    left_over: tuple[str, ...]
    pause_s: float
    held_s: float
    took_s: float
    whole_s: float = 0.0
    settled_s: float = 0.0
    at_s: float = 0.0

    @property
    def recovered(self) -> bool:
        return not (self.changed or self.lost or self.left_over)

    @property
    def worth_its_logs(self) -> bool:
        """Whether somebody will ask why."""
        return not self.recovered or self.pause_s > LONG_PAUSE_S


def read(folder: Path) -> list[Result]:
    """All that was written there."""
    file = folder / FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    raw = [json.loads(line) for line in lines]
    return [Result(**{**r, "lost": tuple(r["lost"]), "left_over": tuple(r["left_over"])}) for r in raw]


def add(folder: Path, result: Result) -> None:
    """One more line."""
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def quantile(values: Sequence[float], part: float) -> float:
    """The least value that so many are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def table(results: Sequence[Result]) -> str:
    """For people, in Markdown: a line for each fault on each kind of swarm, and one for all."""
    head = (
        "| swarm | fault | times | recovered | answers | tokens changed | lost | left over | pause p50 | p99 |\n|---|---|"
        + "--:|" * 8
    )
    kinds = sorted({(r.shape, r.kind) for r in results})
    rows = [_row(shape, kind, [r for r in results if (r.shape, r.kind) == (shape, kind)]) for shape, kind in kinds]
    return "\n".join([head, *rows, _row("**all**", "", results)] if results else [head])


def _row(shape: str, kind: str, of: Iterable[Result]) -> str:
    found = list(of)
    pauses = [r.pause_s for r in found]
    counts = [len(found), *(sum(each) for each in zip(*(_counts(r) for r in found), strict=True))]
    return f"| {shape} | {kind} | {' | '.join(map(str, counts))} | {median(pauses):.1f} s | {quantile(pauses, 0.99):.1f} s |"


def _counts(result: Result) -> tuple[int, ...]:
    return result.recovered, result.answers, result.changed, len(result.lost), bool(result.left_over)
