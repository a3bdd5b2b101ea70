"""What a little more hardware would bring: the same model planned again with it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from cluster.hardware.known_cards import known_card
from cluster.planner import Load, missing_bytes
from cluster.planner.hardware import Hardware, Link, Measured
from cluster.planner.lay_out import lay_out
from cluster.planner.make import decide
from cluster.planner.predict import objective_s, predict
from cluster.rigs_file import PAYLOAD_SHARE
from swarm.config import Sizes
from swarm.errors import gib, rate
from swarm.plan import Model, Prediction, WorkerSpec

CARD = "RTX 3090"
SWITCH_BYTES_PER_S = 2.5e9 / 8 * PAYLOAD_SHARE
WORTH = 1.01
"""Below that many times what the Plan is chosen by, something brings nothing."""
RIGS_TRIED = 4
"""Rigs in which one more card is tried; planning for many Devices takes its time."""
GIB = 2**30


@dataclass(frozen=True)
class Home:
    """A model and the hardware to plan it on.

    Args:
        spare: RAM of Rigs that none of the Devices offers, all of it.
    """

    model: Model
    hardware: Hardware
    spare: tuple[Measured, ...] = ()

    def with_device(self, device: Measured) -> Hardware:
        """The same hardware and one Device more."""
        return replace(self.hardware, devices=(*self.hardware.devices, device))

    @property
    def rigs(self) -> tuple[str, ...]:
        """Names of the Rigs that have a Device."""
        return tuple(dict.fromkeys(d.rig for d in self.hardware.devices))


@dataclass(frozen=True)
class Adviser:
    """Plans again, with something more; nothing of what is in force counts.

    Args:
        still: what is said of the dtype, where more memory would have another one chosen.
    """

    home: Home
    load: Load
    still: str = ""

    def gains(self, now: Prediction) -> Iterator[str]:
        """What one more card, a quicker switch, or RAM that is not offered would bring."""
        card, foreseen = self._best_card()
        yield self._compared(card + self.still, foreseen, now)
        switch = self._switch()
        if switch is not None:
            yield self._compared("a 2.5 GbE switch", self._foreseen(switch), now)
        for ram in self.home.spare:
            faster = self._foreseen(self.home.with_device(ram))
            if faster is not None and self._is_worth(faster, now):
                yield self._compared(f"{self._ram(ram)} on {ram.rig}{self.still}", faster, now)

    def _ram(self, ram: Measured) -> str:
        size = _whole(ram.spec.memory_bytes)
        offers = any(d.rig == ram.rig and d.spec.device.startswith("cpu") for d in self.home.hardware.devices)
        return f"{size} more of the RAM" if offers else f"--ram {size}"

    def cure(self) -> str:
        """Where the model does not fit: the least RAM, or else one more card, with which it does; empty where neither helps."""
        return self.cure_by_ram() or _fits_with(*self._best_card())

    def cure_by_ram(self) -> str:
        """`with --ram 24GiB on attic it fits: predicted 6.1 tok/s`: the least that does; empty where no Rig has that much."""
        shares = [(size, ram) for ram in self.home.spare if (size := self._least_gib(ram))]
        if not shares:
            return ""
        size, ram = min(shares, key=lambda share: share[0])
        return _fits_with(f"--ram {size}GiB on {ram.rig}", self._foreseen(self.home.with_device(_share(ram, size))))

    def _least_gib(self, ram: Measured) -> int:
        """The least share of a Rig's RAM with which the model fits, in whole GiB; 0 where none does."""
        sizes = range(1, ram.spec.memory_bytes // GIB + 1)
        at = bisect_left(sizes, True, key=lambda size: self._holds(_share(ram, size)))
        return sizes[at] if at < len(sizes) else 0

    def _holds(self, more: Measured) -> bool:
        """Whether the model fits with one more Device."""
        return not missing_bytes(self.home.model, self.home.with_device(more), self.load)

    def _best_card(self) -> tuple[str, Prediction | None]:
        """One more card in the Rig where it brings most."""
        card = known_card(CARD)
        assert card is not None
        model = self.home.model
        speed = card.speed(model.dtype, Sizes(model.config, model.dtype).weight_element)
        tried = []
        for rig in self.home.rigs[:RIGS_TRIED]:
            # No Device that a person names has two slashes.
            spec = WorkerSpec(f"{rig}/one/more", rig, "cuda:99", "", int(card.usable_gib * 2**30))
            tried.append((f"one more {CARD} in {rig}", self._foreseen(self.home.with_device(Measured(spec, speed)))))
        fits = [(what, then) for what, then in tried if then is not None]
        return min(fits, key=lambda each: objective_s(each[1], self.load), default=(f"one more {CARD}", None))

    def _switch(self) -> Hardware | None:
        """The same Rigs with 2.5 Gbit/s between them; None where no link would be quicker."""
        hardware, links = self.home.hardware, self.home.hardware.links
        known = {pair: link if pair[0] == pair[1] else _quicker(link) for pair, link in links.known.items()}
        faster = replace(links, known=known, default=_quicker(links.default))
        if all(faster.between(*pair) == links.between(*pair) for pair in combinations(self.home.rigs, 2)):
            return None
        return replace(hardware, links=faster)

    def _foreseen(self, hardware: Hardware) -> Prediction | None:
        """What the best Plan would do; None where none fits."""
        model, load = self.home.model, self.load
        hardware = replace(hardware, devices=tuple(sorted(hardware.devices, key=lambda d: d.name)))
        choice = None if missing_bytes(model, hardware, load) else decide(model, hardware, load)
        if choice is None:
            return None
        return predict(replace(lay_out(choice, model, hardware, load, 1, None), in_flight=0), hardware, load)

    def _is_worth(self, then: Prediction, now: Prediction) -> bool:
        return WORTH * objective_s(then, self.load) < objective_s(now, self.load)

    def _compared(self, what: str, then: Prediction | None, now: Prediction) -> str:
        if then is None or not self._is_worth(then, now):
            return f"{what}: no faster"
        alone = f"{what}: {rate(now.tokens_per_s, then.tokens_per_s)} for one stream"
        if self.load.sessions == 1:
            return alone
        return f"{alone}, {rate(now.total_tokens_per_s, then.total_tokens_per_s)} for {self.load.sessions} sessions"


def _quicker(link: Link) -> Link:
    return replace(link, bytes_per_s=max(link.bytes_per_s, SWITCH_BYTES_PER_S))


def _share(ram: Measured, size_gib: int) -> Measured:
    return replace(ram, spec=replace(ram.spec, memory_bytes=size_gib * GIB))


def _fits_with(what: str, then: Prediction | None) -> str:
    return f"with {what} it fits: predicted {rate(then.tokens_per_s)}" if then is not None else ""


def _whole(num_bytes: int) -> str:
    return f"{num_bytes >> 30}GiB" if num_bytes % 2**30 == 0 else gib(num_bytes).replace(" ", "")
