"""What a swarm without a Plan waits for, in words."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.roster import Device
from swarm.errors import DoesNotFit, SwarmError

NO_WORKER = "has no worker that answers: waiting for one"


def waiting_for(error: SwarmError, source: str, shortage: str, under_way: Sequence[str], devices: Sequence[Device]) -> str:
    """Goes on where "the swarm" was said.

    Args:
        error: why there is no Plan.
        source: the model that is asked for.
        shortage: what it needs beyond what there is, where it does not fit.
        under_way: Devices that are being measured, which may change it.
        devices: all of the swarm; those that are left out are named, and where memory is missing those that are paused or silent.
    """
    text = NO_WORKER if all(d.out or d.agent is None for d in devices) else f"cannot load {source}: {error}"
    if isinstance(error, DoesNotFit):
        text = f"is measuring {', '.join(under_way)}: the rest is too little ({shortage})" if under_way else shortage
    missing = [f"{d.name} is left out: {d.out}" for d in devices if d.out and not d.silent]
    if isinstance(error, DoesNotFit):
        missing += [f"{d.name} is paused: `swarm resume {d.rig}` brings it back" for d in devices if d.paused and not d.out]
        missing += [f"{d.name} does not answer" for d in devices if d.silent]
    return "; ".join([text, *missing])
