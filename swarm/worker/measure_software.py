"""How quick this machine's Python is, by a piece of what a Worker does for every micro-batch beside computing it."""

from __future__ import annotations

import time
from collections.abc import Callable

from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.measure_parts import Taken

HIDDEN_BYTES = 8192
"""One row of Mixtral 8x7B's hidden states in bf16."""


def frames(before_each: Callable[[], None], at_most_s: float) -> Taken:
    """Frames of one Step made, written and read again, for about that long; `before_each` is not counted."""
    hidden, began, count, seconds = bytes(HIDDEN_BYTES), time.perf_counter(), 0, 0.0
    while not count or time.perf_counter() - began < at_most_s:
        before_each()
        started = time.perf_counter()
        frame = pb.MicroBatch(model_id="model", epoch=1, id=count)
        frame.steps.add(session=b"0" * 16, serial=count, position=count, tokens=[1], client=b"1" * 16)
        frame.hidden.data = hidden
        assert pb.MicroBatch.FromString(frame.SerializeToString()).steps[0].serial == count
        seconds += time.perf_counter() - started
        count += 1
    return Taken(seconds, HIDDEN_BYTES * count, count)
