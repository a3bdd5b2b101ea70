"""How quick this machine's Python is, by a piece of what a Worker does for every micro-batch beside computing it."""

from __future__ import annotations

import time
from collections.abc import Callable

from swarm.wire.v1 import stage_pb2 as pb

HIDDEN_BYTES = 8192
"""One row of Mixtral 8x7B's hidden states in bf16."""


def frames(before_each: Callable[[], None], at_most_s: float) -> list[float]:
    """Seconds of each of many frames of one Step made, written and read again, for about that long in all.

    `before_each` is not counted.
    """
    hidden, began = bytes(HIDDEN_BYTES), time.perf_counter()
    seconds: list[float] = []
    while not seconds or time.perf_counter() - began < at_most_s:
        before_each()
        started = time.perf_counter()
        frame = pb.MicroBatch(model_id="model", epoch=1, id=len(seconds))
        frame.steps.add(session=b"0" * 16, serial=len(seconds), position=len(seconds), tokens=[1], client=b"1" * 16)
        frame.hidden.data = hidden
        assert pb.MicroBatch.FromString(frame.SerializeToString()).steps[0].serial == len(seconds)
        seconds.append(time.perf_counter() - started)
    return seconds
