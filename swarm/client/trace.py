"""What the traversals of one Session took, piece by piece: sums of durations, by the way they went.

No two clocks are compared but those of Stages on one machine: each Stage times itself, the client times the whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from swarm.wire.v1 import stage_pb2 as pb


class Traversed(Protocol):
    """What has just been through its Route; a Session."""

    traversal_s: float
    timings: tuple[pb.StageTiming, ...]


@dataclass
class StageSums:
    """One Stage's seconds over all traversals."""

    compute_s: float = 0.0
    """Of its own: waits for shards are not in it."""
    queue_s: float = 0.0
    shard_wait_s: float = 0.0
    hop_s: float = 0.0
    """From the end of computing in the Stage before to the receipt here, as this machine's clock has both: means nothing
    where they are on different machines, nor for the first Stage."""

    def add(self, other: StageSums) -> None:
        self.compute_s += other.compute_s
        self.queue_s += other.queue_s
        self.shard_wait_s += other.shard_wait_s
        self.hop_s += other.hop_s


@dataclass
class Way:
    """Traversals over the same Workers, in the order of their Stages."""

    workers: tuple[str, ...]
    count: int = 0
    traversal_s: float = 0.0
    client_s: float = 0.0
    """The client's own, between the traversals."""
    stages: list[StageSums] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stages = self.stages or [StageSums() for _ in self.workers]

    def add(self, other: Way) -> None:
        """Count another's traversals as well."""
        self.count += other.count
        self.traversal_s += other.traversal_s
        self.client_s += other.client_s
        for mine, its in zip(self.stages, other.stages, strict=True):
            mine.add(its)


class Trace:
    """The traversals of one Session from now on."""

    def __init__(self) -> None:
        self._ways: dict[tuple[str, ...], Way] = {}
        self._ended = time.monotonic()
        self._last: tuple[pb.StageTiming, ...] = ()

    @property
    def ways(self) -> tuple[Way, ...]:
        """The one that most traversals went comes first."""
        return tuple(sorted(self._ways.values(), key=lambda way: -way.count))

    def pause(self) -> None:
        """What passed since the last traversal was not the client's work."""
        self._ended = time.monotonic()

    def skip(self, done: Traversed) -> None:
        """A traversal ended that is not counted: the prompt's."""
        self._last = done.timings
        self.pause()

    def add(self, done: Traversed) -> None:
        """A traversal ended just now. One whose answer a Stage gave from memory has no times, and is left out."""
        between = time.monotonic() - self._ended - done.traversal_s
        if done.timings is not self._last:
            workers = tuple(timing.worker for timing in done.timings)
            way = Way(workers, 1, done.traversal_s, max(0.0, between), list(_sums(done.timings)))
            self._ways.setdefault(workers, Way(workers)).add(way)
        self.skip(done)

    def merge(self, others: Iterable[Trace]) -> Trace:
        """Count what others counted, too."""
        for other in others:
            for way in other.ways:
                self._ways.setdefault(way.workers, Way(way.workers)).add(way)
        return self


def _sums(timings: Sequence[pb.StageTiming]) -> Iterable[StageSums]:
    for at, timing in enumerate(timings):
        before = timings[at - 1] if at else None
        hop = timing.began_s - timing.queue_s - (before.began_s + before.compute_s) if before else 0.0
        yield StageSums(timing.compute_s - timing.shard_wait_s, timing.queue_s, timing.shard_wait_s, hop)
