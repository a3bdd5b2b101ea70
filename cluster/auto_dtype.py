"""What `--dtype auto` means: the checkpoint's own dtype where the model fits in it, else fewer bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cluster.planner import Load, missing_bytes, needed_bytes
from cluster.planner.hardware import Hardware
from cluster.planner.make import decide
from swarm.config import Sizes
from swarm.errors import gib
from swarm.plan import Model

LESSER = ("int8", "int4+attention=int8", "int4", "int4/128")
"""What `auto` goes on with where the checkpoint's own dtype does not fit. Attention and head are little of a large model, and most
of what 4 bits cost is lost there: see docs/performance.md."""
Way = tuple[Model, Hardware]
"""A model in one dtype, and the Devices that run it in that."""


def own_dtype(model: Model, all_have_bf16: bool) -> str:
    """What a model in the checkpoint's own dtype runs in: that; but fp16 where it is bf16 and a Device has none."""
    return "fp16" if model.dtype == "bf16" and not all_have_bf16 else model.dtype


def ladder(model: Model, own: str) -> tuple[Model, ...]:
    """The model in the dtypes that `auto` may choose, the best first."""
    first = replace(model, dtype=own)
    lesser = (replace(model, dtype=dtype) for dtype in LESSER)
    return first, *(way for way in lesser if Sizes(way.config, way.dtype).weights < Sizes(model.config, own).weights)


def chosen(ways: Sequence[Way], load: Load) -> tuple[Model, str]:
    """The best way that fits, and why it is not the first, see `why_fewer`."""
    best = best_fitting(ways, load)
    place = next(place for place, (model, _) in enumerate(ways) if model == best)
    return best, why_fewer(ways[: place + 1], load)


def best_fitting(ways: Sequence[Way], load: Load) -> Model:
    """The first in which the model fits; the last where it fits in none."""
    return next((model for model, hardware in ways if fits(model, hardware, load)), ways[-1][0])


def fits(model: Model, hardware: Hardware, load: Load) -> bool:
    """Whether there is a Plan, be it without standby copies."""
    load = replace(load, standby=False)
    if sum(d.spec.memory_bytes for d in hardware.devices) < needed_bytes(model, load):
        return False
    return not missing_bytes(model, hardware, load) or decide(model, hardware, load) is not None


def why_fewer(ways: Sequence[Way], load: Load) -> str:
    """Why the last of these was chosen: `int4: bf16 needs 91 GiB, the swarm has 45`; empty where there is no better one.

    Where a better one fits by now, it says so: a swarm does not change its answers by itself.
    """
    if len(ways) < 2:
        return ""
    *better, (chosen, _) = ways
    for model, hardware in better:
        if fits(model, hardware, load):
            return f"{chosen.dtype}: {model.dtype} would fit now, `swarm load {model.source}` changes to it"
    model, hardware = better[0]
    have = sum(d.spec.memory_bytes for d in hardware.devices)
    return f"{chosen.dtype}: {model.dtype} needs {gib(have + missing_bytes(model, hardware, load))}, the swarm has {gib(have)}"
