"""What the routers of all Workers chose, together."""

from __future__ import annotations

from collections.abc import Iterable

from swarm.wire.v1 import worker_pb2 as pb


def router_counts(statuses: Iterable[pb.WorkerStatus]) -> dict[int, list[int]]:
    """By Block, how often each of its experts was chosen, in ascending order; Blocks of several Routes are summed."""
    found: dict[int, list[int]] = {}
    for choices in (c for status in statuses for c in status.choices):
        known = found.get(choices.block, [])
        same = known if len(known) == len(choices.counts) else [0] * len(choices.counts)
        found[choices.block] = [a + b for a, b in zip(same, choices.counts, strict=True)]
    return dict(sorted(found.items()))
