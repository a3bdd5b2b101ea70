"""Whether this machine knows what time it is."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.doctor.finding import Finding, fine, note

ABOUT = "clock"
OFF_S = 60.0
_TIMEX_BYTES = 512
"""More than `struct timex` takes anywhere."""
_TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronized."""


@dataclass(frozen=True)
class ClockFacts:
    """Args:
    synchronized: as the kernel knows; None where it does not say.
    ahead_s: of the swarm's head, in seconds; None where no swarm was asked.
    """

    synchronized: bool | None = None
    ahead_s: float | None = None


def read_synchronized() -> bool | None:
    """What the kernel knows of its clock; changes nothing."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    state = int(adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    return None if state < 0 else state != _TIME_ERROR


def clock_findings(facts: ClockFacts) -> Iterator[Finding]:
    remedy = "sudo timedatectl set-ntp true (under WSL2: wsl --shutdown)"
    if facts.ahead_s is not None and abs(facts.ahead_s) > OFF_S:
        way = "ahead of" if facts.ahead_s > 0 else "behind"
        what = f"the clock is {_long(abs(facts.ahead_s))} {way} the swarm's: certificates that expire may not be believed"
        yield note(ABOUT, what, remedy)
    elif facts.ahead_s is not None:
        yield fine(ABOUT, f"within {max(1, round(abs(facts.ahead_s)))} s of the swarm's")
    elif facts.synchronized is False:
        yield note(ABOUT, "nothing keeps the clock right; certificates that expire need it to be", remedy)
    else:
        yield fine(ABOUT, "kept right" if facts.synchronized else "the kernel does not say whether it is kept right")


def _long(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
