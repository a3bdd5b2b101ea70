"""What another rig types to join a swarm."""

from __future__ import annotations

import shlex


def join_line(address: str, key: str) -> str:
    """As a shell takes it.

    Args:
        address: of the swarm's door, host:port.
    """
    return f"swarm join {address} --key {shlex.quote(key)}"
