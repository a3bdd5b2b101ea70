"""How much of this machine others use meanwhile: figures of a busy machine say little."""

from __future__ import annotations

import os
import time

import psutil  # type: ignore[import-untyped]


class Others:
    """CPU time of everybody but this process and its children, from now on."""

    def __init__(self) -> None:
        self._began, self._everybody, self._ours = time.monotonic(), _everybody_s(), _ours_s()

    def share(self) -> float:
        """Of all CPUs, since the beginning."""
        others = (_everybody_s() - self._everybody) - (_ours_s() - self._ours)
        return max(0.0, others / (time.monotonic() - self._began) / (os.cpu_count() or 1))


def _everybody_s() -> float:
    """With what a hypervisor gave to others."""
    now = psutil.cpu_times()
    return float(now.user + now.nice + now.system + now.irq + now.softirq + getattr(now, "steal", 0.0))


def _ours_s() -> float:
    us = psutil.Process()
    used = [each.cpu_times() for each in (us, *us.children(recursive=True))]
    return float(sum(each.user + each.system for each in used))
