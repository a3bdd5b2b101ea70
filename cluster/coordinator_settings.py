"""What the Coordinator's process is told at its start."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from cluster.target import Target


@dataclass(frozen=True)
class CoordinatorSettings:
    """What the actor is made of.

    Args:
        listen: host:port to bind the door to.
        address: host:port that others dial.
        head: id of the head Rig.
        ray_address: host:port of Ray's GCS.
        target: what `up` asks for.
        memo: the file that keeps what the swarm was last asked to hold.
        restarted: the same `up` goes on: what it was last asked to hold counts; else `target` does.
        rig: the head Rig's name, and `logs`: the folder of its logs; empty: none are kept.
    """

    listen: str
    address: str
    key: str
    head: str
    ray_address: str
    ray_token: str
    target: Target
    memo: str
    restarted: bool = False
    rig: str = ""
    logs: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> CoordinatorSettings:
        raw = json.loads(text)
        return cls(**{**raw, "target": Target(**raw["target"])})
