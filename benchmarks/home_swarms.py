"""Random swarms like those at people's homes: known cards, a NIC a Rig, sometimes the CPU's RAM, and a model that about fits.

The model is Mixtral 8x7B with its widths scaled, so that it takes 40 to 92% of what the Devices hold for it: that is what the
next smaller dtype, or the next larger model, amounts to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import sqrt
from random import Random

from cluster.hardware.known_cards import KNOWN_CARDS, KnownCard
from cluster.planner import Load, Prices
from cluster.planner.hardware import Hardware, Link, Links, Measured
from swarm.config import ModelConfig
from swarm.plan import Model, WorkerSpec

NETS = (Link(0.6e-3, 117e6), Link(0.6e-3, 117e6), Link(0.5e-3, 290e6), Link(0.4e-3, 1.17e9), Link(3e-3, 25e6))
"""Gigabit (twice: most homes), 2.5 and 10 GbE, Wi-Fi."""
CARDS = tuple(card for card in KNOWN_CARDS if not card.is_cpu)
CPUS = tuple(card for card in KNOWN_CARDS if card.is_cpu)
DTYPE, ELEMENT = "fp16", 2
"""What every card computes in, the old ones too."""


@dataclass(frozen=True)
class HomeSwarm:
    """One home: what is to be planned, on what, for whom."""

    model: Model
    hardware: Hardware
    load: Load

    def for_objective(self, objective: str) -> Load:
        return replace(self.load, objective=objective)


def home_swarm(random: Random, num_rigs: int | None = None, num_devices: int | None = None) -> HomeSwarm:
    """A home with 2 to 6 Rigs, or with so many, and 1 to 3 cards in each, or so many in all."""
    count = num_rigs or random.randint(2, 6)
    nets = {f"rig-{i}": random.choice(NETS) for i in range(count)}
    devices: list[Measured] = []
    for rig in nets:
        cards = [random.choice(CARDS)] * random.choice((1, 1, 2)) + [random.choice(CARDS)] * random.choice((0, 0, 1))
        devices += _of_rig(rig, cards + [random.choice(CPUS)] * (random.random() < 0.3))
    if num_devices:
        devices += [d for i in range(num_devices) for d in _of_rig(f"rig-{i % count}", [random.choice(CARDS)], f"-more{i}")]
        devices = devices[:num_devices]
    links = {(a, b): _slower(nets[a], nets[b]) for a, b in combinations(nets, 2)}
    load = Load(sessions=random.choice((1, 2, 4, 8)), context=random.choice((4096, 8192)))
    hardware = Hardware(tuple(devices), Links(links), random.choice(list(nets)))
    return HomeSwarm(_model(devices, load, random.uniform(0.4, 0.92)), hardware, load)


def _of_rig(rig: str, cards: Sequence[KnownCard], suffix: str = "") -> list[Measured]:
    found = []
    for index, card in enumerate(cards):
        kind = "cpu" if card.is_cpu else f"cuda:{index}"
        spec = WorkerSpec(f"{rig} {kind}{suffix}", rig, kind, f"{rig}:{7700 + index}", int(card.usable_gib * 2**30))
        found.append(Measured(spec, card.speed(DTYPE, ELEMENT)))
    return found


def _slower(a: Link, b: Link) -> Link:
    return Link(max(a.rtt_s, b.rtt_s), min(a.bytes_per_s, b.bytes_per_s))


def _model(devices: Sequence[Measured], load: Load, share: float) -> Model:
    """Of the widths at which the model takes that share of what is left on the Devices beside workspace."""
    full = _of_width(1.0)
    prices = Prices.of(full, load)
    room = sum(max(0, d.spec.memory_bytes - prices.fixed(True, True)) for d in devices)
    return _of_width(sqrt(share * room / (prices.num_blocks * prices.whole)))


def _of_width(scale: float) -> Model:
    """Hidden 4096 and FFN 14336 times `scale`, in whole heads of 128."""
    heads = max(8, 8 * round(4 * scale))
    hidden, ffn = heads * 128, max(256, 256 * round(56 * scale * scale * 32 / heads))
    config = ModelConfig(
        "MixtralForCausalLM", hidden, ffn, 32, heads, 8, 128, 8, 2, 32000, 32768, 1e-5, 1e6, False, "fp16", 1, (2,)
    )
    return Model(f"mixtral-{hidden}x{ffn}", "benchmark", "0" * 16, DTYPE, config)
