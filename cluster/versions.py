"""Whether two Rigs can be one swarm: swarm, Python, Ray and torch must agree."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from cluster.roster import Versions
from swarm import __version__
from swarm.errors import VersionMismatch


def own_versions() -> Versions:
    """What runs here."""
    return Versions(__version__, f"{sys.version_info.major}.{sys.version_info.minor}", _installed("ray"), _installed("torch"))


def check_versions(theirs: Versions, ours: Versions, rig: str) -> None:
    """Raise VersionMismatch with the install line, unless a Rig's versions are the swarm's (the build after + may differ)."""
    if theirs.python != ours.python:
        raise VersionMismatch(
            f"{rig} runs Python {theirs.python}, the swarm {ours.python}: on {rig}, in a clone of swarm {ours.swarm}, run "
            f"`python{ours.python} -m venv swarm-env && swarm-env/bin/{_install(ours)}`"
        )
    for name, there, here in (
        ("swarm", theirs.swarm, ours.swarm),
        ("Ray", theirs.ray, ours.ray),
        ("torch", theirs.torch, ours.torch),
    ):
        if there.partition("+")[0] != here.partition("+")[0]:
            raise VersionMismatch(
                f"{rig} runs {name} {there or 'none'}, the swarm {here}: on {rig}, in a clone of swarm {ours.swarm}, run "
                f"`{_install(ours)}`"
            )


def _install(ours: Versions) -> str:
    """For a clone: swarm is in no package index."""
    return f"pip install '.[rig]' 'torch=={ours.torch.partition('+')[0]}' 'ray[default]=={ours.ray}'"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
