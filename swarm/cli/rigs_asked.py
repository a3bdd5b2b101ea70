"""Which rigs a swarm has and where they answer: what their disks hold is asked of a Worker of each, Coordinator or not."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.cli import options
from swarm.cli.rigs_noted import RigAt, note_rigs, noted_rigs, rigs_of
from swarm.cli.status import ask
from swarm.errors import Expired, NoSwarm


@dataclass(frozen=True)
class Known:
    """The rigs of a swarm; `silence`: why its door does not say so itself, and a note of this machine does. Empty: it did."""

    rigs: tuple[RigAt, ...]
    silence: str = ""


async def known_rigs(target: options.Target) -> Known:
    """The rigs that a swarm has now, or had when this machine last heard of them. Raises what `ask` does where there is no note."""
    try:
        document = await ask(target)
    except (NoSwarm, Expired) as error:
        noted = noted_rigs(target.address)
        if not noted:
            raise
        return Known(noted, str(error))
    note_rigs(target.address, document)
    return Known(rigs_of(document))
