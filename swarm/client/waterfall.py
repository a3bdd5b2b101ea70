"""Where the time of one traversal goes: each Stage's computing, queue and waits, each transfer, and the client's own part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from swarm.client.trace import Trace, Way

ONE_CLOCK = "one clock"
"""Both ends are on one machine, and were timed on its clock."""
COUNTED = "counted"
"""Half of what the sending Worker counted for there and back."""
SHARED = "shared"
"""An equal part of what is left of the traversal: nobody could time it by itself."""
REST = "rest"
"""What is left of the traversal: from the client to the first Stage, and from the last Stage back to the client."""


@dataclass(frozen=True)
class Span:
    """One Stage's mean seconds of a traversal."""

    worker: str
    hop_s: float
    """On the way here from the Stage before; of the first Stage, the client's two ways: here, and back from the last."""
    hop_by: str
    """How that is known: see the constants above."""
    queue_s: float
    compute_s: float
    shard_wait_s: float


@dataclass(frozen=True)
class Waterfall:
    """The mean traversal of one way. What its Stages have adds up to `traversal_s`."""

    stages: tuple[Span, ...]
    traversal_s: float
    client_s: float
    """The client's own, between two traversals: drawing the token, showing it, sending the next one."""
    traversals: int

    def document(self) -> dict[str, Any]:
        """JSON-ready; seconds."""
        return asdict(self)


def waterfalls(trace: Trace, rigs: Mapping[str, str], hops: Mapping[str, float]) -> tuple[Waterfall, ...]:
    """One for each way that the traversals went, the most used first.

    Args:
        rigs: the machine of each Worker.
        hops: by Worker, the seconds there and back of a Hop from it to the next, where they were counted.
    """
    return tuple(waterfall(way, rigs, hops) for way in trace.ways)


def waterfall(way: Way, rigs: Mapping[str, str], hops: Mapping[str, float]) -> Waterfall:
    """The mean of one way's traversals, see `waterfalls`."""
    mean = 1 / way.count
    computing = sum(s.compute_s + s.queue_s + s.shard_wait_s for s in way.stages) * mean
    known = _known_hops(way, rigs, hops, max(0.0, way.traversal_s * mean - computing))
    spans = tuple(
        Span(worker, hop, by, sums.queue_s * mean, sums.compute_s * mean, sums.shard_wait_s * mean)
        for worker, sums, (hop, by) in zip(way.workers, way.stages, known, strict=True)
    )
    return Waterfall(spans, way.traversal_s * mean, way.client_s * mean, way.count)


def _known_hops(way: Way, rigs: Mapping[str, str], hops: Mapping[str, float], left: float) -> list[tuple[float, str]]:
    """The transfer to each Stage and how it is known. `left` is what all of them took, with both of the client's."""
    one_clock, counted = dict[int, float](), dict[int, float]()
    for at in range(1, len(way.workers)):
        before, here = way.workers[at - 1], way.workers[at]
        seconds = way.stages[at].hop_s / way.count
        if rigs.get(before, before) == rigs.get(here, here) and 0 <= seconds <= left:
            one_clock[at] = seconds
        elif before in hops:
            counted[at] = hops[before] / 2
    if sum(one_clock.values()) > left:  # then it was not one clock
        one_clock = {}
    left -= sum(one_clock.values())
    if sum(counted.values()) > left:  # of other traffic, larger or slower than this
        counted = {}
    left -= sum(counted.values())
    unknown = len(way.workers) - 1 - len(one_clock) - len(counted)
    each = left / (unknown + 2)
    found = [(one_clock[at], ONE_CLOCK) if at in one_clock else (counted.get(at, each), COUNTED if at in counted else SHARED)
             for at in range(1, len(way.workers))]  # fmt: skip
    return [(2 * each, SHARED if unknown else REST), *found]
