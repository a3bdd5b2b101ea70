"""What was measured: how fast each Device computes, how much slower it served since, and the links between Rigs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cluster.pace import Pace
from cluster.planner.hardware import Link, Speed
from swarm.bits import NUMBER_BYTES, Bits
from swarm.plan import Model

SHAPES_KEPT = 4
"""Figures of so many models are kept for each Device: the newest."""
ALIKE = 0.15
"""Two measurements that differ by less are the same: nothing moves for noise."""


@dataclass(frozen=True)
class Shape:
    """What a Device's speed depends on: dtype, and the shape of one expert.

    Args:
        dtype: the one that is measured, see `Bits.measured`: figures for other groups, or another head, are near enough.
    """

    dtype: str
    hidden: int
    ffn: int

    @classmethod
    def of(cls, model: Model) -> Shape:
        return cls(Bits.of(model.dtype).measured, model.config.hidden, model.config.ffn)


@dataclass(frozen=True)
class Figures:
    """How fast a Device computes.

    Args:
        dtypes: those that it computes well.
        at: when that was measured, seconds.
        free_bytes: what was free then beside what its Worker held; not kept, it is true for a moment.
    """

    speed: Speed
    dtypes: tuple[str, ...]
    at: float = 0.0
    free_bytes: int = 0

    def is_like(self, other: Figures) -> bool:
        """Whether two measurements of one Device differ by noise only."""
        pairs = [(self.speed.bandwidth, other.speed.bandwidth), (self.speed.flops(1), other.speed.flops(1))]
        return self.dtypes == other.dtypes and all(_alike(a, b) for a, b in pairs)


@dataclass(frozen=True)
class LinkFigures:
    """The way between two Rigs, or inside one.

    Args:
        link: None where it could not be measured, and `why`.
    """

    link: Link | None
    why: str = ""
    at: float = 0.0

    def is_like(self, other: LinkFigures) -> bool:
        if self.link is None or other.link is None:
            return self.link == other.link
        ours, others = ((link.rtt_s, link.client_s, link.bytes_per_s) for link in (self.link, other.link))
        return all(map(_alike, ours, others))


class Measurements:
    """Figures of Devices by their keys (see `roster.Device.key`), and of links by the ids of two Rigs in order.

    Args:
        keep: takes all of it as JSON whenever it changes.
        before: what another swarm of this head measured, for Devices that serve too much to be measured.
    """

    def __init__(self, text: str = "", keep: Callable[[str], None] = lambda text: None, before: Measurements | None = None) -> None:
        self._devices: dict[str, dict[Shape, Figures]] = {}
        self._links: dict[tuple[str, str], LinkFigures] = {}
        self._paces: dict[str, Pace] = {}  # of those that are slowed
        self._keep, self._before = keep, before
        if text:
            self._read(json.loads(text))

    def figures(self, key: str, shape: Shape) -> Figures | None:
        """Of a Device, for this shape or else for the one nearest to it; None where it was never measured."""
        known = self._devices.get(key, {})
        return known[min(known, key=lambda s: _distance(s, shape))] if known else None

    def newest(self, key: str) -> Figures | None:
        """Of a Device, for the shape that was measured last; None where it was never measured."""
        return next(reversed(self._devices.get(key, {}).values()), None)

    def exact(self, key: str, shape: Shape) -> Figures | None:
        """Of a Device, for just this shape."""
        return self._devices.get(key, {}).get(shape)

    def took(self, key: str, shape: Shape, figures: Figures) -> bool:
        """Keep what was measured; returns whether it says something new."""
        known = self._devices.setdefault(key, {})
        before = known.pop(shape, None)
        same = before is not None and before.is_like(figures)
        known[shape] = replace(before, at=figures.at) if before and same else figures
        for old in list(known)[:-SHAPES_KEPT]:
            del known[old]
        self._keep(self.to_json())
        return not same

    def recall(self, key: str) -> bool:
        """Go by what was measured of a Device before, where nothing is known of it now; whether that says something new."""
        if key in self._devices or self._before is None or key not in self._before._devices:
            return False
        self._devices[key] = dict(self._before._devices[key])
        self._keep(self.to_json())
        return True

    def pace(self, key: str) -> Pace:
        """What a Device begins with that nobody has watched yet: as slow as it was when it was last planned on."""
        return self._paces.get(key, Pace())

    def took_paces(self, paces: Mapping[str, Pace]) -> None:
        """Keep how slow Devices are, whatever others are."""
        now = {key: Pace(slowed=pace.slowed, apart=pace.apart) for key, pace in paces.items() if pace.slowed > 1}
        kept = {key: pace for key, pace in self._paces.items() if key not in paces} | now
        if kept != self._paces:
            self._paces = kept
            self._keep(self.to_json())

    def link(self, a: str, b: str) -> LinkFigures | None:
        """Between two Rigs by their ids; inside one by its id twice."""
        return self._links.get(_pair(a, b))

    def took_link(self, a: str, b: str, figures: LinkFigures) -> bool:
        """Keep what was measured; returns whether it says something new."""
        before = self._links.get(_pair(a, b))
        same = before is not None and before.is_like(figures)
        self._links[_pair(a, b)] = LinkFigures(before.link, before.why, figures.at) if before and same else figures
        self._keep(self.to_json())
        return not same

    def links(self) -> Mapping[tuple[str, str], LinkFigures]:
        return self._links

    def to_json(self) -> str:
        devices = [
            {"device": key, "shape": asdict(shape), "figures": asdict(replace(figures, free_bytes=0))}
            for key, known in self._devices.items()
            for shape, figures in known.items()
        ]
        links = [{"between": list(pair), "figures": asdict(figures)} for pair, figures in self._links.items()]
        slowed = {key: [pace.slowed, pace.apart] for key, pace in self._paces.items()}
        return json.dumps({"devices": devices, "links": links, "slowed": slowed})

    def _read(self, raw: Any) -> None:
        for entry in raw["devices"]:
            f = entry["figures"]
            speed = Speed(
                tuple((int(rows), float(s)) for rows, s in f["speed"]["products"]),
                float(f["speed"]["start_s"]),
                float(f["speed"]["software_s"]),
                several_start_s=float(f["speed"].get("several_start_s", 0.0)),
            )
            shape = Shape(**entry["shape"])
            self._devices.setdefault(entry["device"], {})[shape] = Figures(speed, tuple(f["dtypes"]), float(f["at"]))
        for entry in raw["links"]:
            f = entry["figures"]
            a, b = entry["between"]
            self._links[a, b] = LinkFigures(Link(**f["link"]) if f["link"] else None, f["why"], float(f["at"]))
        self._paces = {key: Pace(slowed=float(s), apart=float(a)) for key, (s, a) in raw.get("slowed", {}).items()}


def _pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a <= b else (b, a)


def _alike(a: float, b: float) -> bool:
    return abs(a - b) <= ALIKE * max(a, b)


def _distance(one: Shape, other: Shape) -> tuple[bool, bool, bool, int]:
    """How little one shape's speed says about another's: first the dtype, then its kind, then its width, then the sizes."""
    a, b = Bits.of(one.dtype), Bits.of(other.dtype)
    widths = NUMBER_BYTES[a.numbers] != NUMBER_BYTES[b.numbers]
    return a != b, a.experts.kind != b.experts.kind, widths, abs(one.hidden * one.ffn - other.hidden * other.ffn)
