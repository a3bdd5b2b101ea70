"""Homes in which a released Mixtral fits only with experts away from their Blocks: 2 to 6 Devices, some with a CPU's RAM.

What is free on the Devices is scaled, all by one number, to between what the tightest packing takes and what whole Blocks take.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from random import Random

from benchmarks.home_swarms import CARDS, CPUS, NETS, HomeSwarm
from cluster.hardware.known_cards import KnownCard
from cluster.planner import Load, Prices
from cluster.planner.hardware import Hardware, Link, Links, Measured
from cluster.planner.tightest import pack
from swarm.config import Sizes
from swarm.plan import Model, WorkerSpec
from swarm.shapes import SHAPES

DTYPES = ("int4", "int8", "fp16")
HALVINGS = 30
"""Of the span in which a scale is looked for."""
SPAN = 0.03
"""Between both scales at least: whole Blocks may lack no more than room for embedding and head."""


def tight_home(random: Random) -> HomeSwarm:
    """A home of 1 to 3 Rigs and 2 to 6 Devices; in one of two, one of them is a CPU's RAM."""
    dtype = random.choice(DTYPES)
    name = random.choice(sorted(SHAPES))
    model = Model(name, name, "no weights", dtype, SHAPES[name])
    count = random.randint(2, 6)
    rigs = [f"rig-{i}" for i in range(random.randint(1, min(3, count)))]
    nets = {rig: random.choice(NETS) for rig in rigs}
    cards = [random.choice(CARDS) for _ in range(count)]
    if random.random() < 0.5:
        cards[-1] = random.choice(CPUS)
    if random.random() < 0.4:
        cards[1] = cards[0]
    devices = tuple(_device(i, rigs[i % len(rigs)], card, model) for i, card in enumerate(cards))
    load = Load(sessions=random.choice((1, 2, 4, 8)), context=random.choice((4096, 8192)))
    links = Links({(a, b): _slower(nets[a], nets[b]) for a, b in combinations(rigs, 2)})
    prices = Prices.of(model, load)
    least, most = _least_scale(devices, prices, whole=False), _least_scale(devices, prices, whole=True)
    scale = least + random.uniform(0.05, 0.95) * max(most - least, SPAN * least)
    return HomeSwarm(model, Hardware(_scaled(devices, scale), links, random.choice(rigs)), load)


def _device(index: int, rig: str, card: KnownCard, model: Model) -> Measured:
    kind = "cpu" if card.is_cpu else f"cuda:{index}"
    spec = WorkerSpec(f"{rig} {kind}", rig, kind, f"{rig}:{7700 + index}", int(card.usable_gib * 2**30))
    return Measured(spec, card.speed(model.dtype, Sizes(model.config, model.dtype).weight_element))


def _slower(a: Link, b: Link) -> Link:
    return Link(max(a.rtt_s, b.rtt_s), min(a.bytes_per_s, b.bytes_per_s))


def _scaled(devices: tuple[Measured, ...], scale: float) -> tuple[Measured, ...]:
    return tuple(replace(d, spec=replace(d.spec, memory_bytes=int(d.spec.memory_bytes * scale))) for d in devices)


def _least_scale(devices: tuple[Measured, ...], prices: Prices, whole: bool) -> float:
    """Of all memory, with which the model fits: at all, or in whole Blocks."""
    low, high = 0.0, 64.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = _fits(_scaled(devices, middle), prices, whole)
        low, high = (low, middle) if fits else (middle, high)
    return high


def _fits(devices: tuple[Measured, ...], prices: Prices, whole: bool) -> bool:
    if whole:
        rooms = [max(0, d.spec.memory_bytes - prices.fixed(False, False)) // prices.whole for d in devices]
        return sum(rooms) >= prices.num_blocks
    packing = pack([d.spec for d in devices], prices)
    return packing is not None and not packing.missing_bytes
