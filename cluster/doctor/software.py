"""What is installed, and whether it is what the swarm runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.doctor.finding import Finding, fine, stop, stopped
from cluster.roster import Versions
from cluster.versions import check_versions
from swarm.errors import VersionMismatch

ABOUT = "software"
PYTHONS = ("3.11", "3.12")


@dataclass(frozen=True)
class SoftwareFacts:
    """Args:
    ours: what runs here.
    missing: modules that a rig needs and that are not installed.
    theirs: what the swarm runs; None where none was asked.
    """

    ours: Versions
    missing: tuple[str, ...] = ()
    theirs: Versions | None = None


def software_findings(facts: SoftwareFacts) -> Iterator[Finding]:
    ours = facts.ours
    if ours.python not in PYTHONS:
        remedy = f"python{PYTHONS[0]} -m venv swarm-env, and install swarm into that"
        yield stop(ABOUT, f"this is Python {ours.python}, and swarm runs on {' and '.join(PYTHONS)}", remedy)
    if facts.missing:
        remedy = "to join: pip install '.[rig]' in the clone that swarm was installed from; chatting needs no more than is here"
        yield stop(
            ABOUT, f"{_list(facts.missing)} {'is' if len(facts.missing) == 1 else 'are'} not installed, which a rig has", remedy
        )
    if facts.theirs is None or facts.missing:
        yield fine(ABOUT, _what(ours))
        return
    try:
        check_versions(ours, facts.theirs, "this machine")
    except VersionMismatch as error:
        yield stopped(ABOUT, str(error))
    else:
        yield fine(ABOUT, f"{_what(ours)}: what the swarm runs")


def missing_of(modules: Sequence[str]) -> tuple[str, ...]:
    """Those that cannot be imported here; none of them is."""
    from importlib.util import find_spec

    return tuple(name for name in sorted(modules) if name not in sys.modules and find_spec(name) is None)


def _what(ours: Versions) -> str:
    named = (("swarm", ours.swarm), ("Python", ours.python), ("Ray", ours.ray), ("torch", ours.torch))
    return ", ".join(f"{name} {version}" for name, version in named if version)


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
