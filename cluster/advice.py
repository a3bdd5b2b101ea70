"""What a little more hardware would bring: the same model planned again with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from cluster.hardware.known_cards import known_card
from cluster.planner import Load
from cluster.planner.hardware import Hardware, Link, Measured
from cluster.planner.predict import objective_s
from cluster.rigs_file import PAYLOAD_SHARE
from swarm.config import Sizes
from swarm.errors import DoesNotFit, PlacementError, gib
from swarm.plan import Model, Plan, Prediction, WorkerSpec

Decide = Callable[[Model, Hardware, Load], Plan]

CARD = "RTX 3090"
SWITCH_BYTES_PER_S = 2.5e9 / 8 * PAYLOAD_SHARE
WORTH = 1.01
"""Below that much faster, something brings nothing."""
RIGS_TRIED = 4
RAM_STEP_BYTES = 8 * 2**30


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
    """Plans again, with something more.

    Args:
        decide: model, hardware and load in, a Plan with its prediction out.
    """

    home: Home
    load: Load
    decide: Decide

    def gains(self, now: Prediction) -> Iterator[str]:
        """What one more card, a quicker switch, or RAM that is not offered would bring."""
        yield self._compared(*self._best_card(), now)
        switch = self._switch()
        if switch is not None:
            yield self._compared("a 2.5 GbE switch", self._predicted(switch), now)
        for ram in self.home.spare:
            faster = self._predicted(self.home.with_device(ram))
            if faster is not None and self._is_worth(faster, now):
                yield self._compared(f"--ram {_whole(ram.spec.memory_bytes)} on {ram.rig}", faster, now)

    def cures(self, error: DoesNotFit) -> str:
        """Where the model does not fit: the least RAM, or else one more card, with which it does; empty where neither helps."""
        missing = error.needed_bytes - error.available_bytes
        helps = [found for ram in self.home.spare if (found := self._least(ram, missing))]
        best = min(helps, key=lambda each: objective_s(each[1], self.load)) if helps else self._best_card()
        what, then = best
        return f"with {what} it fits: predicted {then.tokens_per_s:.1f} tok/s" if then is not None else ""

    def _least(self, ram: Measured, missing: int) -> tuple[str, Prediction] | None:
        """The least of a Rig's RAM with which the model fits."""
        for offered in _offers(ram, missing):
            if (then := self._predicted(self.home.with_device(offered))) is not None:
                return f"--ram {_whole(offered.spec.memory_bytes)} on {ram.rig}", then
        return None

    def _best_card(self) -> tuple[str, Prediction | None]:
        """One more card in the Rig where it brings most."""
        card = known_card(CARD)
        assert card is not None
        sizes = Sizes(self.home.model.config, self.home.model.dtype)
        speed, memory_bytes = card.speed(self.home.model.dtype, sizes.weight_element), int(card.usable_gib * 2**30)
        tried = []
        for rig in self.home.rigs[:RIGS_TRIED]:
            # No Device that a person names has two slashes.
            more = Measured(WorkerSpec(f"{rig}/one/more", rig, "cuda:99", "", memory_bytes), speed)
            tried.append((f"one more {CARD} in {rig}", self._predicted(self.home.with_device(more))))
        fits = [(what, found) for what, found in tried if found is not None]
        return min(fits, key=lambda each: objective_s(each[1], self.load), default=(f"one more {CARD}", None))

    def _switch(self) -> Hardware | None:
        """The same Rigs with 2.5 Gbit/s between them; None where no link would be quicker."""
        hardware, links = self.home.hardware, self.home.hardware.links
        used = self.home.rigs
        if len(used) < 2:
            return None
        known = {pair: link if pair[0] == pair[1] else _quicker(link) for pair, link in links.known.items()}
        faster = replace(links, known=known, default=_quicker(links.default))
        pairs = list(combinations(used, 2))
        if all(faster.between(*pair) == links.between(*pair) for pair in pairs):
            return None
        return replace(hardware, links=faster)

    def _predicted(self, hardware: Hardware) -> Prediction | None:
        try:
            return self.decide(self.home.model, hardware, self.load).predicted
        except PlacementError:
            return None

    def _is_worth(self, then: Prediction, now: Prediction) -> bool:
        return then.tokens_per_s > WORTH * now.tokens_per_s or then.total_tokens_per_s > WORTH * now.total_tokens_per_s

    def _compared(self, what: str, then: Prediction | None, now: Prediction) -> str:
        if then is None or not self._is_worth(then, now):
            return f"{what}: no faster"
        alone = f"{what}: {now.tokens_per_s:.1f} → {then.tokens_per_s:.1f} tok/s for one stream"
        if self.load.sessions == 1:
            return alone
        return f"{alone}, {now.total_tokens_per_s:.1f} → {then.total_tokens_per_s:.1f} tok/s for {self.load.sessions} sessions"


def _offers(ram: Measured, at_least: int) -> Iterator[Measured]:
    """Shares of a Rig's RAM from what is missing up, in steps that double, and then all of it."""
    size, step = -(-at_least // RAM_STEP_BYTES) * RAM_STEP_BYTES, RAM_STEP_BYTES
    while size < ram.spec.memory_bytes:
        yield replace(ram, spec=replace(ram.spec, memory_bytes=size))
        size, step = size + step, 2 * step
    yield ram


def _quicker(link: Link) -> Link:
    return replace(link, bytes_per_s=max(link.bytes_per_s, SWITCH_BYTES_PER_S))


def _whole(num_bytes: int) -> str:
    return f"{num_bytes >> 30}GiB" if num_bytes % 2**30 == 0 else gib(num_bytes).replace(" ", "")
