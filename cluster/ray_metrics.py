"""The swarm's metrics as Ray's own, which each node exports for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from ray.util.metrics import Counter, Gauge

from cluster.metrics import METRICS, Reading


class RayMetrics:
    """Every metric of `METRICS`, in this process."""

    def __init__(self) -> None:
        self._gauges = {name: Gauge(name, m.about, m.tags) for name, m in METRICS.items() if not m.counter}
        self._counters = {name: Counter(name, m.about, m.tags) for name, m in METRICS.items() if m.counter}

    def report(self, readings: Iterable[Reading]) -> None:
        """Set gauges, and add to counters."""
        for reading in readings:
            if reading.name in self._gauges:
                self._gauges[reading.name].set(reading.value, dict(reading.tags))
            else:
                self._counters[reading.name].inc(reading.value, dict(reading.tags))
